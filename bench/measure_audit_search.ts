// Measure audit search: a real trail of many small entries, its index, and how long auditors wait for what they look for.
// deno run -P=bench --no-prompt bench/measure_audit_search.ts [--entries 1000000]
import { generateKeyPairSync } from "node:crypto";
import { parseArgs } from "node:util";
import { type AuditArchive, openAuditArchive } from "../src/audit/archive/audit_archive.ts";
import type { AuditQuery } from "../src/audit/archive/audit_query.ts";
import { ArchiveFollower } from "../src/audit/archive/archive_follower.ts";
import type { AuditEvent } from "../src/audit/audit_event.ts";
import { eventText } from "../src/audit/trail/event_text.ts";
import { SegmentWriter } from "../src/audit/trail/segment_writer.ts";
import type { TrailKeys } from "../src/audit/trail_keys.ts";
import { newId } from "../src/encoding/ids.ts";
import { openLog, standardOutput } from "../src/telemetry/log.ts";
import { printError, printLine } from "../src/telemetry/terminal.ts";
import { systemClock } from "../src/time/clock.ts";
import { formatTable, type TableRow } from "./table.ts";

const ENTRIES = Number(
  parseArgs({ args: Deno.args, options: { entries: { type: "string", default: "1000000" } } }).values.entries,
);
const USERS = 10_000;
const ADDRESSES = 50_000;
const MODELS = 20;
const BATCH = 1000;
const SEGMENT_BYTES = 64 * 1024 * 1024;
const START_MS = Date.parse("2026-01-01T00:00:00Z");
const REPEATS = 100;

/** What happens once in so many requests. */
const RARE_EVERY = Math.max(1000, Math.floor(ENTRIES / 200));

async function measure(folder: string): Promise<void> {
  const folders = {
    directory: `${folder}/audit`,
    checkpointDirectory: `${folder}/audit-checkpoint`,
    indexDirectory: `${folder}/audit-index`,
  };
  for (const path of Object.values(folders)) Deno.mkdirSync(path);
  const rows: TableRow[] = [{ what: `Audit search: ${ENTRIES.toLocaleString("en")} entries`, ours: "" }];

  writeTrail(folders);
  const trailBytes = bytesIn(folders.directory);
  rows.push({
    what: "trail",
    ours: `${mebibytes(trailBytes)} MiB, ${Math.round(trailBytes / ENTRIES)} B/entry`,
  });

  const key = crypto.getRandomValues(new Uint8Array(32));
  const follower = new ArchiveFollower(folders, key, new Map());
  const startMs = systemClock.monotonic();
  while (follower.step() !== "idle");
  const builtMs = systemClock.monotonic() - startMs;
  follower.close();
  const indexBytes = bytesIn(folders.indexDirectory);
  rows.push(
    { what: "index", ours: `${mebibytes(indexBytes)} MiB, ${Math.round(indexBytes / ENTRIES)} B/entry` },
    { what: "index built, one core", ours: `${Math.round(ENTRIES / builtMs * 1000)} entries/s` },
  );

  const log = openLog({ level: "warn", clock: systemClock, sink: standardOutput });
  const keys = { verifierKeys: () => "", sealingKeys: () => new Map(), onChange() {} };
  const archive = openAuditArchive({ folders, key, keys, log });
  try {
    await archive.page({ words: {} }, { after: undefined, limit: 50 });
    for (const [what, queryOf] of Object.entries(QUERIES)) rows.push(await timeOf(archive, what, queryOf));
    rows.push(await exportRate(archive));
  } finally {
    await archive.close();
  }
  printLine(formatTable(rows, ["p50, p99, longest of a page of 50", ""]));
}

/** Each asks for something else every time. */
const QUERIES: Readonly<Record<string, (turn: number) => AuditQuery>> = {
  "the newest": () => ({ words: {} }),
  "by actor": (turn) => ({ words: { subject: [userOf(turn * 7919)] } }),
  "by address": (turn) => ({ words: { address: [addressOf(turn * 104_729)] } }),
  "by rare outcome": () => ({ words: { outcome: ["internal"] } }),
  "by common type": () => ({ words: { type: ["inference.finished"] } }),
  "by a day, an hour": (turn) => {
    const fromMs = START_MS + (turn * 3_600_000) % Math.max(1, spanMs());
    return { fromMs, untilMs: fromMs + 3_600_000, words: {} };
  },
  "by actor and common type": (turn) => ({
    words: { subject: [userOf(turn * 7919)], type: ["inference.started"] },
  }),
  "by model and outcome": (turn) => ({ words: { model: [modelOf(turn)], outcome: ["internal"] } }),
  "empty: two common ones that never meet": () => ({
    words: { type: ["inference.started"], outcome: ["completed"] },
  }),
  "empty: half of all, at a time of nothing": () => ({
    fromMs: START_MS - 3_600_000,
    untilMs: START_MS,
    words: { type: ["inference.started"] },
  }),
  "unknown actor": (turn) => ({ words: { subject: [`usr_nobody${turn}`] } }),
};

async function timeOf(
  archive: AuditArchive,
  what: string,
  queryOf: (turn: number) => AuditQuery,
): Promise<TableRow> {
  const waitedMs: number[] = [];
  let found = 0;
  let isMore = false;
  for (let turn = 0; turn < REPEATS; turn++) {
    const query = queryOf(turn);
    const startMs = systemClock.monotonic();
    const { entries, next } = await archive.page(query, { after: undefined, limit: 50 });
    waitedMs.push(systemClock.monotonic() - startMs);
    found += entries.length;
    isMore = next !== undefined;
  }
  waitedMs.sort((one, other) => one - other);
  const at = (share: number): string => (waitedMs[Math.floor(share * (REPEATS - 1))] ?? 0).toFixed(1);
  const more = isMore ? ", more" : "";
  return { what, ours: `${at(0.5)} ms, ${at(0.99)} ms, ${at(1)} ms (${found / REPEATS} found${more})` };
}

async function exportRate(archive: AuditArchive): Promise<TableRow> {
  const startMs = systemClock.monotonic();
  const pieces = await archive.export({ words: { type: ["inference.finished"] } }, "jsonl");
  let bytes = 0;
  for (let piece = await pieces.next(); piece !== undefined; piece = await pieces.next()) {
    bytes += piece.length;
    if (systemClock.monotonic() - startMs > 10_000) break;
  }
  const seconds = (systemClock.monotonic() - startMs) / 1000;
  return {
    what: "export as JSON lines, every second entry",
    ours: `${(bytes / seconds / 2 ** 20).toFixed(0)} MiB/s`,
  };
}

function writeTrail(folders: { readonly directory: string; readonly checkpointDirectory: string }): void {
  const writer = new SegmentWriter({
    ...folders,
    segmentBytesMax: SEGMENT_BYTES,
    keys: newTrailKeys(),
    sealed: false,
    sealingKeys: new Map(),
  });
  try {
    for (let written = 0; written < ENTRIES; written += BATCH) {
      writer.append(Array.from({ length: BATCH }, (_, index) => unwritten(written + index)));
      if (written % 1_000_000 === 0) printError(`${written} of ${ENTRIES} entries written`);
    }
    writer.sign();
  } finally {
    writer.close();
  }
}

function unwritten(number: number) {
  const timeMs = START_MS + Math.floor(number * spanMs() / ENTRIES);
  return { timeMs, text: eventText(eventOf(number, timeMs)), class: "activity" as const, step: undefined };
}

/** Of the pair that is being written. */
let request = "";

/** Pairs of an intent and an outcome; now and then a refusal or a change. */
function eventOf(number: number, timeMs: number): AuditEvent {
  const turn = Math.floor(number / 2);
  if (number % 2 === 0) request = newId("req", timeMs);
  const spread = (turn * 2_654_435_761) % 2 ** 32;
  const requester = {
    request,
    issuer: "https://ai.example.com",
    subject: userOf(spread),
    team: "default",
    credential: "ses_01m6000000000000000000000",
    address: addressOf(spread),
    route: "POST /v1/embeddings",
  };
  const model = modelOf(spread);
  if (turn % 100 === 99) {
    const refused = { status: 403, code: "forbidden", reason: "the role does not allow it" };
    return { type: "request.refused", ...requester, agent: null, ...refused };
  }
  if (number % 2 === 0) {
    const subject = {
      model,
      task: "embedding",
      sha256: "0".repeat(64),
      items: 1,
      decision: "allowed",
    } as const;
    return { type: "inference.started", ...requester, ...subject };
  }
  return {
    type: "inference.finished",
    ...requester,
    model,
    sha256: "0".repeat(64),
    outcome: turn % RARE_EVERY === 0 ? "internal" : "completed",
    inputTokens: 12,
    outputTokens: 0,
    countedBy: "engine",
    servedBy: null,
    attempts: 1,
    durationMs: 3,
  };
}

function userOf(number: number): string {
  return `usr_01m6${String(number % USERS).padStart(22, "0")}`;
}

/** As a pseudonym looks. */
function addressOf(number: number): string {
  return String(number % ADDRESSES).padStart(22, "A");
}

function modelOf(number: number): string {
  return `model-${number % MODELS}`;
}

/** About a hundred entries a second. */
function spanMs(): number {
  return ENTRIES * 10;
}

function newTrailKeys(): TrailKeys {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const signing = {
    id: "akey_bench",
    madeAtMs: START_MS,
    pkcs8: new Uint8Array(privateKey.export({ format: "der", type: "pkcs8" })),
    publicKey: new Uint8Array(publicKey.export({ format: "der", type: "spki" }).subarray(-32)),
  };
  return { name: "portcullis.bench", signing, older: [], sealing: undefined };
}

function bytesIn(directory: string): number {
  return [...Deno.readDirSync(directory)].reduce(
    (sum, { name }) => sum + Deno.statSync(`${directory}/${name}`).size,
    0,
  );
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}

const folder = await Deno.makeTempDir({ prefix: "portcullis-search-" });
try {
  await measure(folder);
} finally {
  await Deno.remove(folder, { recursive: true });
}
