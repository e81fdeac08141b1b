// Random fraction: chance for jitter and backoff, drawn from the cryptographic source like all chance here.

/** A number from 0 to below 1. */
export function randomFraction(): number {
  return (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 0x1_0000_0000;
}
