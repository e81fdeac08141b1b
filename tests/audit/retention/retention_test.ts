// Tests of retention: what goes, what stays, what must be recorded before, and that a crash at any step leaves the trail whole.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { AuditEvent } from "../../../src/audit/audit_event.ts";
import { openAuditTrail } from "../../../src/audit/audit_trail.ts";
import { memoryAuditTrail } from "../../../src/audit/memory_audit_trail.ts";
import {
  lastWritten,
  openRetention,
  type Retention,
  type RetentionOptions,
} from "../../../src/audit/retention/retention.ts";
import { formatVerifierKey } from "../../../src/audit/trail/signed_note.ts";
import {
  dueSegments,
  prepareThinning,
  putStub,
  replaceSegment,
} from "../../../src/audit/retention/thin_segment.ts";
import { START, TrailReader } from "../../../src/audit/trail/trail_reader.ts";
import { verifyChain } from "../../../src/audit/verify/verify_chain.ts";
import type { Log, LogFields } from "../../../src/telemetry/log.ts";
import { manualClock } from "../../support/manual_clock.ts";
import { mixedUpTo, prepare, stubNote, thin } from "../thinned_trail.ts";
import {
  rotatedKeys,
  signingKeyOf,
  TIME_MS,
  TRAIL_KEYS,
  TrailFolder,
  trailOptions,
  unwritten,
} from "../trail_folder.ts";

const DAY_MS = 86_400_000;

/** Writes a segment a day, from the day of `TIME_MS` on. */
function writeDays(folder: TrailFolder, days: readonly (readonly AuditEvent[])[]): void {
  const writer = folder.openWriter();
  try {
    for (const [day, events] of days.entries()) {
      for (const event of events) writer.append([unwritten(event, TIME_MS + day * DAY_MS)]);
    }
    writer.sign();
  } finally {
    writer.close();
  }
}

/** Twelve entries in three segments; the last is the one that is written. */
const THREE_DAYS = [mixedUpTo(4), mixedUpTo(9, 5), mixedUpTo(12, 10)];

/** Numbers of the entries that are still there. */
function kept({ directory, checkpointDirectory }: TrailFolder): number[] {
  const reader = new TrailReader({ directory, checkpointDirectory, keys: () => new Map() });
  return reader.read(START, { entriesMax: 1_000, bytesMax: 1_000_000 }).entries.map(({ seq }) => seq);
}

async function findingIn(folder: TrailFolder): Promise<string | undefined> {
  const { finding } = await verifyChain(folder);
  return finding && `${finding.kind} ${finding.segment}: ${finding.words}`;
}

function setUp(folder: TrailFolder, days: number, options: Partial<RetentionOptions> = {}) {
  const clock = manualClock(TIME_MS + days * DAY_MS);
  const trail = memoryAuditTrail();
  const lines: { event: string; fields: LogFields | undefined }[] = [];
  const log: Log = {
    write: (_level, event, fields) => void lines.push({ event, fields }),
    flush: () => Promise.resolve(),
  };
  const retention = openRetention({
    directory: folder.directory,
    checkpointDirectory: folder.checkpointDirectory,
    keys: () => TRAIL_KEYS,
    securityDays: 365,
    activityDays: 90,
    clock,
    trail,
    log,
    everyMs: 1_000_000,
    lastWrittenMs: TIME_MS + days * DAY_MS,
    ...options,
  });
  return { clock, trail, lines, retention };
}

async function passOnce({ retention }: { readonly retention: Retention }): Promise<void> {
  await retention.pass();
  await retention.close();
}

Deno.test("entries go by class, whole segments when nothing is left of older ones, and never from the segment that is written", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const all = kept(folder);
  strictEqual(all.length, 12);
  const after = async (days: number): Promise<number[]> => {
    await passOnce(setUp(folder, days));
    strictEqual(await findingIn(folder), undefined);
    return kept(folder);
  };
  deepStrictEqual(await after(90), all);
  // A segment's last moment counts, not its first.
  deepStrictEqual(await after(90.9), [1, 3, ...all.slice(4)]);
  deepStrictEqual(await after(200), [1, 3, 5, 7, 9, 10, 11, 12]);
  deepStrictEqual(await after(365.9), [5, 7, 9, 10, 11, 12]);
  deepStrictEqual([...Deno.readDirSync(folder.directory)].map(({ name }) => name).sort(), [
    "audit-000001.stub",
    "audit-000002.jsonl",
    "audit-000002.stub",
    "audit-000003.jsonl",
  ]);
  deepStrictEqual(await after(10_000), [10, 11, 12]);
  const { removed, entries } = await verifyChain(folder);
  deepStrictEqual({ removed, entries }, { removed: 9, entries: 12 });
  // And the writer goes on behind it.
  folder.write(mixedUpTo(14, 13));
  strictEqual(await findingIn(folder), undefined);
});

Deno.test("a removal is recorded once, before the entries go", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const trail = memoryAuditTrail();
  const keptAtRecord: number[][] = [];
  const parts = setUp(folder, 100, {
    trail: {
      ...trail,
      record(event) {
        keptAtRecord.push(kept(folder));
        return trail.record(event);
      },
    },
  });
  await parts.retention.pass();
  await parts.retention.pass();
  await parts.retention.close();
  const all = Array.from({ length: 12 }, (_, index) => index + 1);
  deepStrictEqual(keptAtRecord, [all, all.filter((seq) => seq !== 2 && seq !== 4)]);
  deepStrictEqual(trail.events, [
    { type: "trail.thinned", segment: 1, first: 1, last: 4, removed: 2, classes: ["activity"] },
    { type: "trail.thinned", segment: 2, first: 5, last: 9, removed: 2, classes: ["activity"] },
  ]);
  deepStrictEqual(parts.lines, [{ event: "audit.thinned", fields: { segments: 2, entries: 4 } }]);
  await passOnce(setUp(folder, 100, { trail }));
  strictEqual(trail.events.length, 2);
});

Deno.test("nothing goes while the trail takes no record", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const parts = setUp(folder, 400);
  parts.trail.setFailing(true);
  await parts.retention.pass();
  strictEqual(kept(folder).length, 12);
  strictEqual(await findingIn(folder), undefined);
  deepStrictEqual(parts.lines.map(({ event }) => event), ["audit.retention_failed"]);
  parts.trail.setFailing(false);
  await passOnce(parts);
  deepStrictEqual(kept(folder), [10, 11, 12]);
});

Deno.test("a clock that is put forward while the server runs ages nothing", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const parts = setUp(folder, 3);
  parts.clock.jumpWall(1_000 * DAY_MS);
  await parts.retention.pass();
  strictEqual(kept(folder).length, 12);
  // Time that passes does.
  parts.clock.advance(200 * DAY_MS);
  await passOnce(parts);
  strictEqual(kept(folder).length, 8);
});

Deno.test("a clock that stands far ahead of the trail at a start is not believed for a day, and the log says so", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const lastWrittenMs = lastWritten(folder.directory);
  strictEqual(lastWrittenMs, TIME_MS + 2 * DAY_MS);
  const parts = setUp(folder, 1_000, { lastWrittenMs });
  deepStrictEqual(parts.lines.map(({ event, fields }) => [event, fields?.days]), [[
    "audit.clock_ahead",
    998,
  ]]);
  await parts.retention.pass();
  parts.clock.advance(DAY_MS - 1);
  await parts.retention.pass();
  strictEqual(kept(folder).length, 12);
  parts.clock.advance(1);
  await passOnce(parts);
  strictEqual(kept(folder).length, 3);
});

Deno.test("lastWritten tells the time of the last whole entry, and nothing of a trail without any", async () => {
  await using folder = new TrailFolder();
  strictEqual(lastWritten(folder.directory), undefined);
  writeDays(folder, THREE_DAYS);
  Deno.writeTextFileSync(folder.segmentPath(3), '{"event":', { append: true });
  strictEqual(lastWritten(folder.directory), TIME_MS + 2 * DAY_MS);
  Deno.writeTextFileSync(folder.segmentPath(4), "");
  strictEqual(lastWritten(folder.directory), TIME_MS + 2 * DAY_MS);
});

Deno.test("a damaged segment stays as it is and is told; the others are thinned", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, [mixedUpTo(4), mixedUpTo(9, 5), mixedUpTo(12, 10), mixedUpTo(14, 13)]);
  folder.setLines(folder.lines(2).toSpliced(2, 1), 2);
  const damaged = Deno.readTextFileSync(folder.segmentPath(2));
  const parts = setUp(folder, 100);
  await passOnce(parts);
  strictEqual(Deno.readTextFileSync(folder.segmentPath(2)), damaged);
  deepStrictEqual(parts.lines.map(({ event, fields }) => [event, fields?.segment ?? fields?.segments]), [
    ["audit.retention_failed", 2],
    ["audit.thinned", 2],
  ]);
  match(await findingIn(folder) ?? "", /^missing audit-000002\.jsonl/);
});

Deno.test("what somebody else took out before, with a stub that no key of ours has signed, is not covered by one of ours", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const forged = prepare(folder, 1, ["activity"]);
  const theirs = { ...TRAIL_KEYS, signing: signingKeyOf(9) };
  putStub(folder.directory, 1, stubNote(forged, theirs));
  replaceSegment(folder.directory, forged.facts);
  // Nor is it by a key that somebody has put beside the trail.
  const key = formatVerifierKey({ name: theirs.name, publicKey: theirs.signing.publicKey });
  Deno.writeTextFileSync(`${folder.checkpointDirectory}/trail.vkey`, `${key}\n`, { append: true });
  strictEqual(await findingIn(folder), undefined);
  const parts = setUp(folder, 400);
  await passOnce(parts);
  deepStrictEqual(parts.lines[0]?.fields, {
    segment: 1,
    reason: "entries were taken out before, and no key of ours has signed their stub: verify the trail",
  });
  deepStrictEqual(parts.lines[1], { event: "audit.thinned", fields: { segments: 1, entries: 5 } });
  const { name, signing } = TRAIL_KEYS;
  const { finding } = await verifyChain({ ...folder, trusted: [{ name, publicKey: signing.publicKey }] });
  deepStrictEqual([finding?.kind, finding?.segment], ["stub_wrong", "audit-000001.stub"]);
  strictEqual(
    parts.trail.events.some((event) => event.type === "trail.thinned" && event.segment === 1),
    false,
  );
  // Nor where there is no stub at all.
  Deno.removeSync(`${folder.directory}/audit-000001.stub`);
  const others = setUp(folder, 400);
  await passOnce(others);
  match(String(others.lines[0]?.fields?.reason), /its stub does not say that they may be$/);
});

// The steps of one segment; after each of them somebody may pull the plug.
const STEPS = ["nothing", "prepared", "stub in place", "all"];

Deno.test("a crash between two steps leaves a trail that is whole for every reader, and the next pass goes on", async () => {
  for (const [stepsOf1, stepsOf2] of STEPS.flatMap((_, one) => STEPS.map((__, two) => [one, two] as const))) {
    await using folder = new TrailFolder();
    writeDays(folder, THREE_DAYS);
    const label = `${STEPS[stepsOf1]}, then ${STEPS[stepsOf2]}`;
    // First the activity goes, then everything: the file with it.
    for (
      const [steps, classes] of [[stepsOf1, ["activity"]], [stepsOf2, ["activity", "security"]]] as const
    ) {
      if (steps === 0) continue;
      const thinning = prepare(folder, 1, classes);
      strictEqual(await findingIn(folder), undefined, label);
      if (steps === 1) continue;
      putStub(folder.directory, 1, stubNote(thinning));
      strictEqual(await findingIn(folder), undefined, label);
      kept(folder);
      if (steps === 2) continue;
      replaceSegment(folder.directory, thinning.facts);
      strictEqual(await findingIn(folder), undefined, label);
    }
    kept(folder);
    folder.openWriter().close();
    await passOnce(setUp(folder, 400));
    strictEqual(await findingIn(folder), undefined, label);
    deepStrictEqual(kept(folder), [10, 11, 12], label);
    deepStrictEqual([...Deno.readDirSync(folder.directory)].map(({ name }) => name).sort(), [
      "audit-000001.stub",
      "audit-000002.stub",
      "audit-000003.jsonl",
    ]);
  }
});

Deno.test("a file goes as a whole only behind segments that have gone: hashes stay for proofs of older entries", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, [mixedUpTo(3), [...mixedUpTo(4, 4), ...mixedUpTo(6, 6)], mixedUpTo(8, 7)]);
  // Only activity in the second segment: nothing is left of it while the first still has entries.
  await passOnce(setUp(folder, 100));
  deepStrictEqual(kept(folder), [1, 3, 6, 7]);
  ok(folder.lines(2).length > 1);
  strictEqual(await findingIn(folder), undefined);
  const again = [...dueSegments(folder.directory, { security: -Infinity, activity: Infinity }, 3)];
  deepStrictEqual(again, []);
  thin(folder, 1, ["activity", "security"]);
  await passOnce(setUp(folder, 367));
  deepStrictEqual([...Deno.readDirSync(folder.directory)].map(({ name }) => name).sort(), [
    "audit-000001.stub",
    "audit-000002.stub",
    "audit-000003.jsonl",
  ]);
  strictEqual(await findingIn(folder), undefined);
});

Deno.test("an entry from the future stays until its own time, though its segment's day is over", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  const [first, second] = mixedUpTo(3, 2);
  ok(first !== undefined && second !== undefined);
  // One batch: the clock was put forward while it was collected.
  writer.append([unwritten(first), unwritten(first, TIME_MS + 300 * DAY_MS), unwritten(second)]);
  writer.append([unwritten(second, TIME_MS + DAY_MS)]);
  writer.sign();
  writer.close();
  const horizon = { security: -Infinity, activity: TIME_MS + 200 * DAY_MS };
  const thinning = prepareThinning(folder.directory, 1, horizon, true);
  strictEqual(thinning?.removed, 1);
  deepStrictEqual(thinning.facts.classes, []);
  putStub(folder.directory, 1, stubNote(thinning));
  replaceSegment(folder.directory, thinning.facts);
  deepStrictEqual(kept(folder), [2, 3, 4]);
  strictEqual(await findingIn(folder), undefined);
});

Deno.test("entries of a clock that stood at 1970 age from the day on which it had been put right", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  for (const event of mixedUpTo(4)) writer.append([unwritten(event, 1000)]);
  for (const event of mixedUpTo(6, 5)) writer.append([unwritten(event)]);
  writer.sign();
  writer.close();
  await passOnce(setUp(folder, 1));
  deepStrictEqual(kept(folder), [1, 2, 3, 4, 5, 6]);
  await passOnce(setUp(folder, 91));
  deepStrictEqual(kept(folder), [1, 3, 5, 6]);
  await passOnce(setUp(folder, 366));
  deepStrictEqual(kept(folder), [5, 6]);
});

Deno.test("closing in the midst of a pass leaves the trail whole", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  for (let delayMs = 0; delayMs < 60; delayMs += 6) {
    const parts = setUp(folder, 400);
    const passing = parts.retention.pass();
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    await parts.retention.close();
    await passing;
    strictEqual(await findingIn(folder), undefined);
    deepStrictEqual(parts.lines.filter(({ event }) => event !== "audit.thinned"), []);
  }
  await passOnce(setUp(folder, 400));
  deepStrictEqual(kept(folder), [10, 11, 12]);
});

Deno.test("a pass comes by itself", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const parts = setUp(folder, 400, { everyMs: 5 });
  for (let turn = 0; turn < 1_000 && parts.trail.events.length < 2; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await parts.retention.close();
  strictEqual(parts.trail.events.length, 2);
});

Deno.test("retention and the trail's own writer work side by side, also over a restart and a new signing key", async () => {
  await using folder = new TrailFolder();
  const clock = manualClock(TIME_MS);
  const newer = rotatedKeys(rotatedKeys(TRAIL_KEYS, 2), 3);
  let trail = await openAuditTrail(trailOptions(folder, { clock }));
  for (const event of mixedUpTo(6)) await trail.record(event);
  for (const days of [1, 100]) {
    clock.advance(days * DAY_MS);
    await trail.record(mixedUpTo(1)[0] ?? { type: "server.stopped", reason: "" });
  }
  await passOnce(setUp(folder, 0, { clock, trail, lastWrittenMs: clock.now() }));
  // The two records of what went stand behind the others.
  deepStrictEqual(kept(folder), [1, 3, 5, 7, 8, 9]);
  await trail.close();
  trail = await openAuditTrail(trailOptions(folder, { clock, keys: newer }));
  clock.advance(300 * DAY_MS);
  await trail.record({ type: "server.stopped", reason: "later" });
  await passOnce(setUp(folder, 0, { clock, trail, keys: () => newer, lastWrittenMs: clock.now() }));
  await trail.close();
  // The segments of 7 to 9 were closed only when the server was used again: they age from then.
  deepStrictEqual(kept(folder), [7, 8, 9, 10, 11]);
  strictEqual(await findingIn(folder), undefined);
  const trusted = [{ name: TRAIL_KEYS.name, publicKey: TRAIL_KEYS.signing.publicKey }];
  const { directory, checkpointDirectory } = folder;
  strictEqual((await verifyChain({ directory, checkpointDirectory, trusted })).finding, undefined);
});
