// Measure against: the gate of this checkout beside the gate of another one, each in its own process with its own dependencies.
import { CHECKOUT, type ChildServer, signIn } from "./child_server.ts";
import type { LoadTarget } from "./load_generator.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { interleave, shuffled } from "./rounds.ts";
import { countOfConnections, cpuRow, medianOf, rateRow, runRound, type ServerRound } from "./server_round.ts";
import { embeddingsTarget, requireSameAnswer, startStubGate } from "./stub_gate.ts";
import { writeStubModel } from "./stub_model.ts";
import { percent, type TableRow } from "./table.ts";

const CONNECTIONS = [1, 32] as const;
const WARM_UP_TURN_MS = 500;

type Both<Value> = { readonly [Name in "here" | "there"]: Value };

/**
 * @param checkout another folder of this project, of an older commit or with other changes; its dependencies are installed
 * @throws Error when its gate does not start, or does not answer as this one's does
 */
export async function measureAgainst(
  checkout: string,
  { effort, folder, generator, progress }: PhaseMeans,
): Promise<PhaseFindings> {
  const modelsDir = `${folder}/stub-models`;
  await writeStubModel(modelsDir);
  const servers = {
    here: startStubGate({ dataDir: `${folder}/here`, modelsDir, checkout: CHECKOUT }),
    there: startStubGate({ dataDir: `${folder}/there`, modelsDir, checkout }),
  };
  try {
    const targets: Both<LoadTarget> = {
      here: await openTarget(servers.here),
      there: await openTarget(servers.there),
    };
    await requireSameAnswer(Object.values(targets));
    const { warmUpMs, rounds, roundMs } = effort.against;
    const run = (name: keyof Both<unknown>, connections: number, ms: number): Promise<ServerRound> =>
      runRound(generator, servers[name].pid, targets[name], connections, ms);
    progress("warming up");
    // In turns: of two equal servers, one that was warmed first and then idled has measured worse.
    for (let warmMs = 0; warmMs < warmUpMs; warmMs += WARM_UP_TURN_MS) {
      await run("here", Math.max(...CONNECTIONS), WARM_UP_TURN_MS);
      await run("there", Math.max(...CONNECTIONS), WARM_UP_TURN_MS);
    }
    const rows: TableRow[] = [{ what: `GATE, stub engine, here | in ${checkout}`, ours: "" }];
    const notes: string[] = [];
    for (const connections of CONNECTIONS) {
      let turn = 0;
      const measured = (name: keyof Both<unknown>) => () => {
        if (turn++ % 2 === 0) {
          progress(`${countOfConnections(connections)}, round ${(turn + 1) / 2} of ${rounds}`);
        }
        return run(name, connections, roundMs);
      };
      const found = await interleave(rounds, { here: measured("here"), there: measured("there") }, shuffled);
      rows.push(...describeRounds(connections, found));
      notes.push(describeLimit(connections, found));
    }
    return { rows, notes: [...notes, ...HOW_TO_READ] };
  } finally {
    await Promise.all(Object.values(servers).map((server) => server.stop()));
  }
}

const HOW_TO_READ = [
  "Ratio: the other / this one for CPU, this one / the other for requests/s: above 100 % this checkout does better. It is the " +
  "median of the ratios of pairs measured side by side, in random order; the lowest and highest of them tell how sure it is.",
  "`--against .` measures this checkout beside itself: how far two equal servers come apart here is what no difference can be told from.",
];

async function openTarget(server: ChildServer): Promise<LoadTarget> {
  await server.answers("/healthz");
  return embeddingsTarget(server, await signIn(server));
}

function describeRounds(connections: number, { here, there }: Both<readonly ServerRound[]>): TableRow[] {
  const at = countOfConnections(connections);
  return [
    rateRow(`requests/s, ${at}`, here, there),
    cpuRow(`CPU a request, ${at}`, here, there, "total"),
    cpuRow("  of it the main thread", here, there, "main"),
    cpuRow("  of it the audit worker", here, there, "workers"),
  ];
}

function describeLimit(connections: number, { here, there }: Both<readonly ServerRound[]>): string {
  const busy = (rounds: readonly ServerRound[]) => percent(medianOf(rounds, ({ mainBusy }) => mainBusy));
  return `Main thread busy at ${countOfConnections(connections)}: here ${busy(here)}, there ${
    busy(there)
  } of the time. ` +
    "Well below 100 %, something else sets the requests/s, and the CPU a request tells more.";
}
