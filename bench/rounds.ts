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

/**
 * Measures each contestant once a round; every round begins with another one.
 *
 * @returns the results of each contestant, in the order of the rounds: results at one index were measured side by side
 */
export async function interleave<Name extends string, Result>(
  rounds: number,
  contestants: Readonly<Record<Name, () => Promise<Result>>>,
): Promise<Record<Name, Result[]>> {
  const names = Object.keys(contestants) as Name[];
  const results = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Name, Result[]>;
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(round + turn) % names.length];
      if (name !== undefined) results[name].push(await contestants[name]());
    }
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
