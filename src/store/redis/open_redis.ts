// Open Redis: the port Redis over one connection at a time, with a breaker: while there is none, every call fails at once.
import { hash } from "node:crypto";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault, type FaultDetails } from "../../faults/fault.ts";
import { findRedis, keyName, type RedisSettings } from "./find_redis.ts";
import type { Redis, RedisArgument, RedisReply, RedisScript } from "./redis.ts";
import { type RedisConnection, RedisErrorReply } from "./redis_connection.ts";

/** Who is told how Redis is. */
export interface RedisWatch {
  /** Once for each change after the opening; the reason is for the log. */
  stateChanged(state: "up" | "down", reason: string | null): void;
  /** What an operator should change about a Redis that works. */
  warn?(text: string): void;
}

/** Commands that wait for an answer. More would only wait until they are late. */
const UNDER_WAY_MAX = 10_000;
/** Between two attempts to connect: the longest wait, reached by doubling the first. */
const WAIT_MS_FIRST = 50;
const WAIT_MS_MAX = 500;
/** Error answers after which a connection is of no use: somebody else carries the keys now, or nobody does for a while. */
const LOST_CODES: readonly string[] = ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "MOVED"];

/**
 * Connects to Redis; from then on a lost connection is looked for again for as long as it takes.
 *
 * @throws Fault `unavailable` when nobody is there who may be written to; its message says which hosts were tried and why not
 */
export async function openRedis(settings: RedisSettings, watch: RedisWatch): Promise<Redis> {
  const find = findRedis(settings);
  let connection: RedisConnection | undefined;
  let isClosed = false;
  /** Why there is no connection. */
  let downReason = "closed";
  let search = Promise.resolve();
  let endWait = () => {};
  let underWay = 0;
  const digests = new WeakMap<RedisScript, string>();

  try {
    use(await find());
  } catch (error) {
    throw unavailable(messageOf(error), { cause: error });
  }
  await inspect();

  return {
    key: (name) => keyName(settings.prefix, name),
    async run(script, keys, args) {
      const rest = [`${keys.length}`, ...keys, ...args];
      try {
        return await send(["EVALSHA", digestOf(script), ...rest]);
      } catch (error) {
        // Redis forgets scripts when it restarts; nothing of this one has happened.
        if (!isReply(error, "NOSCRIPT")) throw toUnavailable(error);
      }
      try {
        return await send(["EVAL", script.lua, ...rest]);
      } catch (error) {
        throw toUnavailable(error);
      }
    },
    async call(_key, command) {
      // One connection is enough, also to a cluster: the names of all keys say that one node carries them.
      try {
        return await send(command);
      } catch (error) {
        throw toUnavailable(error);
      }
    },
    async close() {
      isClosed = true;
      connection?.close();
      connection = undefined;
      downReason = "closed";
      endWait();
      await search;
    },
  };

  function use(found: RedisConnection): void {
    connection = found;
    found.whenLost.then((reason) => drop(found, reason));
  }

  function drop(lost: RedisConnection, reason: string): void {
    if (connection !== lost) return;
    lost.close();
    connection = undefined;
    downReason = reason;
    watch.stateChanged("down", reason);
    search = searchUntilFound();
  }

  /** The breaker's probes: one at a time. */
  async function searchUntilFound(): Promise<void> {
    for (let waitMs = WAIT_MS_FIRST; !isClosed; waitMs = Math.min(waitMs * 2, WAIT_MS_MAX)) {
      try {
        const found = await find();
        if (isClosed) return found.close();
        use(found);
        return watch.stateChanged("up", null);
      } catch (error) {
        downReason = messageOf(error);
      }
      if (!isClosed) await wait(waitMs);
    }
  }

  function wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      // Half of it by chance, so that instances do not come back all at once.
      const timer = setTimeout(resolve, ms * (0.5 + randomFraction() / 2));
      endWait = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function send(words: readonly RedisArgument[]): Promise<RedisReply> {
    const current = connection;
    if (current === undefined) throw unavailable(downReason, { notSent: true });
    if (underWay >= UNDER_WAY_MAX) {
      throw unavailable(`${UNDER_WAY_MAX} commands wait for an answer`, { notSent: true });
    }
    underWay++;
    try {
      return await current.send(words);
    } catch (error) {
      if (error instanceof RedisErrorReply && LOST_CODES.includes(error.code)) {
        drop(current, `it answers ${error.code}`);
      }
      throw error;
    } finally {
      underWay--;
    }
  }

  function digestOf(script: RedisScript): string {
    let digest = digests.get(script);
    if (digest === undefined) {
      // SHA-1 is what Redis names scripts by; nothing is kept safe with it.
      digest = hash("sha1", script.lua, "hex");
      digests.set(script, digest);
    }
    return digest;
  }

  /** Says what would make this Redis forget. A user who may not ask is not told. */
  async function inspect(): Promise<void> {
    const persistence = await info("persistence");
    if (/^aof_enabled:0/m.test(persistence)) {
      watch.warn?.(
        "Redis keeps no append-only file: when it ends, it forgets the latest charges, revocations and bans; set appendonly yes",
      );
    }
    const policy = /^maxmemory_policy:([a-z-]+)/m.exec(await info("memory"))?.[1] ?? "noeviction";
    if (policy !== "noeviction") {
      watch.warn?.(
        `Redis drops keys when its memory is full (maxmemory-policy ${policy}): revocations and bans may vanish; set noeviction`,
      );
    }
  }

  async function info(section: string): Promise<string> {
    try {
      const reply = await send(["INFO", section]);
      const text = reply instanceof Uint8Array ? decodeUtf8(reply) : undefined;
      return text?.ok === true ? text.value : "";
    } catch {
      return "";
    }
  }
}

function isReply(error: unknown, code: string): boolean {
  return error instanceof RedisErrorReply && error.code === code;
}

/** Of an error answer only its first word and the script's line: the rest may quote what was sent. */
function toUnavailable(error: unknown): Fault {
  if (error instanceof Fault) return error;
  if (!(error instanceof RedisErrorReply)) return unavailable(messageOf(error), { cause: error });
  const line = /\buser_script:(\d+)/.exec(error.message)?.[1];
  return unavailable(`it answers ${error.code}${line === undefined ? "" : ` in line ${line} of the script`}`);
}

function unavailable(reason: string, more: Pick<FaultDetails, "cause" | "notSent"> = {}): Fault {
  return new Fault("unavailable", `Cannot use Redis: ${reason}`, { retryAfterSeconds: 1, ...more });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : "unknown error";
}

/** From 0 to below 1. */
function randomFraction(): number {
  return (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32;
}
