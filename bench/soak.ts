// The soak: the real server under full load for minutes, on each store: its memory must stay flat and its books must balance.
// Linux only. `--minutes N` of load for each store, `--store embedded` or `--store redis` for one of them alone.
import { parseArgs } from "node:util";
import { dayOf } from "../src/limits/limit_policy.ts";
import { printError, printLine } from "../src/telemetry/terminal.ts";
import { systemClock } from "../src/time/clock.ts";
import { residentMemory } from "./process_figures.ts";
import { NO_REDIS, type RedisChild, startRedisChild } from "./redis_child.ts";
import { slopeOf, spreadOf } from "./rounds.ts";
import { balanceBooks, readTrail, readUsages } from "./soak_books.ts";
import { dataDirOf, type SoakGate, startSoakGate } from "./soak_gate.ts";
import { type SoakLoad, startSoakLoad } from "./soak_load.ts";
import type { SoakCounts } from "./soak_worker.ts";

const STORES = ["embedded", "redis"] as const;
type StoreName = typeof STORES[number];

const MINUTES = 5;
const SAMPLE_MS = 1000;
/** A line of progress, and a point of the line of memory: the median of its samples, for allocators go up and down. */
const STEP_MS = 10_000;
/** Code is compiled, caches fill and heaps find their size until then. */
const SETTLING_MS = 60_000;
const SLOPE_MAX = 1;
/** Fewer say nothing about a slope. */
const POINTS_MIN = 6;
/** Until what was left behind has been noticed and settled. */
const CALM_MS = 3000;

/** One step of the soak. */
interface Step {
  readonly elapsedMs: number;
  readonly memoryMiB: number;
}

/** @returns what is wrong, in words */
async function soak(store: StoreName, minutes: number): Promise<readonly string[]> {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-soak-" });
  let redis: RedisChild | undefined;
  let gate: SoakGate | undefined;
  let load: SoakLoad | undefined;
  try {
    if (store === "redis") {
      redis = await startRedisChild(folder);
      if (redis === undefined) throw new Error(NO_REDIS);
    }
    const fromDay = dayOf(systemClock.now()).name;
    gate = await startSoakGate(folder, { minutes, redisUrl: redis?.url });
    load = startSoakLoad(gate);
    const steps = await Promise.race([watch(gate, load, redis, minutes * 60_000), load.failed]);
    await load.stop();
    await pause(CALM_MS);
    const usages = await readUsages(gate, fromDay);
    const toDay = dayOf(systemClock.now()).name;
    await gate.stop();
    printError("  reading the audit trail");
    const trail = readTrail(dataDirOf(folder));
    const counts = load.counts();
    describeCallers(gate, counts);
    const findings = balanceBooks(gate, counts, usages, trail, fromDay === toDay);
    printLine(findings.length === 0 ? "The books balance." : "THE BOOKS DO NOT BALANCE.");
    return [...findings, ...judgeMemory(steps)];
  } finally {
    load?.close();
    await gate?.stop();
    await redis?.stop();
    await Deno.remove(folder, { recursive: true });
  }
}

/** Tells how it goes until the time is over. */
async function watch(
  { server }: SoakGate,
  load: SoakLoad,
  redis: RedisChild | undefined,
  durationMs: number,
): Promise<readonly Step[]> {
  const steps: Step[] = [];
  const startMs = performance.now();
  let before = { ...totalsOf(load.counts()), elapsedMs: 0 };
  let samples: number[] = [];
  while (before.elapsedMs < durationMs) {
    await pause(SAMPLE_MS);
    samples.push((await residentMemory(server.pid)).totalMiB);
    const elapsedMs = performance.now() - startMs;
    if (elapsedMs - before.elapsedMs < STEP_MS && elapsedMs < durationMs) continue;
    const now = { ...totalsOf(load.counts()), elapsedMs };
    const perSecond = (figure: "run" | "refused") =>
      Math.round((now[figure] - before[figure]) * 1000 / (elapsedMs - before.elapsedMs));
    const memoryMiB = spreadOf(samples).median;
    const beside = redis === undefined
      ? ""
      : `, redis-server ${(await residentMemory(redis.pid)).totalMiB.toFixed(1)} MiB`;
    printLine(
      `${Math.round(elapsedMs / 1000)} s: ${perSecond("run")} requests/s and ${
        perSecond("refused")
      } refusals/s, ` +
        `resident ${memoryMiB.toFixed(1)} MiB${beside}`,
    );
    // The middle of the step, as its median is.
    steps.push({ elapsedMs: (before.elapsedMs + elapsedMs) / 2, memoryMiB });
    before = now;
    samples = [];
  }
  return steps;
}

function totalsOf(counts: readonly SoakCounts[]): { readonly run: number; readonly refused: number } {
  const sum = (figure: (each: SoakCounts) => number) =>
    counts.reduce((total, each) => total + figure(each), 0);
  return {
    run: sum(({ completed, left }) => completed + left),
    refused: sum(({ refused }) => Object.values(refused).reduce((total, times) => total + times, 0)),
  };
}

function describeCallers({ callers }: SoakGate, counts: readonly SoakCounts[]): void {
  callers.forEach(({ name, connections }, index) => {
    const { completed = 0, left = 0, refused = {} } = counts[index] ?? {};
    const refusals = Object.entries(refused).map(([what, times]) => `${times} × ${what}`);
    printLine(
      `${name}, ${connections} connections: ${completed} answers, ${left} streams left, refused: ${
        refusals.join(", ") || "never"
      }`,
    );
  });
}

function judgeMemory(steps: readonly Step[]): readonly string[] {
  const settled = steps.filter(({ elapsedMs }) => elapsedMs > SETTLING_MS);
  if (settled.length < POINTS_MIN) {
    printLine("Memory: too short to tell a slope; it takes 2 minutes at least.");
    return [];
  }
  const slope = slopeOf(settled.map(({ elapsedMs, memoryMiB }) => [elapsedMs / 60_000, memoryMiB]));
  const words = `Memory: ${slope.toFixed(2)} MiB a minute after the first minute (aim: < ${SLOPE_MAX})`;
  printLine(words);
  return slope < SLOPE_MAX ? [] : [words];
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const options = parseArgs({
  args: Deno.args,
  options: { minutes: { type: "string", default: `${MINUTES}` }, store: { type: "string" } },
}).values;
const minutes = Number(options.minutes);
const stores = STORES.filter((name) => options.store === undefined || options.store === name);
if (!(minutes > 0 && minutes <= 50) || stores.length === 0) {
  printError(
    "Cannot soak: --minutes is a number up to 50 (access tokens live for an hour), --store is embedded or redis",
  );
  Deno.exit(2);
}
const findings: string[] = [];
for (const store of stores) {
  printLine(
    `\nSoak on the ${store} store, ${minutes} minutes, Deno ${Deno.version.deno}, ${navigator.hardwareConcurrency} cores`,
  );
  findings.push(...(await soak(store, minutes)).map((finding) => `${store}: ${finding}`));
}
for (const finding of findings) printError(`WRONG: ${finding}`);
Deno.exit(findings.length === 0 ? 0 : 1);
