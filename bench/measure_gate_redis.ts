// Measure the gate with Redis: the whole gate over a Redis on this machine, beside the same gate over its embedded store.
import { signIn } from "./child_server.ts";
import type { LoadTarget } from "./load_generator.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { cpuTime } from "./process_figures.ts";
import { NO_REDIS, type RedisChild, startRedisChild } from "./redis_child.ts";
import { interleave, shuffled, spreadOf } from "./rounds.ts";
import { countOfConnections, cpuRow, medianOf, rateRow, runRound, type ServerRound } from "./server_round.ts";
import { embeddingsTarget, requireSameAnswer, startStubGate } from "./stub_gate.ts";
import { writeStubModel } from "./stub_model.ts";
import { aimAtLeast, percent, type TableRow } from "./table.ts";

const AIM_SHARE = 0.7;
const AIM_CONNECTIONS = 32;
const CONNECTIONS = [1, AIM_CONNECTIONS] as const;
const WARM_UP_TURN_MS = 500;

/** With redis-server's own processor time for each request, microseconds. */
interface StoreRound extends ServerRound {
  readonly storeCpu: number;
}

type Both<Value> = { readonly [Name in "redis" | "embedded"]: Value };

export async function measureGateRedis(means: PhaseMeans): Promise<PhaseFindings> {
  const folder = `${means.folder}/gate-redis`;
  await Deno.mkdir(folder);
  const store = await startRedisChild(folder);
  if (store === undefined) return { rows: [], notes: [`The gate with Redis: ${NO_REDIS}`] };
  try {
    return await measureBeside(means, folder, store);
  } finally {
    await store.stop();
  }
}

async function measureBeside(
  { effort, generator, progress }: PhaseMeans,
  folder: string,
  store: RedisChild,
): Promise<PhaseFindings> {
  const modelsDir = `${folder}/stub-models`;
  await writeStubModel(modelsDir);
  const servers = {
    redis: startStubGate({ dataDir: `${folder}/redis`, modelsDir, redisUrl: store.url }),
    embedded: startStubGate({ dataDir: `${folder}/embedded`, modelsDir }),
  };
  try {
    await Promise.all(Object.values(servers).map((server) => server.answers("/healthz")));
    const targets: Both<LoadTarget> = {
      redis: embeddingsTarget(servers.redis, await signIn(servers.redis)),
      embedded: embeddingsTarget(servers.embedded, await signIn(servers.embedded)),
    };
    await requireSameAnswer(Object.values(targets));
    const run = async (name: keyof Both<unknown>, connections: number, ms: number): Promise<StoreRound> => {
      const before = await cpuTime(store.pid);
      const round = await runRound(generator, servers[name].pid, targets[name], connections, ms);
      const after = await cpuTime(store.pid);
      return { ...round, storeCpu: (after.totalMs - before.totalMs) * 1000 / round.answers };
    };
    progress("warming up");
    // In turns: of two equal servers, one that was warmed first and then idled has measured worse.
    for (let warmMs = 0; warmMs < effort.gate.warmUpMs; warmMs += WARM_UP_TURN_MS) {
      await run("redis", AIM_CONNECTIONS, WARM_UP_TURN_MS);
      await run("embedded", AIM_CONNECTIONS, WARM_UP_TURN_MS);
    }
    const rows: TableRow[] = [{ what: "GATE with Redis, stub engine | with the embedded store", ours: "" }];
    const notes: string[] = [];
    for (const connections of CONNECTIONS) {
      let turn = 0;
      const measured = (name: keyof Both<unknown>) => () => {
        if (turn++ % 2 === 0) {
          progress(`${countOfConnections(connections)}, round ${(turn + 1) / 2} of ${effort.gate.rounds}`);
        }
        return run(name, connections, effort.gate.roundMs);
      };
      const contestants = { redis: measured("redis"), embedded: measured("embedded") };
      const found = await interleave(effort.gate.rounds, contestants, shuffled);
      rows.push(...describeRounds(connections, found));
      notes.push(describeLimit(connections, found));
    }
    return { rows, notes };
  } finally {
    await Promise.all(Object.values(servers).map((server) => server.stop()));
  }
}

function describeRounds(connections: number, { redis, embedded }: Both<readonly StoreRound[]>): TableRow[] {
  const at = countOfConnections(connections);
  const rate = rateRow(`requests/s, ${at}`, redis, embedded);
  return [
    connections === AIM_CONNECTIONS ? { ...rate, aim: aimAtLeast(rate.ratio, AIM_SHARE) } : rate,
    cpuRow(`CPU a request, ${at}`, redis, embedded, "total"),
    cpuRow("  of it the main thread", redis, embedded, "main"),
  ];
}

/** All share the processors: redis-server takes its part from the gate. */
function describeLimit(connections: number, { redis, embedded }: Both<readonly StoreRound[]>): string {
  const busy = (rounds: readonly ServerRound[]) => percent(medianOf(rounds, ({ mainBusy }) => mainBusy));
  const storeCpu = Math.round(spreadOf(redis.map((round) => round.storeCpu)).median);
  return `Gate with Redis, ${countOfConnections(connections)}: main thread busy: with Redis ${
    busy(redis)
  }, ` +
    `embedded ${busy(embedded)}; redis-server itself takes ${storeCpu} µs a request, on the same processors.`;
}
