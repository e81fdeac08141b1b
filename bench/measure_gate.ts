// Measure the gate: every step of a request but the model, beside a route of bare Hono that answers the same.
import { benchFlags, type ChildServer, signIn, startChildServer } from "./child_server.ts";
import type { LoadTarget } from "./load_generator.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { interleave, type Spread } from "./rounds.ts";
import { countOfConnections, cpuRow, medianOf, rateRow, runRound, type ServerRound } from "./server_round.ts";
import { embeddingsTarget, requireSameAnswer, startStubGate } from "./stub_gate.ts";
import { writeStubModel } from "./stub_model.ts";
import { aimAtLeast, percent, type TableRow } from "./table.ts";

const AIM_SHARE = 0.33;
const CONNECTIONS = [1, 32] as const;
const WARM_UP_TURN_MS = 500;

export async function measureGate(
  { effort, folder, generator, progress }: PhaseMeans,
): Promise<PhaseFindings> {
  const modelsDir = `${folder}/stub-models`;
  await writeStubModel(modelsDir);
  const servers = {
    bare: startChildServer("bench/bare_hono_server.ts", {}, benchFlags),
    gate: startStubGate({ dataDir: `${folder}/gate`, modelsDir }),
    gateWithLog: startStubGate({ dataDir: `${folder}/gate-with-log`, modelsDir, logLevel: "info" }),
  };
  try {
    const targets = await openTargets(servers);
    await requireSameAnswer(Object.values(targets));
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
  await Promise.all(Object.values(servers).map((server) => server.answers("/healthz")));
  return {
    bare: embeddingsTarget(servers.bare),
    gate: embeddingsTarget(servers.gate, await signIn(servers.gate)),
    gateWithLog: embeddingsTarget(servers.gateWithLog, await signIn(servers.gateWithLog)),
  };
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
