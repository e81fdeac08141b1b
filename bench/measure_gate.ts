// Measure the gate: every step of a request but the model, beside a route of bare Hono that answers the same.
import { deepStrictEqual } from "node:assert/strict";
import { type ChildServer, signIn, startChildServer } from "./child_server.ts";
import type { LoadTarget } from "./load_generator.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { type CpuTime, cpuTime } from "./process_figures.ts";
import { interleave, spreadOf, spreadOfPairs } from "./rounds.ts";
import { STUB_ID, writeStubModel } from "./stub_model.ts";
import { aimAtLeast, percent, type TableRow } from "./table.ts";

const AIM_SHARE = 0.33;
const CONNECTIONS = [1, 32] as const;
const BODY = JSON.stringify({ model: STUB_ID, input: "The quick brown fox jumps over the lazy old dog." });

/** One round on one server. */
interface Round {
  readonly perSecond: number;
  /** Microseconds of processor time for each request. */
  readonly cpu: { readonly total: number; readonly main: number; readonly workers: number };
  /** Share of the round in which the main thread was on a processor. */
  readonly mainBusy: number;
}

export async function measureGate(
  { effort, folder, generator, progress }: PhaseMeans,
): Promise<PhaseFindings> {
  await writeStubModel(`${folder}/stub-models`);
  const gate = (name: string, logLevel: string) =>
    startChildServer("bench/gate_server.ts", {
      PORTCULLIS_DATA_DIR: `${folder}/${name}`,
      PORTCULLIS_MODELS_DIR: `${folder}/stub-models`,
      PORTCULLIS_LOG_LEVEL: logLevel,
    }, benchFlags);
  const servers = {
    bare: startChildServer("bench/bare_hono_server.ts", {}, benchFlags),
    gate: gate("gate", "error"),
    gateWithLog: gate("gate-with-log", "info"),
  };
  try {
    const targets = await openTargets(servers);
    await requireSameAnswer(targets);
    const run = async (name: keyof typeof servers, connections: number, ms: number): Promise<Round> => {
      const before = await cpuTime(servers[name].pid);
      const { answers, elapsedMs } = await generator.run(targets[name], connections, ms);
      return describeRound(before, await cpuTime(servers[name].pid), answers, elapsedMs);
    };
    const rows: TableRow[] = [{ what: "GATE, stub engine, one text, 384 numbers | bare Hono", ours: "" }];
    const notes: string[] = [];
    progress("warming up");
    await run("bare", Math.max(...CONNECTIONS), effort.gate.warmUpMs / 4);
    await run("gate", Math.max(...CONNECTIONS), effort.gate.warmUpMs);
    await run("gateWithLog", Math.max(...CONNECTIONS), effort.gate.warmUpMs);
    for (const connections of CONNECTIONS) {
      let round = 0;
      const rounds = await interleave(effort.gate.rounds, {
        bare: () => {
          progress(`${countOf(connections)}, round ${++round} of ${effort.gate.rounds}`);
          return run("bare", connections, effort.gate.roundMs);
        },
        gate: () => run("gate", connections, effort.gate.roundMs),
        gateWithLog: () => run("gateWithLog", connections, effort.gate.roundMs),
      });
      rows.push(...describeRounds(connections, rounds));
      notes.push(describeLimit(connections, rounds));
    }
    notes.push(
      "Gate: real Deno.serve, token, rates, strict body, SQLite store, two audit records a request, each on the disk " +
        "(fdatasync) before the answer. CPU: all threads, user and kernel. Ratio: bare / gate for CPU, gate / bare for requests/s.",
    );
    return { rows, notes };
  } finally {
    await Promise.all(Object.values(servers).map((server) => server.stop()));
  }
}

function benchFlags(): string[] {
  return ["-P=bench", "--no-prompt", "--cached-only", "--frozen", "--no-remote"];
}

type Servers<Value> = { readonly [Name in "bare" | "gate" | "gateWithLog"]: Value };

async function openTargets(servers: Servers<ChildServer>): Promise<Servers<LoadTarget>> {
  const target = ({ port }: ChildServer, token?: string): LoadTarget => ({
    port,
    path: "/v1/embeddings",
    bodies: [BODY],
    ...(token === undefined ? {} : { token }),
  });
  await Promise.all(Object.values(servers).map((server) => server.answers("/healthz")));
  return {
    bare: target(servers.bare),
    gate: target(servers.gate, await signIn(servers.gate)),
    gateWithLog: target(servers.gateWithLog, await signIn(servers.gateWithLog)),
  };
}

/** Servers that answer different things are not to be compared. */
async function requireSameAnswer(targets: Servers<LoadTarget>): Promise<void> {
  const answers = await Promise.all(
    Object.values(targets).map(async ({ port, path, token }) => {
      const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
      const response = await fetch(`http://127.0.0.1:${port}${path}`, {
        method: "POST",
        headers,
        body: BODY,
      });
      return await response.json();
    }),
  );
  for (const answer of answers) deepStrictEqual(answer, answers[0]);
}

function describeRound(before: CpuTime, after: CpuTime, answers: number, elapsedMs: number): Round {
  const microseconds = (part: keyof CpuTime) => (after[part] - before[part]) * 1000 / answers;
  return {
    perSecond: answers * 1000 / elapsedMs,
    cpu: { total: microseconds("totalMs"), main: microseconds("mainMs"), workers: microseconds("workersMs") },
    mainBusy: (after.mainMs - before.mainMs) / elapsedMs,
  };
}

function describeRounds(connections: number, { bare, gate, gateWithLog }: Servers<Round[]>): TableRow[] {
  const at = countOf(connections);
  const compared = [["", gate], [", access log on", gateWithLog]] as const;
  const of = (rounds: readonly Round[], figure: (round: Round) => number) =>
    spreadOf(rounds.map(figure)).median;
  return compared.flatMap(([suffix, ours]): TableRow[] => {
    const cpuRatio = spreadOfPairs(ours, bare, (left, right) => right.cpu.total / left.cpu.total);
    const rateRatio = spreadOfPairs(ours, bare, (left, right) => left.perSecond / right.perSecond);
    const cpu = (rounds: readonly Round[]) => `${Math.round(of(rounds, (round) => round.cpu.total))} µs`;
    const rate = (rounds: readonly Round[]) => `${Math.round(of(rounds, (round) => round.perSecond))} /s`;
    const thread = (rounds: readonly Round[], part: "main" | "workers") =>
      `${Math.round(of(rounds, (round) => round.cpu[part]))} µs`;
    return [
      {
        what: `CPU a request, ${at}${suffix}`,
        ours: cpu(ours),
        beside: cpu(bare),
        ratio: cpuRatio,
        aim: aimAtLeast(cpuRatio, AIM_SHARE),
      },
      {
        what: "  of it the main thread",
        ours: thread(ours, "main"),
        beside: thread(bare, "main"),
        ratio: spreadOfPairs(ours, bare, (left, right) => right.cpu.main / left.cpu.main),
      },
      { what: "  of it the audit worker", ours: thread(ours, "workers") },
      {
        what: `requests/s, ${at}${suffix}`,
        ours: rate(ours),
        beside: rate(bare),
        ratio: rateRatio,
        aim: aimAtLeast(rateRatio, AIM_SHARE),
      },
    ];
  });
}

/** A generator that cannot keep up with bare Hono flatters the gate's requests/s: say how busy the servers were. */
function describeLimit(connections: number, { bare, gate }: Servers<Round[]>): string {
  const busy = (rounds: readonly Round[]) => percent(spreadOf(rounds.map((round) => round.mainBusy)).median);
  return `Main thread busy at ${countOf(connections)}: bare ${busy(bare)}, gate ${busy(gate)} of the time. ` +
    "Well below 100 %, something else sets the requests/s (the disk, the load generator, the other processes).";
}

function countOf(connections: number): string {
  return `${connections} connection${connections === 1 ? "" : "s"}`;
}
