// Standings: what the gate has to know of an account at every request, kept at hand and forgotten when it changes.
import type { ChangeFeed } from "../store/change_feed.ts";
import { keepNewest } from "./bounded_map.ts";

/** An account at this moment. */
export interface Standing {
  readonly kind: "user" | "client";
  readonly team: string;
  readonly roles: readonly string[];
  /** False: disabled. */
  readonly active: boolean;
  /** Access tokens issued in this second or before are over; null or absent: none. Whole seconds since 1970. */
  readonly tokensNotBeforeSeconds?: number | null;
}

/** Whether an account's access token is over because of what happened to the account since. */
export function isOverFor(
  { tokensNotBeforeSeconds }: Pick<Standing, "tokensNotBeforeSeconds">,
  issuedAtSeconds: number,
): boolean {
  return issuedAtSeconds <= (tokensNotBeforeSeconds ?? -Infinity);
}

/** Standings by the ids of accounts. */
export interface Standings {
  /** What is at hand, without waiting; undefined where it has to be loaded. */
  known(subject: string): Standing | undefined;
  /** From the store; undefined for an account that does not exist. */
  load(subject: string): Promise<Standing | undefined>;
  /** The account was changed: the next request asks the store. undefined: any of them may have been. */
  forget(subject: string | undefined): void;
}

const KNOWN_MAX = 100_000;
/** Where accounts stand, by their ids. */
const TABLES = ["users", "clients"] as const;

/**
 * @param read the standing of one account as the store has it
 * @param feed tells of accounts that others change
 */
export function openStandings(
  read: (subject: string) => Promise<Standing | undefined>,
  feed: Pick<ChangeFeed, "follow">,
): Standings {
  const known = new Map<string, Standing>();
  // What was read before a change must not be kept after it.
  let changes = 0;

  function forget(subject: string | undefined): void {
    changes++;
    if (subject === undefined) known.clear();
    else known.delete(subject);
  }
  for (const table of TABLES) feed.follow(table, forget);

  return {
    known: (subject) => known.get(subject),
    async load(subject) {
      const before = changes;
      const standing = await read(subject);
      if (standing !== undefined && before === changes) {
        keepNewest(known, subject, standing, KNOWN_MAX);
      }
      return standing;
    },
    forget,
  };
}
