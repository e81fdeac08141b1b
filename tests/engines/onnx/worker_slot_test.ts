// Tests of the worker slot with real workers that misbehave in every way: each is replaced, and its run is rejected.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../../src/faults/fault.ts";
import { startSandboxedWorker } from "../../../src/engines/onnx/sandboxed_worker.ts";
import { WorkerSlot } from "../../../src/engines/onnx/worker_slot.ts";

/** A worker that reports its start and then does `act` with each order. */
const obeying = (act: string) => `
  let started = false;
  onmessage = ({ data }) => {
    if (started) ${act};
    else postMessage({ kind: "started" });
    started = true;
  };`;
const ECHO = obeying(`postMessage({ kind: "echo", data })`);

/**
 * Opens a slot; `sources` are its workers' programs one after the other, the last for all further ones. The first
 * `unmade` workers cannot be made.
 */
function openSlot(sources: readonly string[], runMsMax = 20_000, unmade = 0) {
  const faults: Fault[] = [];
  const workers: Worker[] = [];
  const terminated = new Set<Worker>();
  let changed = Promise.withResolvers<void>();
  const slot = new WorkerSlot({
    name: "the worker",
    startWorker: () => {
      if (unmade-- > 0) throw new Error("no thread");
      const source = sources[Math.min(workers.length, sources.length - 1)] ?? "";
      const worker = startSandboxedWorker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
      workers.push(worker);
      const terminate = worker.terminate.bind(worker);
      worker.terminate = () => void (terminated.add(worker), terminate());
      return worker;
    },
    startOrder: "start",
    startMsMax: 20_000,
    runMsMax,
    onChange: () => {
      changed.resolve();
      changed = Promise.withResolvers();
    },
    onFault: (fault) => faults.push(fault),
  });
  slot.start();
  const until = async (holds: () => boolean) => {
    while (!holds()) await changed.promise;
  };
  return { slot, faults, workers, terminated, until };
}

const parseEcho = (data: unknown) => {
  const { kind, data: echoed } = (data ?? {}) as { kind?: unknown; data?: unknown };
  return kind === "echo" && typeof echoed === "string" ? echoed : undefined;
};

const unavailable = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "unavailable";

Deno.test("a slot is able once its worker has reported, runs one order at a time, and ends with its worker", async () => {
  const { slot, until, faults } = openSlot([ECHO]);
  ok(slot.undecided() && !slot.idle() && !slot.alive());
  await rejects(slot.run("too early", parseEcho), unavailable);
  await until(() => slot.idle());
  ok(!slot.undecided() && slot.alive());
  const run = slot.run("hello", parseEcho);
  ok(!slot.idle() && slot.alive());
  await rejects(slot.run("meanwhile", parseEcho), unavailable);
  strictEqual(await run, "hello");
  const last = slot.run("last", parseEcho);
  slot.close();
  await rejects(last, unavailable);
  ok(!slot.alive());
  deepStrictEqual(faults, []);
  strictEqual(slot.replacements(), 0);
});

const misbehaviours: Readonly<Record<string, readonly [program: string, reason: RegExp]>> = {
  "throws": [obeying(`throw new Error("broken")`), /broken/],
  "rejects a promise that nobody holds": [obeying(`Promise.reject(new Error("lost"))`), /lost/],
  "answers what is no answer": [obeying(`postMessage({ kind: "echo", data: 7 })`), /something unexpected/],
  "answers with a function's name for a kind": [obeying(`postMessage("toString")`), /something unexpected/],
  "answers nothing at all": [obeying(`postMessage(undefined)`), /something unexpected/],
  "reports a second start": [obeying(`postMessage({ kind: "started" })`), /something unexpected/],
};

for (const [what, [program, reason]] of Object.entries(misbehaviours)) {
  Deno.test(`a worker that ${what} is replaced, and its run is rejected`, async () => {
    const { slot, until, faults, workers, terminated } = openSlot([program, ECHO]);
    await until(() => slot.idle());
    await rejects(slot.run("go", parseEcho), unavailable);
    strictEqual(faults.length, 1);
    match(faults[0]?.message ?? "", reason);
    await until(() => slot.idle());
    strictEqual(await slot.run("again", parseEcho), "again");
    strictEqual(slot.replacements(), 1);
    deepStrictEqual([...terminated], workers.slice(0, 1));
    slot.close();
    deepStrictEqual([...terminated], workers);
  });
}

Deno.test("a worker that does not answer in time, because it left or hangs, is replaced", async () => {
  for (const act of ["close()", "void 0"]) {
    const { slot, until, faults } = openSlot([obeying(act), ECHO], 500);
    await until(() => slot.idle());
    await rejects(slot.run("go", parseEcho), unavailable);
    match(faults[0]?.message ?? "", /no answer/);
    await until(() => slot.idle());
    slot.close();
  }
});

Deno.test("a worker that speaks when it was not asked is replaced", async () => {
  const chatty =
    `onmessage = () => { postMessage({ kind: "started" }); postMessage({ kind: "echo", data: "!" }); };`;
  const { slot, until, faults } = openSlot([chatty, ECHO]);
  await until(() => faults.length === 1 && slot.idle());
  strictEqual(slot.replacements(), 1);
  slot.close();
});

Deno.test("a worker that refuses a run stays", async () => {
  const picky = obeying(
    `postMessage({ kind: data === "no" ? "refused" : "echo", reason: "not this", data })`,
  );
  const { slot, until, faults } = openSlot([picky]);
  await until(() => slot.idle());
  await rejects(
    slot.run("no", parseEcho),
    (thrown) => unavailable(thrown) && /not this/.test(String(thrown)),
  );
  strictEqual(await slot.run("yes", parseEcho), "yes");
  deepStrictEqual([slot.replacements(), faults.length], [0, 0]);
  slot.close();
});

Deno.test("a worker that cannot even be made counts as one that died", async () => {
  const { slot, until, faults } = openSlot([ECHO], 20_000, 1);
  await until(() => slot.idle());
  match(faults[0]?.message ?? "", /could not start: Error: no thread/);
  strictEqual(slot.replacements(), 1);
  slot.close();
});

Deno.test("only a refusal of the very first start makes a slot useless", async () => {
  const refusing = `onmessage = () => postMessage({ kind: "refused", reason: "bad bytes" });`;
  const first = openSlot([refusing]);
  await first.until(() => first.slot.useless());
  match(first.faults[0]?.message ?? "", /bad bytes/);
  first.slot.close();

  const later = openSlot([obeying("throw 1"), refusing, ECHO]);
  await later.until(() => later.slot.idle());
  await rejects(later.slot.run("go", parseEcho), unavailable);
  await later.until(() => later.slot.idle());
  strictEqual(later.slot.useless(), false);
  strictEqual(later.slot.replacements(), 2);
  later.slot.close();
});

Deno.test("a worker that dies at every start is started less and less often", async () => {
  const { slot, workers } = openSlot([`throw new Error("at once")`]);
  await new Promise((resolve) => setTimeout(resolve, 600));
  // At once, at once again, then after 250 ms and 500 ms; a slow machine gets to fewer.
  ok(workers.length >= 2 && workers.length <= 4, `${workers.length} starts`);
  ok(!slot.undecided());
  slot.close();
});

Deno.test("what a worker says at such length that it would fill the log is cut", async () => {
  const { slot, until, faults } = openSlot([`throw new Error("x".repeat(1000))`]);
  await until(() => faults.length > 0);
  ok((faults[0]?.message.length ?? Infinity) < 400);
  slot.close();
});
