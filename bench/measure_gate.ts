// Measure the gate: every step of a request but the model, beside a route of bare Hono that answers the same.
import { deepStrictEqual } from "node:assert/strict";
import { benchFlags, type ChildServer, signIn, startChildServer } from "./child_server.ts";
import type { LoadTarget } from "./load_generator.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { interleave, type Spread } from "./rounds.ts";
import { countOfConnections, cpuRow, medianOf, rateRow, runRound, type ServerRound } from "./server_round.ts";
import { STUB_ID, writeStubModel } from "./stub_model.ts";
import { aimAtLeast, percent, type TableRow } from "./table.ts";

const AIM_SHARE = 0.33;
const CONNECTIONS = [1, 32] as const;
const WARM_UP_TURN_MS = 500;
const BODY = JSON.stringify({ model: STUB_ID, input: "The quick brown fox jumps over the lazy old dog." });

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
    const run = (name: keyof typeof servers, connections: number, ms: number): Promise<ServerRound> =>
      runRound(generator, servers[name].pid, targets[name], connections, ms);
    const rows: TableRow[] = [{ what: "GATE, stub engine, one text, 384 numbers | bare Hono", ours: "" }];
    const notes: string[] = [];
    progress("warming up");
    // In turns: of two equal servers, one that was warmed first and then idled has measured worse.
    for (let warmMs = 0; warmMs < effort.gate.warmUpMs; warmMs += WARM_UP_TURN_MS) {
      await run("bare", Math.max(...CONNECTIONS), WARM_UP_TURN_MS / 4);
      await run("gate", Math.max(...CONNECTIONS), WARM_UP_TURN_MS);
      await run("gateWithLog", Math.max(...CONNECTIONS), WARM_UP_TURN_MS);
    }
    for (const connections of CONNECTIONS) {
      let round = 0;
      const rounds = await interleave(effort.gate.rounds, {
        bare: () => {
          progress(`${countOfConnections(connections)}, round ${++round} of ${effort.gate.rounds}`);
          return run("bare", connections, effort.gate.roundMs);
        },
        gate: () => run("gate", connections, effort.gate.roundMs),
        gateWithLog: () => run("gateWithLog", connections, effort.gate.roundMs),
      });
      rows.push(...describeRounds(connections, rounds));
      notes.push(describeLimit(connections, rounds));
    }
    notes.push(
      "Gate: the real listener, token, rates, strict body, SQLite store, two audit records a request, each on the disk " +
        "(fdatasync) before the answer. CPU: all threads, user and kernel. Ratio: bare / gate for CPU, gate / bare for requests/s.",
    );
    return { rows, notes };
  } finally {
    await Promise.all(Object.values(servers).map((server) => server.stop()));
  }
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

function describeRounds(
  connections: number,
  { bare, gate, gateWithLog }: Servers<ServerRound[]>,
): TableRow[] {
  const at = countOfConnections(connections);
  const compared = [["", gate], [", access log on", gateWithLog]] as const;
  return compared.flatMap(([suffix, ours]): TableRow[] => [
    aimed(cpuRow(`CPU a request, ${at}${suffix}`, ours, bare, "total")),
    cpuRow("  of it the main thread", ours, bare, "main"),
    {
      what: "  of it the audit worker",
      ours: `${Math.round(medianOf(ours, ({ cpu }) => cpu.workers))} µs`,
    },
    aimed(rateRow(`requests/s, ${at}${suffix}`, ours, bare)),
  ]);
}

function aimed(row: TableRow & { readonly ratio: Spread }): TableRow {
  return { ...row, aim: aimAtLeast(row.ratio, AIM_SHARE) };
}

/** A generator that cannot keep up with bare Hono flatters the gate's requests/s: say how busy the servers were. */
function describeLimit(connections: number, { bare, gate }: Servers<ServerRound[]>): string {
  const busy = (rounds: readonly ServerRound[]) => percent(medianOf(rounds, ({ mainBusy }) => mainBusy));
  return `Main thread busy at ${countOfConnections(connections)}: bare ${busy(bare)}, gate ${
    busy(gate)
  } of the time. ` +
    "Well below 100 %, something else sets the requests/s (the disk, the load generator, the other processes).";
}
