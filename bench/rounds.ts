// Rounds: contestants measured in turn, so that whatever disturbs the machine disturbs all alike; then medians.

/** A median and what it was taken from. */
export interface Spread {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

/** @throws Error when there are no values */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((left, right) => left - right);
  const [lowest, highest] = [sorted[0], sorted.at(-1)];
  const middle = sorted.length / 2;
  const low = sorted[Math.ceil(middle) - 1], high = sorted[Math.floor(middle)];
  if (lowest === undefined || highest === undefined || low === undefined || high === undefined) {
    throw new Error("Cannot take a median: there are no values");
  }
  return { median: (low + high) / 2, lowest, highest };
}

/** The value below which that share of all lies; NaN where there are none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** The order in which the contestants of a round take their turns. */
export type Order = <Name>(names: readonly Name[], round: number) => readonly Name[];

/** Every round begins with another one. */
export const rotated: Order = (names, round) => {
  const first = round % names.length;
  return [...names.slice(first), ...names.slice(0, first)];
};

/** By chance: nothing that comes and goes on the machine keeps step with it. */
export const shuffled: Order = (names) =>
  names.map((name) => ({ name, place: Math.random() })).sort((left, right) => left.place - right.place)
    .map(({ name }) => name);

/**
 * Measures each contestant once a round.
 *
 * @returns the results of each contestant, in the order of the rounds: results at one index were measured side by side
 */
export async function interleave<Name extends string, Result>(
  rounds: number,
  contestants: Readonly<Record<Name, () => Promise<Result>>>,
  order: Order = rotated,
): Promise<Record<Name, Result[]>> {
  const names = Object.keys(contestants) as Name[];
  const results = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Name, Result[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of order(names, round)) results[name].push(await contestants[name]());
  }
  return results;
}

/** Pairs two contestants' results round by round. */
export function spreadOfPairs<Result>(
  left: readonly Result[],
  right: readonly Result[],
  relate: (left: Result, right: Result) => number,
): Spread {
  return spreadOf(left.flatMap((each, round) => {
    const other = right[round];
    return other === undefined ? [] : [relate(each, other)];
  }));
}

/**
 * By how much the second figure grows where the first grows by one: the line of least squares.
 *
 * @param points at least two, that differ in the first figure
 */
export function slopeOf(points: readonly (readonly [number, number])[]): number {
  const mean = (figure: 0 | 1) => points.reduce((total, point) => total + point[figure], 0) / points.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  const above = points.reduce((total, [x, y]) => total + (x - meanX) * (y - meanY), 0);
  return above / points.reduce((total, [x]) => total + (x - meanX) ** 2, 0);
}
