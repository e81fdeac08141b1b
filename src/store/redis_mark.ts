// Redis mark: one record by which an instance knows the store that it started with. A Redis that lost its data has none, or another.
import { Fault } from "../faults/fault.ts";
import type { RedisArgument, RedisReply } from "./redis/redis.ts";

const LOST = "LOST";

/**
 * Lua that goes before a script: where the mark does not stand, it answers instead of the script. The mark's hash is the last of KEYS.
 *
 * @param at where the mark's two words are in ARGV
 */
export function requireMark(at: number): string {
  return `if ARGV[${at + 1}] ~= "" and redis.call("HGET", KEYS[#KEYS], ARGV[${at}]) ~= ARGV[${at + 1}] then
  return redis.status_reply("${LOST}")
end`;
}

/** What one instance knows of its store, in one place for all that ask Redis. */
export interface RedisMark {
  /** From now on this must stand in a field of a hash; until then anything goes. */
  require(
    record: { readonly hash: string; readonly field: string; readonly stored: RedisArgument },
  ): void;
  /** For a script's KEYS; undefined: not known yet, and any key will do. */
  hash(): string | undefined;
  /** For a script's ARGV. */
  words(): readonly [RedisArgument, RedisArgument];
  /** What a script answered. Throws Fault `unavailable` where it says that the mark is gone. */
  judge(reply: RedisReply): RedisReply;
  /** Whether it was ever found gone. Coming back does not help: what was answered meanwhile is not known. */
  isLost(): boolean;
  /** Throws Fault `unavailable` where it was. */
  check(): void;
}

/** @param onLost told once */
export function openRedisMark(onLost: (fault: Fault) => void): RedisMark {
  let required: Parameters<RedisMark["require"]>[0] | undefined;
  let isLost = false;
  return {
    require(record) {
      required = record;
    },
    hash: () => required?.hash,
    words: () => required === undefined ? ["", ""] : [required.field, required.stored],
    judge(reply) {
      if (reply !== LOST) return reply;
      const fault = otherStore();
      if (!isLost) {
        isLost = true;
        onLost(fault);
      }
      throw fault;
    },
    isLost: () => isLost,
    check() {
      if (isLost) throw otherStore();
    },
  };
}

function otherStore(): Fault {
  return new Fault(
    "unavailable",
    "Cannot use the shared store: it is not the one this instance started with; restart the instance once the store is restored",
  );
}
