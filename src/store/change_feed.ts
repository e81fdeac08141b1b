// Change feed: the port that tells one instance what others wrote into the store that they share, so that it can keep records at hand.

/**
 * Told of one changed record of a table; undefined: nobody knows which, so all of the table counts as changed. What it throws
 * is taken as a failure of the store: it is told again.
 */
export type Follower = (key: string | undefined) => Promise<void> | void;

/** What others change. */
export interface ChangeFeed {
  /** From now on the follower is told of each change of a table, also of this instance's own. */
  follow(table: string, follower: Follower): void;
  /**
   * Whether followers know all that others had written `staleMsMax` ago (a setting). Synchronous: it is asked at every request.
   * While it is not, nothing kept at hand may be believed.
   */
  isCurrent(): boolean;
  /**
   * Asks at once instead of in a moment; resolves when followers know all that was written before the call.
   *
   * @throws Fault `unavailable` when the store cannot be asked
   */
  catchUp(): Promise<void>;
  close(): Promise<void>;
}

/** The feed of a store that nobody shares. */
export const NO_OTHERS: ChangeFeed = {
  follow() {},
  isCurrent: () => true,
  catchUp: () => Promise.resolve(),
  close: () => Promise.resolve(),
};
