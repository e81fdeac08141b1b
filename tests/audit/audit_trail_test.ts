import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { setImmediate } from "node:timers";
import {
  type AuditTrail,
  type AuditTrailOptions,
  type DurableAuditTrail,
  openAuditTrail,
} from "../../src/audit/audit_trail.ts";
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { openEvent } from "../../src/audit/trail/sealed_event.ts";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { parseTreeHead, type TreeHead } from "../../src/audit/trail/tree_head.ts";
import { Fault } from "../../src/faults/fault.ts";
import { manualClock } from "../support/manual_clock.ts";
import { rewriteTrail } from "./forged_trail.ts";
import {
  numbered,
  numberedUpTo,
  rotatedKeys,
  TIME_MS,
  TRAIL_KEYS,
  TrailFolder,
  trailOptions,
  until,
} from "./trail_folder.ts";

interface TrailSettings extends Partial<AuditTrailOptions> {
  readonly startWorker?: () => Worker;
}

function open(folder: TrailFolder, settings: TrailSettings = {}): Promise<DurableAuditTrail> {
  const { startWorker, ...given } = settings;
  const options = trailOptions(folder, given);
  return startWorker === undefined ? openAuditTrail(options) : openAuditTrail(options, startWorker);
}

/** The real worker on a stub of a disk; see there. */
function startStubDisk(folder: TrailFolder): Worker {
  return new Worker(new URL("./fixtures/stub_disk_worker.ts", import.meta.url), {
    type: "module",
    name: `${folder.root}/disk`,
    deno: { permissions: { read: [folder.root], write: [folder.root] } },
  });
}

const hang = (folder: TrailFolder) => Deno.writeTextFileSync(`${folder.root}/disk.hang`, "");
const unhang = (folder: TrailFolder) => Deno.removeSync(`${folder.root}/disk.hang`);

function unavailable(words = /./): (thrown: unknown) => boolean {
  return (thrown) => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "unavailable");
    match(thrown.message, words);
    return true;
  };
}

async function requireIntact(folder: TrailFolder): Promise<void> {
  const { finding, tornTail } = await verifyChain(folder);
  deepStrictEqual({ finding, tornTail }, { finding: undefined, tornTail: undefined });
}

// --- The contract, for every adapter -------------------------------------------------------------------------------

/** A trail, and what a test may do to it. */
interface Subject extends AsyncDisposable {
  readonly trail: AuditTrail;
  recorded(): readonly unknown[];
  breakIt(): void;
  mendIt(): void;
}

async function onDisk(): Promise<Subject> {
  const folder = new TrailFolder();
  const trail = await open(folder);
  const aside = `${folder.root}/aside`;
  return {
    trail,
    recorded: () => folder.entries().map(({ event }) => event),
    breakIt: () => Deno.renameSync(folder.directory, aside),
    mendIt: () => Deno.renameSync(aside, folder.directory),
    async [Symbol.asyncDispose]() {
      await trail.close();
      await folder[Symbol.asyncDispose]();
    },
  };
}

function inMemory(): Promise<Subject> {
  const trail = memoryAuditTrail();
  return Promise.resolve({
    trail,
    recorded: () => trail.events,
    breakIt: () => trail.setFailing(true),
    mendIt: () => trail.setFailing(false),
    [Symbol.asyncDispose]: () => trail.close(),
  });
}

for (const [name, subject] of [["on disk", onDisk], ["in memory", inMemory]] as const) {
  Deno.test(`the trail ${name} has an event as soon as its record resolves`, async () => {
    await using it = await subject();
    strictEqual(it.trail.healthy(), true);
    await it.trail.record(numbered(1));
    deepStrictEqual(it.recorded(), [numbered(1)]);
    await it.trail.record(numbered(2));
    deepStrictEqual(it.recorded(), [numbered(1), numbered(2)]);
  });

  Deno.test(`the trail ${name} keeps the order in which events were recorded`, async () => {
    await using it = await subject();
    const events = numberedUpTo(200);
    await Promise.all(events.map((event) => it.trail.record(event)));
    deepStrictEqual(it.recorded(), events);
  });

  Deno.test(`the trail ${name} rejects while it is broken and mends without traffic`, async () => {
    await using it = await subject();
    await it.trail.record(numbered(1));
    it.breakIt();
    await rejects(it.trail.record(numbered(2)), unavailable());
    strictEqual(it.trail.healthy(), false);
    await rejects(it.trail.record(numbered(3)), unavailable());
    it.mendIt();
    await until(() => it.trail.healthy());
    await it.trail.record(numbered(4));
    deepStrictEqual(it.recorded().at(-1), numbered(4));
  });

  Deno.test(`the trail ${name} rejects an event that is no JSON or too long, and goes on`, async () => {
    await using it = await subject();
    const endless: AuditEvent = { type: "model.refused", model: "m", reason: "x".repeat(70_000) };
    await rejects(
      it.trail.record(endless),
      (thrown) => thrown instanceof Fault && thrown.kind === "internal",
    );
    const noNumber = { ...finished("completed"), tokens: NaN };
    await rejects(
      it.trail.record(noNumber),
      (thrown) => thrown instanceof Fault && thrown.kind === "internal",
    );
    await it.trail.record(numbered(1));
    deepStrictEqual(it.recorded(), [numbered(1)]);
    strictEqual(it.trail.healthy(), true);
  });

  Deno.test(`the trail ${name} takes events that belong together in their order, or none of them`, async () => {
    await using it = await subject();
    await it.trail.recordAll(numberedUpTo(3));
    deepStrictEqual(it.recorded(), numberedUpTo(3));
    const endless: AuditEvent = { type: "model.refused", model: "m", reason: "x".repeat(70_000) };
    await rejects(
      it.trail.recordAll([numbered(4), endless]),
      (thrown) => thrown instanceof Fault && thrown.kind === "internal",
    );
    await it.trail.record(numbered(5));
    deepStrictEqual(it.recorded(), [...numberedUpTo(3), numbered(5)]);
    it.breakIt();
    await rejects(it.trail.recordAll(numberedUpTo(7, 6)), unavailable());
  });

  Deno.test(`the trail ${name} takes strings that hold anything`, async () => {
    await using it = await subject();
    await it.trail.record(
      finished('" \\ \n \r \0 \u2028 \u2029 \ud800 \udfff \u{1F512} </script> {"seq":1}'),
    );
    strictEqual(it.recorded().length, 1);
  });

  Deno.test(`the trail ${name} rejects after close, and closes twice`, async () => {
    await using it = await subject();
    await it.trail.close();
    await it.trail.close();
    await rejects(it.trail.record(numbered(1)), unavailable(/closed/));
    strictEqual(it.trail.healthy(), false);
  });
}

function finished(outcome: string): AuditEvent & { type: "inference.finished" } {
  return {
    type: "inference.finished",
    request: "req_1",
    issuer: null,
    subject: null,
    team: null,
    credential: null,
    address: "192.0.2.1",
    route: "POST /v1/embeddings",
    model: "m",
    sha256: null,
    outcome,
    inputTokens: 3,
    outputTokens: 0,
    countedBy: "engine",
    servedBy: null,
    attempts: 1,
    durationMs: 0.25,
  };
}

// --- The trail on disk ---------------------------------------------------------------------------------------------

Deno.test("a trail on disk goes on where it was left, with the clock's time in each entry", async () => {
  await using folder = new TrailFolder();
  for (const number of [1, 2]) {
    const trail = await openAuditTrail(trailOptions(
      { directory: `${folder.root}/new/trail`, checkpointDirectory: `${folder.root}/new/checkpoint` },
      { clock: { now: () => number * 1_000, monotonic: () => 0 } },
    ));
    await trail.record(numbered(number));
    await trail.close();
  }
  const verdict = await verifyChain({
    directory: `${folder.root}/new/trail`,
    checkpointDirectory: `${folder.root}/new/checkpoint`,
  });
  strictEqual(verdict.finding, undefined);
  strictEqual(verdict.entries, 2);
  strictEqual(verdict.firstTime, "1970-01-01T00:00:01.000Z");
  strictEqual(verdict.lastTime, "1970-01-01T00:00:02.000Z");
});

Deno.test("events recorded together share their fsync (group commit)", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder);
  await Promise.all(numberedUpTo(50).map((event) => trail.record(event)));
  strictEqual(trail.batchCount(), 1);
  let number = 50;
  const recorder = async () => {
    for (let round = 0; round < 20; round++) await trail.record(numbered(++number));
  };
  await Promise.all(Array.from({ length: 16 }, recorder));
  ok(trail.batchCount() < 1 + 16 * 20 / 2);
  await trail.close();
  strictEqual(folder.entries().length, 50 + 16 * 20);
  await requireIntact(folder);
});

Deno.test("events that belong together are refused as a whole where there is no room for all of them", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { waitingMax: 300 });
  const many = Promise.all(numberedUpTo(298).map((event) => trail.record(event)));
  await rejects(trail.recordAll(numberedUpTo(301, 299)), unavailable(/298 events wait/));
  await Promise.all([many, trail.recordAll(numberedUpTo(300, 299))]);
  strictEqual(trail.batchCount(), 1);
  // Where only characters lack, for the large one that comes first.
  const large = (number: number): AuditEvent => ({
    type: "model.refused",
    model: String(number),
    reason: "x".repeat(65_000),
  });
  const wide = Promise.all(Array.from({ length: 257 }, (_, number) => trail.record(large(number))));
  await rejects(trail.recordAll([large(257), numbered(301)]), unavailable(/257 events wait/));
  await wide;
  await rejects(trail.recordAll(numberedUpTo(301)), unavailable(/0 events wait/));
  await trail.record(numbered(302));
  await trail.close();
  deepStrictEqual(
    folder.numbers().filter((number) => !isNaN(number)),
    [...Array.from({ length: 300 }, (_, index) => index + 1), 302],
  );
  await requireIntact(folder);
});

Deno.test("close waits for the events that were taken", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder);
  const first = trail.record(numbered(1));
  await nextTurn(); // the first is on its way now, the second waits
  const second = trail.record(numbered(2));
  await trail.close();
  deepStrictEqual(folder.numbers(), [1, 2]);
  await Promise.all([first, second]);
});

Deno.test("a second trail on the same folders is refused until the first is closed", async () => {
  await using folder = new TrailFolder();
  const first = await open(folder);
  await rejects(open(folder), unavailable(/another Portcullis runs on this data folder/));
  await first.record(numbered(1));
  await first.close();
  const second = await open(folder);
  await second.record(numbered(2));
  await second.close();
  await requireIntact(folder);
});

Deno.test("a trail whose end was cut is not opened", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  folder.setLines(folder.lines().slice(0, 3));
  await rejects(open(folder), unavailable(/ends before entry 3/));
  deepStrictEqual(folder.numbers(), [1, 2]);
});

Deno.test("a record rejects when the folder was deleted under the server, and nothing is built in its place", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder);
  await trail.record(numbered(1));
  Deno.removeSync(folder.directory, { recursive: true });
  await rejects(trail.record(numbered(2)), unavailable());
  strictEqual(trail.healthy(), false);
  Deno.mkdirSync(folder.directory);
  await rejects(trail.record(numbered(3)), unavailable(/the server remembers one of 1 entries/));
  strictEqual(trail.healthy(), false);
  deepStrictEqual([...Deno.readDirSync(folder.directory)], []);
  await trail.close();
});

Deno.test("a record rejects when the folder was replaced by an older copy", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder);
  await trail.record(numbered(1));
  Deno.mkdirSync(`${folder.root}/copy`);
  Deno.copyFileSync(folder.segmentPath(1), `${folder.root}/copy/audit-000001.jsonl`);
  await trail.record(numbered(2));
  Deno.renameSync(folder.directory, `${folder.root}/aside`);
  Deno.renameSync(`${folder.root}/copy`, folder.directory);
  await rejects(trail.record(numbered(3)), unavailable());
  await rejects(trail.record(numbered(3)), unavailable(/ends before entry 2/));
  await trail.close();
});

/** Copies both folders to a place beside them, or back from there. */
function copyBoth(from: string, to: string): void {
  for (const name of ["trail", "checkpoint"]) {
    Deno.mkdirSync(`${to}/${name}`, { recursive: true });
    for (const file of Deno.readDirSync(`${from}/${name}`)) {
      Deno.copyFileSync(`${from}/${name}/${file.name}`, `${to}/${name}/${file.name}`);
    }
  }
}

function emptyBoth(folder: TrailFolder): void {
  for (const directory of [folder.directory, folder.checkpointDirectory]) {
    for (const { name } of Deno.readDirSync(directory)) Deno.removeSync(`${directory}/${name}`);
  }
}

const TAKEN_BACK: { how: string; replace: (folder: TrailFolder, older: string) => void; words: RegExp }[] = [
  { how: "emptied", replace: emptyBoth, words: /there is none, and the server remembers one of 9 entries/ },
  {
    how: "put back to an older state",
    replace(folder, older) {
      emptyBoth(folder);
      copyBoth(older, folder.root);
    },
    words: /it ends before entry 9, which the server remembers/,
  },
  {
    how: "written anew without their signed checkpoints",
    replace(folder) {
      rewriteTrail(folder, [[numbered(666), ...numberedUpTo(9, 2)]]);
      Deno.removeSync(folder.signedPath);
    },
    words: /is not the entry that the server remembers/,
  },
];

for (const { how, replace, words } of TAKEN_BACK) {
  for (const dies of [false, true]) {
    Deno.test(`a server whose folders were ${how} goes on with nothing but what it has written${dies ? ", also when its worker dies" : ""}`, async () => {
      await using folder = new TrailFolder();
      const clock = manualClock(TIME_MS);
      const trail = await open(folder, { clock, startWorker: () => startStubDisk(folder) });
      try {
        await Promise.all(numberedUpTo(5).map((event) => trail.record(event)));
        await until(() => folder.notes().length > 0);
        copyBoth(folder.root, `${folder.root}/older`);
        await Promise.all(numberedUpTo(9, 6).map((event) => trail.record(event)));
        copyBoth(folder.root, `${folder.root}/newest`);
        replace(folder, `${folder.root}/older`);
        if (dies) Deno.writeTextFileSync(`${folder.root}/disk.die`, "");
        await rejects(trail.record(numbered(10)), unavailable());
        let thrown: unknown;
        for (let turn = 0; turn < 200 && !words.test(String(thrown)); turn++) {
          await new Promise((resolve) => setTimeout(resolve, 20));
          await trail.record(numbered(11)).catch((reason) => thrown = reason);
        }
        unavailable(words)(thrown);
        strictEqual(trail.healthy(), false);
        // It goes on by itself when what it has written is back.
        emptyBoth(folder);
        copyBoth(`${folder.root}/newest`, folder.root);
        await until(() => trail.healthy());
        await trail.record(numbered(12));
      } finally {
        await trail.close();
      }
      deepStrictEqual(folder.numbers(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 12]);
      await requireIntact(folder);
    });
  }
}

Deno.test("whoever opens a trail is told of each signed checkpoint, the last one before the close is over", async () => {
  await using folder = new TrailFolder();
  const told: TreeHead[] = [];
  const trail = await open(folder, { checkpointEntriesMax: 3, onSigned: (head) => told.push(head) });
  for (const event of numberedUpTo(5)) await trail.record(event);
  await trail.close();
  deepStrictEqual(told.map(({ size }) => size), [1, 4, 5]);
  const heads = folder.notes().map((note) => parseTreeHead(note.slice(0, note.indexOf("\n\n") + 1)));
  deepStrictEqual(heads, told.map((value) => ({ ok: true, value })));
  const again = await open(folder, { onSigned: (head) => told.push(head) });
  await again.close();
  deepStrictEqual(told.slice(2).map(({ size }) => size), [5, 5]);
});

Deno.test("on a disk that hangs, records reject in time, later ones at once, and the trail mends when it answers", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { timeoutMs: 300, startWorker: () => startStubDisk(folder) });
  await trail.record(numbered(1));
  hang(folder);
  const first = trail.record(numbered(2));
  await nextTurn();
  const second = trail.record(numbered(3));
  await rejects(first, unavailable(/no answer within 300 ms/));
  await rejects(second, unavailable(/does not answer/));
  strictEqual(trail.healthy(), false);
  for (let number = 4; number < 1_000; number++) {
    await rejects(trail.record(numbered(number)), unavailable(/does not answer/));
  }
  strictEqual(trail.batchCount(), 2);
  unhang(folder);
  await until(() => trail.healthy());
  await trail.record(numbered(1_000));
  await trail.close();
  // The event that ran out of time became durable late: a record without an act.
  deepStrictEqual(folder.numbers(), [1, 2, 1_000]);
  await requireIntact(folder);
});

Deno.test("a trail on a disk that hangs closes all the same", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { timeoutMs: 100, startWorker: () => startStubDisk(folder) });
  hang(folder);
  await rejects(trail.record(numbered(1)), unavailable(/no answer/));
  await trail.close();
  unhang(folder);
});

Deno.test("no more than waitingMax events wait for a slow disk", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { waitingMax: 3, startWorker: () => startStubDisk(folder) });
  hang(folder);
  const first = trail.record(numbered(1));
  await nextTurn();
  const waiting = [2, 3, 4].map((number) => trail.record(numbered(number)));
  await rejects(trail.record(numbered(5)), unavailable(/3 events wait already/));
  unhang(folder);
  await Promise.all([first, ...waiting]);
  await trail.record(numbered(6));
  await trail.close();
  deepStrictEqual(folder.numbers(), [1, 2, 3, 4, 6]);
});

Deno.test("a bound on their text holds events back before waitingMax does", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { startWorker: () => startStubDisk(folder) });
  hang(folder);
  const first = trail.record(numbered(0));
  await nextTurn();
  const taken: Promise<void>[] = [];
  const refused: Promise<void>[] = [];
  for (let number = 1; number <= 260; number++) {
    const record = trail.record({ type: "server.stopped", reason: "x".repeat(65_000) });
    (number <= 257 ? taken : refused).push(record);
  }
  for (const record of refused) await rejects(record, unavailable(/257 events wait already/));
  unhang(folder);
  await Promise.all([first, ...taken]);
  await trail.close();
});

Deno.test("a worker that dies is replaced, and no acknowledged event is lost", async () => {
  await using folder = new TrailFolder();
  let started = 0;
  const trail = await open(folder, {
    startWorker: () => {
      started++;
      return startStubDisk(folder);
    },
  });
  await trail.record(numbered(1));
  Deno.writeTextFileSync(`${folder.root}/disk.die`, "");
  await trail.record(numbered(2)).catch(() => {}); // it may have become durable just before
  await until(() => started === 2 && trail.healthy());
  await trail.record(numbered(3));
  await trail.close();
  const numbers = folder.numbers();
  strictEqual(numbers[0], 1);
  strictEqual(numbers.at(-1), 3);
  await requireIntact(folder);
});

// --- Inferences that a crash broke off -----------------------------------------------------------------------------

const REQUESTER = {
  issuer: "https://issuer.example",
  subject: "usr_1",
  team: "team",
  credential: "tok_1",
  address: "192.0.2.1",
  route: "POST /v1/embeddings",
};

function started(request: string): AuditEvent {
  return {
    type: "inference.started",
    ...REQUESTER,
    request,
    model: "m",
    task: "embedding",
    sha256: null,
    items: 1,
    decision: "allowed",
  };
}

function interrupted(request: string, intent: number): AuditEvent {
  return { type: "inference.interrupted", ...REQUESTER, request, model: "m", intent, reason: "server_ended" };
}

for (const sealing of [undefined, { id: "akey_s", raw: new Uint8Array(32).fill(9) }]) {
  const sealed = sealing !== undefined;
  Deno.test(`inferences that were under way when the server died are recorded as interrupted, once, ${sealed ? "sealed" : "plain"}`, async () => {
    await using folder = new TrailFolder();
    const settings: TrailSettings = {
      segmentBytesMax: 3_000,
      sealed,
      keys: { ...TRAIL_KEYS, sealing },
      sealingKeys: () => new Map(sealing && [[sealing.id, sealing.raw]]),
    };
    const requests = Array.from({ length: 250 }, (_, index) => `req_${index}`);
    const first = await open(folder, settings);
    await Promise.all(requests.map((request) => first.record(started(request))));
    for (const request of requests.slice(0, 247)) await first.record({ ...finished("completed"), request });
    await first.close();
    for (let restart = 0; restart < 2; restart++) await (await open(folder, settings)).close();
    const events = folder.entries().map(({ seq, event }) =>
      openEvent(settings.sealingKeys?.() ?? new Map(), seq, event)
    );
    deepStrictEqual(events.slice(250 + 247), [
      interrupted("req_247", 248),
      interrupted("req_248", 249),
      interrupted("req_249", 250),
    ]);
    await requireIntact(folder);
  });
}

Deno.test("a start that dies while it records what was interrupted is finished by the next one", async () => {
  await using folder = new TrailFolder();
  const first = await open(folder);
  await Promise.all(["req_1", "req_2", "req_3"].map((request) => first.record(started(request))));
  await first.record(interrupted("req_2", 2));
  await first.close();
  const second = await open(folder);
  await second.close();
  deepStrictEqual(folder.entries().map(({ event }) => [event.type, event.request]).slice(3), [
    ["inference.interrupted", "req_2"],
    ["inference.interrupted", "req_1"],
    ["inference.interrupted", "req_3"],
  ]);
});

Deno.test("a worker that dies interrupts nothing: the inferences go on", async () => {
  await using folder = new TrailFolder();
  let workers = 0;
  const trail = await open(folder, {
    startWorker: () => {
      workers++;
      return startStubDisk(folder);
    },
  });
  await trail.record(started("req_1"));
  Deno.writeTextFileSync(`${folder.root}/disk.die`, "");
  await trail.record(numbered(1)).catch(() => {});
  await until(() => workers === 2 && trail.healthy());
  await trail.record({ ...finished("completed"), request: "req_1" });
  await trail.close();
  await (await open(folder)).close();
  strictEqual(folder.entries().some(({ event }) => event.type === "inference.interrupted"), false);
});

Deno.test("an outcome that is refused at the door is owed as what was told of it, once", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { timeoutMs: 300, startWorker: () => startStubDisk(folder) });
  await Promise.all(["req_1", "req_2"].map((request) => trail.record(started(request))));
  hang(folder);
  await rejects(trail.record(numbered(1)), unavailable(/no answer/));
  const [one, two] = [finished("completed"), { ...finished("completed"), request: "req_2" }];
  await rejects(trail.recordAll([numbered(2), one], { ...one, outcome: "unavailable" }), unavailable());
  await rejects(trail.recordAll([numbered(3), two]), unavailable());
  unhang(folder);
  const ends = () =>
    folder.entries().map(({ event }) => event).filter(({ type }) => type === "inference.finished");
  await until(() => ends().length === 2);
  await trail.close();
  deepStrictEqual(ends().map(({ request, outcome }) => [request, outcome]), [
    ["req_1", "unavailable"],
    ["req_2", "completed"],
  ]);
  deepStrictEqual(folder.entries().filter(({ event }) => event.type === "server.stopped").length, 1);
});

Deno.test("an owed end is paid while others record without a pause", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { timeoutMs: 300, startWorker: () => startStubDisk(folder) });
  await trail.record(started("req_1"));
  hang(folder);
  await rejects(trail.record(numbered(1)), unavailable(/no answer/));
  await rejects(trail.record(finished("completed")), unavailable());
  const ends = () => folder.entries().filter(({ event }) => event.type === "inference.finished").length;
  let isOver = false;
  const others = Array.from({ length: 8 }, async () => {
    while (!isOver) {
      // There is always a batch on its way, and one that waits.
      await trail.record(numbered(2)).catch(() => new Promise((resolve) => setTimeout(resolve, 1)));
    }
  });
  unhang(folder);
  await until(() => ends() === 1);
  isOver = true;
  await Promise.all(others);
  await trail.close();
  strictEqual(ends(), 1);
});

// --- Signed checkpoints --------------------------------------------------------------------------------------------

/** How many entries each signed checkpoint of the trail has seen. */
function signedSizes(folder: TrailFolder): number[] {
  return folder.notes().map((note) => Number(note.split("\n")[1]));
}

Deno.test("a checkpoint is signed behind the first entry, then behind so many, and at the close", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { checkpointEntriesMax: 3 });
  for (let number = 1; number <= 8; number++) await trail.record(numbered(number));
  await trail.close();
  deepStrictEqual(signedSizes(folder), [1, 4, 7, 8]);
  await requireIntact(folder);
});

Deno.test("a checkpoint is signed when there has been something new for so long, and none when there is not", async () => {
  await using folder = new TrailFolder();
  const trail = await open(folder, { checkpointMs: 100 });
  await trail.record(numbered(1));
  await trail.record(numbered(2));
  await until(() => folder.notes().length === 2);
  await new Promise((resolve) => setTimeout(resolve, 300));
  strictEqual(folder.notes().length, 2);
  await trail.record(numbered(3));
  await until(() => folder.notes().length === 3);
  await trail.close();
  deepStrictEqual(signedSizes(folder), [1, 2, 3]);
});

Deno.test("what a server that died left unsigned is signed by the next one", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  folder.writeAndDie(numberedUpTo(3, 2));
  const trail = await open(folder, { checkpointMs: 100 });
  await until(() => folder.notes().length === 2);
  await trail.close();
  deepStrictEqual(signedSizes(folder), [1, 3]);
});

Deno.test("a checkpoint that cannot be signed is told once, fails no record, and comes when it can be written", async () => {
  await using folder = new TrailFolder();
  const told: string[] = [];
  const trail = await open(folder, {
    checkpointEntriesMax: 1,
    checkpointMs: 100,
    onCheckpointFailed: (fault) => told.push(fault.message),
  });
  const obstacle = `${folder.checkpointDirectory}/trail.vkey`;
  Deno.mkdirSync(obstacle);
  for (let number = 1; number <= 3; number++) await trail.record(numbered(number));
  await until(() => told.length > 0);
  await new Promise((resolve) => setTimeout(resolve, 300));
  strictEqual(told.length, 1);
  match(told[0] ?? "", /Cannot sign an audit checkpoint: /);
  strictEqual(trail.healthy(), true);
  Deno.removeSync(obstacle);
  await until(() => folder.notes().length === 1);
  await trail.close();
  deepStrictEqual(signedSizes(folder), [3]);
  await requireIntact(folder);
});

Deno.test("new keys sign and seal from the next entry on, and the key before hands over", async () => {
  await using folder = new TrailFolder();
  const sealing = (id: string) => ({ id, raw: new Uint8Array(32).fill(1) });
  const keys = { ...TRAIL_KEYS, sealing: sealing("akey_s") };
  const trail = await open(folder, { sealed: true, keys, checkpointEntriesMax: 1 });
  await trail.record(numbered(1));
  await until(() => folder.notes().length === 1);
  trail.useKeys({ ...rotatedKeys(keys, 2), sealing: sealing("akey_t") });
  await until(() => folder.notes().length === 2);
  await trail.record(numbered(2));
  await trail.close();
  deepStrictEqual(folder.entries().map(({ event }) => event.key), ["akey_s", "akey_t"]);
  deepStrictEqual(folder.notes().map((note) => [note.includes("\nvoucher "), note.match(/^— /gm)?.length]), [
    [false, 1],
    [true, 1],
    [false, 1],
  ]);
  await requireIntact(folder);
});

// --- A real disk that is full --------------------------------------------------------------------------------------

async function mount(path: string): Promise<boolean> {
  if (Deno.permissions.querySync({ name: "run", command: "mount" }).state !== "granted") return false;
  try {
    const command = new Deno.Command("mount", {
      args: ["-t", "tmpfs", "-o", "size=1m", "tmpfs", path],
      stderr: "null",
    });
    return (await command.output()).success;
  } catch {
    return false;
  }
}

async function unmount(path: string): Promise<void> {
  await new Deno.Command("umount", { args: ["-l", path] }).output();
}

async function mountIsPermitted(): Promise<boolean> {
  const path = Deno.makeTempDirSync();
  const mounted = await mount(path);
  if (mounted) await unmount(path);
  Deno.removeSync(path);
  return mounted;
}

Deno.test({
  name:
    "on a full disk records reject and leave no half line, and it mends when space is freed (needs the right to mount a tmpfs)",
  ignore: !await mountIsPermitted(),
  async fn() {
    await using folder = new TrailFolder();
    ok(await mount(folder.directory));
    try {
      const trail = await open(folder, { checkpointEntriesMax: 1 });
      await trail.record(numbered(1));
      const ballast = `${folder.directory}/ballast`;
      fill(ballast);
      // Leave a page, so that the batch is written in part.
      Deno.truncateSync(ballast, Deno.statSync(ballast).size - 4_096);
      const batch = numberedUpTo(200, 2).map((event) => trail.record(event));
      for (const { status } of await Promise.allSettled(batch)) strictEqual(status, "rejected");
      await rejects(
        Promise.all(numberedUpTo(300, 201).map((event) => trail.record(event))),
        unavailable(/space/),
      );
      strictEqual(trail.healthy(), false);
      deepStrictEqual(folder.numbers(), [1]);
      await requireIntact(folder);
      Deno.removeSync(ballast);
      await until(() => trail.healthy());
      await trail.record(numbered(301));
      await trail.close();
      deepStrictEqual(folder.numbers(), [1, 301]);
      await requireIntact(folder);
    } finally {
      await unmount(folder.directory);
    }
  },
});

function fill(path: string): void {
  using file = Deno.openSync(path, { write: true, createNew: true });
  try {
    for (;;) file.writeSync(new Uint8Array(4_096).fill(1));
  } catch {
    // Full.
  }
}

/** By then what was recorded before is on its way to the disk. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
