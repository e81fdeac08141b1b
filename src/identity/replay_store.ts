// Replay store: the port that remembers what may be used once only (RFC 9449 §11.1, RFC 7523 §3).

/** Ids that were used. Whoever opens it says for how many; one that cannot remember throws Fault `overloaded` or `unavailable`. */
export interface ReplayStore {
  /**
   * Whether this is the first time. Atomic: of two that ask at once, one is the first.
   *
   * @param id any text; hashed by the caller, so that it is short and holds nothing of a stranger's
   * @param expiresAtMs it is remembered until then; a few minutes from now at most
   */
  firstUse(id: string, expiresAtMs: number): boolean | Promise<boolean>;
}
