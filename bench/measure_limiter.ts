// Measure the limiter alone: decisions a second of our limit stores, beside npm:rate-limiter-flexible over the same storage.
import { parseRedisAddress } from "../src/config/redis_setting.ts";
import { openLimiter } from "../src/limits/limiter.ts";
import type { LimitStore } from "../src/limits/limit_store.ts";
import { openMemoryLimitStore } from "../src/limits/memory_limit_store.ts";
import { openRedisLimitStore } from "../src/limits/redis_limit_store.ts";
import { openSqliteLimitStore } from "../src/limits/sqlite_limit_store.ts";
import { openRedis } from "../src/store/redis/open_redis.ts";
import { openLog, standardOutput } from "../src/telemetry/log.ts";
import { systemClock } from "../src/time/clock.ts";
import { AMPLE, type Ask, askLimiter, ourQuestions, SPENT } from "./limiter_questions.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { NO_REDIS, type RedisChild, startRedisChild } from "./redis_child.ts";
import { interleave, shuffled, spreadOf, spreadOfPairs } from "./rounds.ts";
import { aimAtLeast, type TableRow } from "./table.ts";
import { type MakeLimiter, theirMemory, theirQuestions, theirRedis, theirSqlite } from "./their_limiter.ts";

const CLIENTS = clientsOf("10.0", 10_000);
/** Others, who have used up what they have. */
const SPENT_CLIENTS = clientsOf("10.1", CLIENTS.length);
/** So many of them are asked about where refusals are kept in mind: ours minds 10,000 at most, and each for a second. */
const REMEMBERED_CLIENTS = SPENT_CLIENTS.slice(0, 1000);
/** Decisions that wait for Redis together; memory and SQLite answer before the next question is asked. */
const REDIS_CALLERS = 64;
const AIM_SHARE = 1;
const STORE_TIMEOUT_MS = 5000;
/** Between two looks at the time. */
const BATCH = 32;

interface LimiterCase {
  readonly what: string;
  readonly ours: Ask;
  readonly theirs: Ask;
  /** Questions under way together. */
  readonly callers: number;
  readonly clients: readonly string[];
  /** What the answer must be, once each client has asked. */
  readonly allowed: boolean;
  readonly aimed: boolean;
}

export async function measureLimiter(means: PhaseMeans): Promise<PhaseFindings> {
  const folder = `${means.folder}/limiter`;
  await Deno.mkdir(folder);
  const rows: TableRow[] = [{
    what: "LIMITER, decisions/s, 10,000 clients | rate-limiter-flexible",
    ours: "",
  }];

  const memory = openMemoryLimitStore(systemClock);
  rows.push(
    ...await measureCases(means, casesOf("memory", memory, theirMemory, { callers: 1, aimed: true })),
  );
  await memory.close();

  const sqlite = openSqliteLimitStore(`${folder}/ours.db`, systemClock);
  const theirs = theirSqlite(`${folder}/theirs.db`);
  try {
    const cases = casesOf("SQLite", sqlite, theirs.make, { callers: 1, aimed: false });
    rows.push(...await measureCases(means, cases));
  } finally {
    theirs.close();
    await sqlite.close();
  }

  const server = await startRedisChild(folder);
  if (server === undefined) return { rows, notes: [...HOW_TO_READ, NO_REDIS] };
  try {
    rows.push(...await measureRedis(means, server));
  } finally {
    await server.stop();
  }
  return { rows, notes: HOW_TO_READ };
}

const HOW_TO_READ = [
  "Limiter: the stores that the limiter asks, without the gate around them, and rate-limiter-flexible 11.4.0 as its README has it: a " +
  "limiter a limit, RateLimiterUnion for two, `reward` to give a place back. It counts in fixed windows, as an approximation of what " +
  "GCRA decides, takes from one of two limits where the other refuses, and gives back what was never taken.",
  `Callers: one for memory and SQLite, which we answer at once and it with a promise; ${REDIS_CALLERS} at a time for Redis, over one ` +
  "connection each. Its SQLite limiter is for better-sqlite3 and got Deno's SQLite through a shim of 15 lines, with the same WAL and " +
  "synchronous NORMAL; its Redis limiter sends the text of its script with every call, which is all it can with this client.",
  "Refused in memory, 1,000 clients: ours by the limiter, which asks again after a second at the latest; theirs by inMemoryBlockOnConsumed.",
];

async function measureRedis(means: PhaseMeans, { url }: RedisChild): Promise<TableRow[]> {
  const address = parseRedisAddress(url);
  if (address === undefined) throw new Error(`Cannot measure Redis: ${url} is no address`);
  const settings = { address, prefix: "bench", caCertificates: undefined, timeoutMs: STORE_TIMEOUT_MS };
  const redis = await openRedis(settings, { stateChanged() {} });
  const theirs = await theirRedis(url);
  const store = openRedisLimitStore(redis);
  const limiter = openLimiter({
    store,
    local: openMemoryLimitStore(systemClock),
    degradedFraction: 1,
    clock: systemClock,
    log: openLog({ level: "error", clock: systemClock, sink: standardOutput }),
  });
  try {
    return await measureCases(means, [
      ...casesOf("Redis", store, theirs.make, { callers: REDIS_CALLERS, aimed: true }),
      {
        what: "Redis, one rate, refused in memory",
        ours: askLimiter(limiter, SPENT),
        theirs: theirQuestions(theirs.remembering, SPENT).one,
        callers: REDIS_CALLERS,
        clients: REMEMBERED_CLIENTS,
        allowed: false,
        aimed: true,
      },
    ]);
  } finally {
    await theirs.close();
    // Closes the store as well.
    await limiter.close(0);
    await redis.close();
  }
}

function casesOf(
  storage: string,
  store: LimitStore,
  make: MakeLimiter,
  how: { readonly callers: number; readonly aimed: boolean },
): readonly LimiterCase[] {
  const [ours, theirs] = [ourQuestions(store, AMPLE), theirQuestions(make, AMPLE)];
  const [oursSpent, theirsSpent] = [ourQuestions(store, SPENT), theirQuestions(make, SPENT)];
  const ample = { clients: CLIENTS, allowed: true, ...how };
  const spent = { clients: SPENT_CLIENTS, allowed: false, ...how };
  return [
    { what: `${storage}, one rate`, ours: ours.one, theirs: theirs.one, ...ample },
    { what: `${storage}, one rate, refused`, ours: oursSpent.one, theirs: theirsSpent.one, ...spent },
    { what: `${storage}, two rates`, ours: ours.two, theirs: theirs.two, ...ample },
    { what: `${storage}, rate and place, place given back`, ours: ours.held, theirs: theirs.held, ...ample },
  ];
}

async function measureCases(
  { effort: { limiter: { warmUpMs, rounds, roundMs } }, progress }: PhaseMeans,
  cases: readonly LimiterCase[],
): Promise<TableRow[]> {
  const rows: TableRow[] = [];
  for (const each of cases) {
    progress(each.what);
    const run = (ask: Ask, durationMs: number) => () => perSecond(each, ask, durationMs);
    // Its SQLite limiter makes its table in the background.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (!each.allowed) {
      await Promise.all(each.clients.flatMap((client) => [each.ours(client), each.theirs(client)]));
    }
    await interleave(2, { ours: run(each.ours, warmUpMs / 2), theirs: run(each.theirs, warmUpMs / 2) });
    const measured = { ours: run(each.ours, roundMs), theirs: run(each.theirs, roundMs) };
    const { ours, theirs } = await interleave(rounds, measured, shuffled);
    const ratio = spreadOfPairs(ours, theirs, (left, right) => left / right);
    rows.push({
      what: each.what,
      ours: describeRate(ours),
      beside: describeRate(theirs),
      ratio,
      ...(each.aimed ? { aim: aimAtLeast(ratio, AIM_SHARE) } : {}),
    });
  }
  return rows;
}

/** @throws Error when an answer is not what it must be */
async function perSecond(
  { what, callers, clients, allowed }: LimiterCase,
  ask: Ask,
  durationMs: number,
): Promise<number> {
  let asked = 0;
  let wrong = 0;
  const startMs = performance.now();
  await Promise.all(Array.from({ length: callers }, async () => {
    do {
      for (let left = BATCH; left > 0; left--) {
        const answer = ask(clients[asked++ % clients.length] ?? "");
        if ((typeof answer === "boolean" ? answer : await answer) !== allowed) wrong++;
      }
    } while (performance.now() - startMs < durationMs);
  }));
  const elapsedMs = performance.now() - startMs;
  if (wrong > 0) {
    throw new Error(`Cannot trust a round of "${what}": ${wrong} of ${asked} answers were wrong`);
  }
  return asked * 1000 / elapsedMs;
}

function describeRate(values: readonly number[]): string {
  return `${Math.round(spreadOf(values).median / 1000)} k/s`;
}

function clientsOf(network: string, count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `${network}.${index >> 8}.${index & 255}`);
}
