// Measure audit: the trail alone beside one that never waits for the disk, and the gate with either beside a gate whose trail is in memory.
import type { AuditEvent } from "../src/audit/audit_event.ts";
import { auditFolders, type AuditTrail } from "../src/audit/audit_trail.ts";
import { openTrailKeys } from "../src/audit/trail_keys.ts";
import { NO_OTHERS } from "../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../src/store/memory_record_store.ts";
import { systemClock } from "../src/time/clock.ts";
import { openKeyRing } from "../src/vault/key_ring.ts";
import { localMasterKey } from "../src/vault/master_key.ts";
import { BENCH_TRAILS, type BenchTrail, benchTrailOpener } from "./bench_trail.ts";
import { signIn } from "./child_server.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { interleave, quantile, spreadOf, spreadOfPairs } from "./rounds.ts";
import { countOfConnections, cpuRow, rateRow, runRound, type ServerRound } from "./server_round.ts";
import { embeddingsTarget, requireSameAnswer, startStubGate } from "./stub_gate.ts";
import { writeStubModel } from "./stub_model.ts";
import { aimAtLeast, type TableRow } from "./table.ts";

/** Recorders that wait for one record each, and connections. */
const AT_ONCE = [1, 32, 256] as const;
const AIM_SHARE = 0.8;
const AIM_CONNECTIONS = 32;
const WARM_UP_TURN_MS = 500;

/** What a request leaves that ran a model. */
const EVENT: AuditEvent = {
  type: "inference.finished",
  request: "req_01m6000000000000000000000",
  issuer: "http://127.0.0.1:8000",
  subject: "usr_01m6000000000000000000000",
  team: "default",
  credential: "ses_01m6000000000000000000000",
  address: "AAAAAAAAAAAAAAAAAAAAAA",
  route: "POST /v1/embeddings",
  model: "stub",
  sha256: "0".repeat(64),
  outcome: "completed",
  inputTokens: 12,
  outputTokens: 0,
  countedBy: "engine",
  servedBy: null,
  attempts: 1,
  durationMs: 3,
};

export async function measureAudit(means: PhaseMeans): Promise<PhaseFindings> {
  const rows = [...await measureTrail(means), ...await measureGates(means)];
  return {
    rows,
    notes: [
      "Audit: p50 and p99 of all rounds together. 'Added' is the difference to the gate whose trail is in memory; each request waits " +
      "for two records, its intent and its outcome. Without fsync: the same worker, chain and files, and no wait for the disk.",
    ],
  };
}

/** One round on one trail. */
interface TrailRound {
  readonly perSecond: number;
  readonly waitedMs: readonly number[];
}

async function measureTrail({ effort, folder, progress }: PhaseMeans): Promise<TableRow[]> {
  const store = openMemoryRecordStore(systemClock);
  const keyRing = await openKeyRing(store, localMasterKey(new Uint8Array(32)), systemClock);
  const keys = await openTrailKeys({ store, keyRing, feed: NO_OTHERS, clock: systemClock, sealed: false });
  const open = (kind: BenchTrail): Promise<AuditTrail> =>
    benchTrailOpener(kind)({
      ...auditFolders(`${folder}/trail-${kind}`),
      clock: systemClock,
      segmentBytesMax: 64 * 1024 * 1024,
      timeoutMs: 60_000,
      waitingMax: 10_000,
      keys: keys.current(),
      sealed: false,
      sealingKeys: () => keys.sealingKeys(),
      checkpointEntriesMax: 10_000,
      checkpointMs: 60_000,
      onCheckpointFailed(fault) {
        throw fault;
      },
      onSealingKeyWorn() {},
    });
  const trails = { durable: await open("durable"), unsynced: await open("unsynced") };
  const rows: TableRow[] = [{
    what: "AUDIT TRAIL alone, records waited for | the same without fsync",
    ours: "",
  }];
  try {
    for (const atOnce of AT_ONCE) {
      const run = (trail: AuditTrail) => recordFor(trail, atOnce, effort.gate.roundMs);
      await run(trails.durable);
      await run(trails.unsynced);
      progress(`the trail alone, ${atOnce} at once`);
      const { durable, unsynced } = await interleave(effort.gate.rounds, {
        durable: () => run(trails.durable),
        unsynced: () => run(trails.unsynced),
      });
      const rate = (rounds: readonly TrailRound[]) =>
        `${Math.round(spreadOf(rounds.map(({ perSecond }) => perSecond)).median)} /s`;
      rows.push(
        {
          what: `records/s, ${atOnce} at once`,
          ours: rate(durable),
          beside: rate(unsynced),
          ratio: spreadOfPairs(durable, unsynced, (left, right) => left.perSecond / right.perSecond),
        },
        waitRow(
          "  waited",
          durable.flatMap((each) => each.waitedMs),
          unsynced.flatMap((each) => each.waitedMs),
        ),
      );
    }
  } finally {
    await Promise.all(Object.values(trails).map((trail) => trail.close()));
  }
  return rows;
}

async function recordFor(trail: AuditTrail, atOnce: number, durationMs: number): Promise<TrailRound> {
  const waitedMs: number[] = [];
  const startMs = systemClock.monotonic();
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (systemClock.monotonic() - startMs < durationMs) {
      const askedMs = systemClock.monotonic();
      await trail.record(EVENT);
      waitedMs.push(systemClock.monotonic() - askedMs);
    }
  }));
  return { perSecond: waitedMs.length * 1000 / (systemClock.monotonic() - startMs), waitedMs };
}

async function measureGates({ effort, folder, generator, progress }: PhaseMeans): Promise<TableRow[]> {
  const modelsDir = `${folder}/audit-models`;
  await writeStubModel(modelsDir);
  const start = (trail: BenchTrail) =>
    startStubGate({ dataDir: `${folder}/audit-${trail}`, modelsDir, trail });
  const servers = { durable: start("durable"), unsynced: start("unsynced"), memory: start("memory") };
  try {
    await Promise.all(Object.values(servers).map((server) => server.answers("/healthz")));
    const targets = {
      durable: embeddingsTarget(servers.durable, await signIn(servers.durable)),
      unsynced: embeddingsTarget(servers.unsynced, await signIn(servers.unsynced)),
      memory: embeddingsTarget(servers.memory, await signIn(servers.memory)),
    };
    await requireSameAnswer(Object.values(targets));
    const run = (name: BenchTrail, connections: number, ms: number): Promise<ServerRound> =>
      runRound(generator, servers[name].pid, targets[name], connections, ms);
    progress("gates: warming up");
    for (let warmMs = 0; warmMs < effort.gate.warmUpMs; warmMs += WARM_UP_TURN_MS) {
      for (const name of BENCH_TRAILS) await run(name, AIM_CONNECTIONS, WARM_UP_TURN_MS);
    }
    const rows: TableRow[] = [];
    for (const connections of AT_ONCE) {
      const at = countOfConnections(connections);
      progress(`gates, ${at}`);
      const { durable, unsynced, memory } = await interleave(effort.gate.rounds, {
        durable: () => run("durable", connections, effort.gate.roundMs),
        unsynced: () => run("unsynced", connections, effort.gate.roundMs),
        memory: () => run("memory", connections, effort.gate.roundMs),
      });
      rows.push({ what: `GATE with the trail on disk | in memory, ${at}`, ours: "" });
      const rate = rateRow("requests/s", durable, memory);
      rows.push(
        connections === AIM_CONNECTIONS ? { ...rate, aim: aimAtLeast(rate.ratio, AIM_SHARE) } : rate,
        cpuRow("CPU a request", durable, memory, "total"),
        { ...rateRow("requests/s without fsync", unsynced, memory) },
        waitRow("answered after", answersOf(durable), answersOf(memory)),
        addedRow("added by the trail on disk | without fsync", durable, unsynced, memory),
      );
    }
    return rows;
  } finally {
    await Promise.all(Object.values(servers).map((server) => server.stop()));
  }
}

function answersOf(rounds: readonly ServerRound[]): number[] {
  return rounds.flatMap(({ answerMs }) => answerMs);
}

function waitRow(what: string, ours: readonly number[], beside: readonly number[]): TableRow {
  return { what: `${what}, p50 / p99`, ours: percentiles(ours), beside: percentiles(beside) };
}

function addedRow(
  what: string,
  durable: readonly ServerRound[],
  unsynced: readonly ServerRound[],
  memory: readonly ServerRound[],
): TableRow {
  const added = (rounds: readonly ServerRound[]) =>
    [0.5, 0.99].map((share) =>
      `${(quantile(answersOf(rounds), share) - quantile(answersOf(memory), share)).toFixed(1)}`
    ).join(" / ") + " ms";
  return { what: `${what}, p50 / p99`, ours: added(durable), beside: added(unsynced) };
}

function percentiles(values: readonly number[]): string {
  return `${quantile(values, 0.5).toFixed(1)} / ${quantile(values, 0.99).toFixed(1)} ms`;
}
