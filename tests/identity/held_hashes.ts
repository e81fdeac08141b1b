// Held hashes: Argon2id runs that begin and do not end before a test says so, so that a queue stays as full as it was made.

/** The runs since the hold began. */
export interface HeldHashes extends Disposable {
  /** Memory of each run that has begun, in KiB, in the order of their beginnings. */
  readonly begun: readonly number[];
  /** Lets all of them end, and those to come. */
  release(): void;
}

/** Holds all Argon2id runs of this process, until `release` or the end of the scope; the computing itself stays the platform's. */
export function holdHashes(): HeldHashes {
  const { subtle } = crypto;
  const platform = subtle.deriveBits;
  const begun: number[] = [];
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  subtle.deriveBits = async (...parameters: Parameters<typeof platform>) => {
    const [algorithm] = parameters;
    if (typeof algorithm === "object" && "memory" in algorithm) {
      begun.push(Number(algorithm.memory));
      await released;
    }
    return await platform.apply(subtle, parameters);
  };
  return {
    begun,
    release,
    [Symbol.dispose]() {
      release();
      subtle.deriveBits = platform;
    },
  };
}
