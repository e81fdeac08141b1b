// Their limiter: npm:rate-limiter-flexible as its README has it, over memory, SQLite and Redis, asked what ours is asked.
import { DatabaseSync } from "node:sqlite";
import { createClient } from "@redis/client";
import {
  type RateLimiterAbstract,
  RateLimiterMemory,
  RateLimiterRedis,
  RateLimiterRes,
  RateLimiterSQLite,
  RateLimiterUnion,
} from "rate-limiter-flexible";
import type { Rate } from "../src/limits/gcra.ts";
import { type Ask, PLACES, type Questions } from "./limiter_questions.ts";

interface LimiterOptions {
  /** Also the name of its table, where it has one. */
  readonly keyPrefix: string;
  readonly points: number;
  /** Seconds. */
  readonly duration: number;
}

/** Makes one limit over some storage. */
export type MakeLimiter = (options: LimiterOptions) => RateLimiterAbstract;

export const theirMemory: MakeLimiter = (options) => new RateLimiterMemory(options);

/**
 * It knows better-sqlite3, which is machine code of its own; here it gets Deno's SQLite in that library's words. The file is
 * set as ours is.
 */
export function theirSqlite(file: string): { readonly make: MakeLimiter; close(): void } {
  const database = new DatabaseSync(file);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
  const begin = database.prepare("BEGIN");
  const commit = database.prepare("COMMIT");
  const storeClient = {
    prepare: (sql: string) => database.prepare(sql),
    transaction: <Value>(act: () => Value) => () => {
      begin.run();
      const value = act();
      commit.run();
      return value;
    },
  };
  return {
    make: ({ keyPrefix, ...options }) =>
      new RateLimiterSQLite({
        ...options,
        keyPrefix,
        storeClient,
        storeType: "better-sqlite3",
        tableName: keyPrefix.replaceAll("-", "_"),
      }),
    close: () => database.close(),
  };
}

/** Over one connection that is set as ours is, but for answers as texts. */
export async function theirRedis(
  url: string,
): Promise<{ readonly make: MakeLimiter; readonly remembering: MakeLimiter; close(): Promise<void> }> {
  const storeClient = createClient({
    url,
    RESP: 2,
    maintNotifications: "disabled",
    disableClientInfo: true,
    disableOfflineQueue: true,
    commandOptions: { timeout: 0 },
  });
  // A server that goes away makes the commands fail; that is told there.
  storeClient.on("error", () => {});
  await storeClient.connect();
  const common = { storeClient, useRedisPackage: true };
  return {
    make: (options) => new RateLimiterRedis({ ...common, ...options }),
    remembering: (options) =>
      new RateLimiterRedis({ ...common, ...options, inMemoryBlockOnConsumed: options.points }),
    close: () => storeClient.close(),
  };
}

export function theirQuestions(make: MakeLimiter, rate: Rate): Questions {
  const options = { points: rate.quota, duration: rate.windowMs / 1000 };
  const address = make({ ...options, keyPrefix: "address" });
  const user = make({ ...options, keyPrefix: "user" });
  const atOnce = make({ ...options, points: PLACES, keyPrefix: "at-once" });
  const held = askUnion(user, atOnce);
  return {
    one: (client) =>
      address.consume(client).then(() => true, (thrown) => {
        if (thrown instanceof RateLimiterRes) return false;
        throw thrown;
      }),
    two: askUnion(address, user),
    async held(client) {
      const allowed = await held(client);
      await atOnce.reward(client);
      return allowed;
    },
  };
}

function askUnion(left: RateLimiterAbstract, right: RateLimiterAbstract): Ask {
  const union = new RateLimiterUnion(left, right);
  return (client) =>
    union.consume(client).then(() => true, (refusals) => {
      if (Object.values(refusals).every((each) => each instanceof RateLimiterRes)) return false;
      throw refusals;
    });
}
