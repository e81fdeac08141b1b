// Choose replica: which of the places that serve a model gets the next request.

/** Chooses, and remembers whose turn it is. */
export interface ReplicaChooser {
  /**
   * The index of the replica that gets the request; undefined where none may.
   *
   * @param mayTake whether a replica can be asked now
   * @param inFlight requests that are under way at a replica's upstream
   */
  choose(mayTake: (index: number) => boolean, inFlight: (index: number) => number): number | undefined;
}

/**
 * Makes a chooser. `weighted`: smooth weighted round robin, so that shares hold over any stretch and no replica gets its share
 * in one burst. `least-busy`: the one with the fewest requests for its weight; weighted round robin among equals.
 *
 * @param weights one for each replica, each at least 1
 */
export function createReplicaChooser(
  weights: readonly number[],
  routing: "weighted" | "least-busy",
): ReplicaChooser {
  /** What each replica is owed; the sum of it is always 0. */
  const owed = weights.map(() => 0);

  /** Smooth weighted round robin: all gain their weight, the one that is owed most pays for all. */
  function takeTurn(mayTake: (index: number) => boolean): number | undefined {
    let gained = 0;
    let chosen: number | undefined;
    let most = -Infinity;
    for (const [index, weight] of weights.entries()) {
      if (!mayTake(index)) continue;
      gained += weight;
      const now = owed[index] = (owed[index] ?? 0) + weight;
      if (now > most) {
        most = now;
        chosen = index;
      }
    }
    if (chosen !== undefined) owed[chosen] = most - gained;
    return chosen;
  }

  if (routing === "weighted") return { choose: (mayTake) => takeTurn(mayTake) };
  return {
    choose(mayTake, inFlight) {
      const load = weights.map((weight, index) => mayTake(index) ? inFlight(index) / weight : Infinity);
      const least = Math.min(...load);
      return least === Infinity ? undefined : takeTurn((index) => load[index] === least);
    },
  };
}
