// Tests of the ONNX engine with the real model in real workers.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { modelCardSchema } from "../../../src/registry/model_card.ts";
import { systemClock } from "../../../src/time/clock.ts";
import type { RunBounds } from "../../../src/engines/engine.ts";
import type { Embeddings } from "../../../src/engines/task.ts";
import {
  type OnnxEngine,
  type OnnxEngineOptions,
  openOnnxEngine,
} from "../../../src/engines/onnx/onnx_engine.ts";
import { runtimeWasmUrl } from "../../../src/engines/onnx/runtime_wasm.ts";
import { startSandboxedWorker } from "../../../src/engines/onnx/sandboxed_worker.ts";

const model = new URL("../../../models/use-lite/", import.meta.url);
const card = modelCardSchema.parse(JSON.parse(await Deno.readTextFile(new URL("card.json", model))));
const graph = await Deno.readFile(new URL(card.artefacts.graph.file, model));
const vocabulary = await Deno.readFile(new URL(card.artefacts.vocabulary.file, model));
const runtimeWasm = await Deno.readFile(runtimeWasmUrl);

interface Reference {
  readonly cases: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly vector: readonly number[];
  }[];
}
const reference: Reference = JSON.parse(
  await Deno.readTextFile(new URL("../../registry/fixtures/use_lite_reference.json", import.meta.url)),
);

const { tokensPerTextMax } = card.limits;
const words = (count: number) => Array(count).fill("you").join(" "); // one token each

/** Opens an engine; tells its workers by their files, and what faults it reported. */
function openEngine(changes: Partial<OnnxEngineOptions> = {}) {
  const faults: Fault[] = [];
  const tokenizers: Worker[] = [];
  const inferrers: Worker[] = [];
  const engine = openOnnxEngine({
    card,
    graph,
    vocabulary,
    runtimeWasm,
    workers: 1,
    queueMax: 100,
    clock: systemClock,
    onFault: (fault) => faults.push(fault),
    startWorker: (url) => {
      const worker = startSandboxedWorker(url);
      (url.pathname.endsWith("/tokenizer_worker.ts") ? tokenizers : inferrers).push(worker);
      return worker;
    },
    ...changes,
  });
  return { engine, faults, tokenizers, inferrers };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const within = (timeoutMs = 60_000, signal = new AbortController().signal): RunBounds => ({
  signal,
  deadlineMs: systemClock.monotonic() + timeoutMs,
  trace: { servedBy: null, attempts: 0 },
});
const embed = (engine: OnnxEngine, texts: readonly string[], bounds: RunBounds): Promise<Embeddings> =>
  engine.run<"embedding">({ task: "embedding", texts }, bounds);
const fault = (kind: FaultKind) => (thrown: unknown) => thrown instanceof Fault && thrown.kind === kind;

/** The rows of the answer. */
function rowsOf({ vectors }: Embeddings): Float32Array[] {
  return Array.from(
    { length: vectors.length / card.dimensions },
    (_, row) => vectors.subarray(row * card.dimensions, (row + 1) * card.dimensions),
  );
}

function furthest(left: ArrayLike<number>, right: ArrayLike<number>): number {
  strictEqual(left.length, right.length);
  return Array.from(left).reduce(
    (most, value, index) => Math.max(most, Math.abs(value - (right[index] ?? NaN))),
    0,
  );
}

Deno.test("the engine with the real model", async (t) => {
  const { engine, faults } = openEngine({ workers: 2 });
  strictEqual(engine.state(), "warming");

  await t.step("refuses work until all its workers are warm", async () => {
    await rejects(embed(engine, ["too early"], within()), fault("unavailable"));
    await until(() => engine.state() !== "warming");
    strictEqual(engine.state(), "ready");
    strictEqual(engine.figures().workersAlive, 2);
    strictEqual(engine.figures().textsDispatched, 0);
  });

  await t.step("gives the reference's vectors and token counts, in the order of the texts", async () => {
    const { cases } = reference;
    ok(cases.length >= 4);
    const answer = await embed(engine, cases.map(({ text }) => text), within());
    deepStrictEqual(answer.tokenCounts, cases.map(({ ids }) => ids.length));
    const rows = rowsOf(answer);
    cases.forEach(({ text, vector }, index) => {
      const distance = furthest(rows[index] ?? [], vector);
      ok(distance <= 1e-5, `${text}: ${distance}`);
    });
  });

  await t.step("gives a text the same vector whatever runs beside it", async () => {
    const texts = [
      ...Array.from({ length: 24 }, (_, index) => `${words(index * index % 37)} and number ${index}`),
      "",
      "どうぞよろしく 🙂 \u0000 \ud800",
      words(tokensPerTextMax),
    ];
    const together = await embed(engine, texts, within());
    const alone: Embeddings[] = [];
    for (const text of texts) alone.push(await embed(engine, [text], within()));
    rowsOf(together).forEach((row, index) => {
      const distance = furthest(row, alone[index]?.vectors ?? []);
      ok(distance <= 1e-5, `text ${index}: ${distance}`);
      strictEqual(together.tokenCounts?.[index], alone[index]?.tokenCounts?.[0]);
      ok(Math.abs(Math.hypot(...row) - 1) < 1e-5, "not normalised");
    });
  });

  await t.step("embeds empty texts wherever they stand, with one and the same vector", async () => {
    const { vectors: empty, tokenCounts } = await embed(engine, [""], within());
    deepStrictEqual(tokenCounts, [0]);
    strictEqual(empty.length, card.dimensions);
    for (const texts of [["", "", ""], ["", "a text"], ["a text", ""], ["a text", "", "another"]]) {
      const rows = rowsOf(await embed(engine, texts, within()));
      strictEqual(rows.length, texts.length);
      texts.forEach((text, index) => {
        const distance = furthest(rows[index] ?? [], empty);
        ok(
          text === "" ? distance <= 1e-6 : distance > 1e-2,
          `${JSON.stringify(texts)} ${index}: ${distance}`,
        );
      });
    }
  });

  await t.step(
    "takes a text of as many tokens as the card allows, and names each that has one more",
    async () => {
      const { tokenCounts } = await embed(engine, [words(tokensPerTextMax)], within());
      deepStrictEqual(tokenCounts, [tokensPerTextMax]);
      const before = engine.figures().textsDispatched;
      await rejects(embed(engine, ["fine", words(tokensPerTextMax + 1)], within()), (thrown) => {
        ok(fault("fields_invalid")(thrown));
        deepStrictEqual((thrown as Fault).details.fields, [
          {
            path: "/texts/1",
            message: `has ${tokensPerTextMax + 1} tokens; at most ${tokensPerTextMax} are allowed`,
          },
        ]);
        return true;
      });
      strictEqual(engine.figures().textsDispatched, before);
    },
  );

  await t.step(
    "answers many requests at a time, each with its own vectors, in fewer runs than texts",
    async () => {
      const texts = Array.from({ length: 40 }, (_, index) => `request number ${index}`);
      const before = engine.figures();
      const answers = await Promise.all(texts.map((text) => embed(engine, [text], within())));
      const after = engine.figures();
      const together = rowsOf(await embed(engine, texts, within()));
      answers.forEach(({ vectors }, index) => ok(furthest(vectors, together[index] ?? []) <= 1e-5));
      strictEqual(after.textsDispatched - before.textsDispatched, texts.length);
      ok(after.runsDispatched - before.runsDispatched < texts.length / 2);
      strictEqual(after.requestsUnfinished, 0);
    },
  );

  await t.step("is closed after its end, and says so", async () => {
    await Promise.all([engine.close(), engine.close()]);
    strictEqual(engine.state(), "closed");
    await rejects(embed(engine, ["too late"], within()), fault("unavailable"));
    deepStrictEqual(faults, []);
  });
});

Deno.test("an engine under load", async (t) => {
  const { engine } = openEngine({ workers: 1, queueMax: 2 });
  await until(() => engine.state() === "ready");
  const long = Array(4).fill(words(tokensPerTextMax)); // four runs

  await t.step("refuses the request beyond its queue, and answers the others", async () => {
    const accepted = [
      embed(engine, long, within()),
      embed(engine, ["b"], within()),
      embed(engine, ["c"], within()),
    ];
    await rejects(
      embed(engine, ["d"], within()),
      (thrown) => fault("overloaded")(thrown) && (thrown as Fault).details.retryAfterSeconds === 1,
    );
    strictEqual((await Promise.all(accepted)).length, 3);
  });

  await t.step("lets a request of one text pass one of many", async () => {
    const order: string[] = [];
    await Promise.all([
      embed(engine, long, within()).then(() => order.push("many")),
      embed(engine, ["one"], within()).then(() => order.push("one")),
    ]);
    deepStrictEqual(order, ["one", "many"]);
  });

  await t.step("drops a request whose deadline passes while it waits: no worker ever sees it", async () => {
    const before = engine.figures().textsDispatched;
    const running = embed(engine, [words(tokensPerTextMax)], within());
    const late = embed(engine, ["waits"], within(2));
    await rejects(late, fault("deadline_exceeded"));
    strictEqual(engine.figures().requestsUnfinished, 1, "the other one was meant to run still");
    await running;
    await embed(engine, ["after"], within());
    strictEqual(engine.figures().textsDispatched, before + 2);
  });

  await t.step("ends a request whose deadline passes while it runs, and drops the rest of it", async () => {
    const before = engine.figures().textsDispatched;
    const late = embed(engine, long, within(30));
    await rejects(late, fault("deadline_exceeded"));
    await embed(engine, ["after"], within());
    ok(engine.figures().textsDispatched - before < long.length + 1);
  });

  await t.step("drops what a client who leaves has waiting", async () => {
    const before = engine.figures().textsDispatched;
    const client = new AbortController();
    const answer = embed(engine, long, within(60_000, client.signal));
    await until(() => engine.figures().textsDispatched > before);
    const atAbort = engine.figures().textsDispatched;
    ok(atAbort < before + long.length, "some of it was meant to wait still");
    client.abort();
    await rejects(answer, fault("client_left"));
    await embed(engine, ["after"], within());
    strictEqual(engine.figures().textsDispatched, atAbort + 1);
  });

  await t.step("lets running work end when it closes, and rejects what waits", async () => {
    const before = engine.figures().textsDispatched;
    const running = embed(engine, [words(tokensPerTextMax)], within());
    await until(() => engine.figures().textsDispatched === before + 1);
    const waiting = embed(engine, ["waits"], within());
    const closed = engine.close();
    await rejects(waiting, fault("unavailable"));
    strictEqual((await running).vectors.length, card.dimensions);
    await closed;
  });
});

Deno.test("an engine whose workers die", async (t) => {
  const { engine, faults, inferrers, tokenizers } = openEngine({ workers: 2, runMsMax: 2_000 });
  await until(() => engine.state() === "ready");

  await t.step("loses the run of a worker that is gone, and no other, and replaces the worker", async () => {
    inferrers[0]?.terminate(); // no event tells of it
    const lost = embed(engine, ["lost"], within());
    await until(() => engine.figures().runsDispatched === 1);
    const spared = embed(engine, ["spared"], within());
    await until(() => engine.figures().runsDispatched === 2);
    strictEqual((await spared).vectors.length, card.dimensions);
    await rejects(
      lost,
      (thrown) => fault("unavailable")(thrown) && (thrown as Fault).details.retryAfterSeconds === 1,
    );
    match(faults[0]?.message ?? "", /^inference worker 1 died: no answer/);
    strictEqual(engine.state(), "ready"); // the other worker lives
    strictEqual((await embed(engine, ["meanwhile"], within())).vectors.length, card.dimensions);
    await until(() => engine.figures().workersAlive === 2);
    deepStrictEqual([inferrers.length, engine.figures().workersReplaced], [3, 1]);
  });

  await t.step("keeps what waits while no inference worker lives, and refuses what comes", async () => {
    const before = engine.figures().runsDispatched;
    for (const worker of inferrers.slice(1)) worker.terminate();
    const lost = [embed(engine, [words(100)], within()), embed(engine, [words(100)], within())];
    await until(() => engine.figures().runsDispatched === before + 2);
    const waiting = embed(engine, ["waits"], within());
    for (const outcome of await Promise.allSettled(lost)) strictEqual(outcome.status, "rejected");
    deepStrictEqual([engine.figures().workersAlive, engine.state()], [0, "warming"]);
    await rejects(embed(engine, ["meanwhile"], within()), fault("unavailable"));
    strictEqual((await waiting).vectors.length, card.dimensions);
    strictEqual(engine.state(), "ready");
  });

  await t.step("replaces a tokenizer worker that dies", async () => {
    tokenizers[0]?.postMessage(null);
    await until(() => engine.state() === "warming");
    await until(() => engine.state() === "ready");
    strictEqual((await embed(engine, ["again"], within())).vectors.length, card.dimensions);
    strictEqual(tokenizers.length, 2);
  });

  await engine.close();
});

Deno.test("bytes that are no model, no vocabulary or no runtime make the engine failed, with the reason for the log", async () => {
  const garbage = Uint8Array.from({ length: 1000 }, (_, index) => index % 251);
  for (const changes of [{ graph: garbage }, { vocabulary: garbage }, { runtimeWasm: garbage }]) {
    const { engine, faults } = openEngine(changes);
    await until(() => engine.state() !== "warming");
    strictEqual(engine.state(), "failed");
    match(faults[0]?.message ?? "", /could not start/);
    await rejects(embed(engine, ["text"], within()), fault("unavailable"));
    await engine.close();
    strictEqual(engine.state(), "failed");
  }
});

Deno.test("an engine can be closed while it warms up", async () => {
  const { engine } = openEngine();
  await engine.close();
  strictEqual(engine.state(), "closed");
});
