// Manual feed: a ChangeFeed that tests drive by hand.
import type { ChangeFeed, Follower } from "../../src/store/change_feed.ts";

/** Tells its followers what a test says, and is current until a test says otherwise. */
export class ManualFeed implements ChangeFeed {
  readonly #followers = new Map<string, Follower[]>();
  current = true;

  follow(table: string, follower: Follower): void {
    this.#followers.set(table, [...this.#followers.get(table) ?? [], follower]);
  }

  /** Resolves when all followers of the table know; `key` undefined: all of the table may have changed. */
  async tell(table: string, key: string | undefined): Promise<void> {
    for (const follower of this.#followers.get(table) ?? []) await follower(key);
  }

  /** The tables that somebody follows. */
  tables(): readonly string[] {
    return [...this.#followers.keys()].sort();
  }

  isCurrent(): boolean {
    return this.current;
  }

  catchUp(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
