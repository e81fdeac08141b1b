// Tests of the usage book in Redis: whoever has used very many keys can see it, and nobody who shares the connection waits for that.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { openRedisLimitStore } from "../../src/limits/redis_limit_store.ts";
import { readUsage, usageTallies } from "../../src/limits/usage_book.ts";
import { openRedisUnderTest } from "../store/redis_under_test.ts";
import { hasRedisServer, startRedisServer } from "../support/redis_server.ts";
import { rate } from "./limit_store_contract.ts";

const NOON = Date.UTC(2026, 10, 22, 12);
const USER = { issuer: "https://ai.example.com", subject: "usr_1" };
const USED = { requests: 1, inputTokens: 10, outputTokens: 5, cost: 7 };
const KEYS = 15_000;

Deno.test({
  name:
    "a day of 15,000 keys of one user is read in small answers, one at a time, between which others are answered",
  ignore: !hasRedisServer,
  async fn() {
    const server = await startRedisServer();
    try {
      const redis = await openRedisUnderTest(server, "usage");
      try {
        let underWay = 0;
        let [underWayMost, largestAnswer, answers] = [0, 0, 0];
        const store = openRedisLimitStore({
          ...redis,
          async call(key, command) {
            underWayMost = Math.max(underWayMost, ++underWay);
            const answer = await redis.call(key, command);
            underWay--;
            answers++;
            largestAnswer = Math.max(largestAnswer, Array.isArray(answer) ? answer.flat().length : 0);
            return answer;
          },
        });
        for (let at = 0; at < KEYS; at += 50) {
          const rows = Array.from({ length: 50 }, (_, index) => ({
            ...USER,
            team: "red",
            key: `pck_${at + index}`,
            model: "m",
          }));
          await store.settle(`hold${at}`, [], rows.flatMap((row) => usageTallies(row, USED, NOON)));
        }
        let isRead = false;
        const reading = readUsage(store, "2026-11-22", USER).finally(() => isRead = true);
        let taken = 0;
        for (; !isRead; taken++) {
          strictEqual((await store.take(null, [rate("other", 1_000_000)]))[0]?.allowed, true);
        }
        const rows = await reading;
        deepStrictEqual([rows.length, new Set(rows.map(({ row }) => row.key)).size], [KEYS, KEYS]);
        ok(rows.every(({ used }) => used.requests === 1 && used.inputTokens === 10 && used.cost === 7));
        strictEqual(underWayMost, 1);
        // A scan's answer has a few more than it was asked for: names and sums.
        ok(largestAnswer < 4 * 500, `${largestAnswer}`);
        ok(answers > KEYS * 4 / 1000, `${answers}`);
        ok(taken > 20, `${taken}`);
      } finally {
        await redis.close();
      }
    } finally {
      await server.stop();
    }
  },
});
