// Server round: one server under load for a moment, and how two servers' rounds compare.
import type { LoadGenerator, LoadTarget } from "./load_generator.ts";
import { type CpuTime, cpuTime } from "./process_figures.ts";
import { type Spread, spreadOf, spreadOfPairs } from "./rounds.ts";
import type { TableRow } from "./table.ts";

/** One round on one server. */
export interface ServerRound {
  readonly answers: number;
  readonly perSecond: number;
  /** Microseconds of processor time for each request. */
  readonly cpu: { readonly total: number; readonly main: number; readonly workers: number };
  /** Share of the round in which the main thread was on a processor. */
  readonly mainBusy: number;
  /** Of each stream: until the first byte of its body. */
  readonly firstByteMs: readonly number[];
  /** Of each answer: until its last byte. */
  readonly answerMs: readonly number[];
}

export async function runRound(
  generator: LoadGenerator,
  pid: number,
  target: LoadTarget,
  connections: number,
  durationMs: number,
): Promise<ServerRound> {
  const before = await cpuTime(pid);
  const { answers, elapsedMs, firstByteMs, answerMs } = await generator.run(target, connections, durationMs);
  const after = await cpuTime(pid);
  const microseconds = (part: keyof CpuTime) => (after[part] - before[part]) * 1000 / answers;
  return {
    answers,
    perSecond: answers * 1000 / elapsedMs,
    cpu: { total: microseconds("totalMs"), main: microseconds("mainMs"), workers: microseconds("workersMs") },
    mainBusy: (after.mainMs - before.mainMs) / elapsedMs,
    firstByteMs,
    answerMs,
  };
}

/** The median of one figure over rounds. */
export function medianOf(rounds: readonly ServerRound[], figure: (round: ServerRound) => number): number {
  return spreadOf(rounds.map(figure)).median;
}

/** A row without its aim: processor time for each request; 1 is as little as the other's. */
export function cpuRow(
  what: string,
  ours: readonly ServerRound[],
  beside: readonly ServerRound[],
  part: keyof ServerRound["cpu"],
): TableRow & { readonly ratio: Spread } {
  const text = (rounds: readonly ServerRound[]) =>
    `${Math.round(medianOf(rounds, ({ cpu }) => cpu[part]))} µs`;
  const ratio = spreadOfPairs(ours, beside, (left, right) => right.cpu[part] / left.cpu[part]);
  return { what, ours: text(ours), beside: text(beside), ratio };
}

/** A row without its aim: how many requests a second. */
export function rateRow(
  what: string,
  ours: readonly ServerRound[],
  beside: readonly ServerRound[],
): TableRow & { readonly ratio: Spread } {
  const text = (rounds: readonly ServerRound[]) =>
    `${Math.round(medianOf(rounds, ({ perSecond }) => perSecond))} /s`;
  const ratio = spreadOfPairs(ours, beside, (left, right) => left.perSecond / right.perSecond);
  return { what, ours: text(ours), beside: text(beside), ratio };
}

export function countOfConnections(connections: number): string {
  return `${connections} connection${connections === 1 ? "" : "s"}`;
}
