// Payloads: two servers on one Redis seal under one key of a subject, and when one of them destroys it, it is gone on both.
import { deepStrictEqual, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { hasRedisServer } from "../support/redis_server.ts";
import { answerChat, MODEL, withInstances } from "../support/instances.ts";
import { eventMistake } from "../support/known_event.ts";
import type { ServerUnderTest } from "../support/server_under_test.ts";
import {
  callsOf,
  expectStatus,
  pause,
  requireIntactTrail,
  signIn,
  type TrailEvent,
  trailOf,
} from "./api_calls.ts";

const PROMPT = "seventeen flamingos crossed the harbour";

Deno.test({
  name:
    "two instances have one key of a subject, a payload is read where it was recorded, and a destroyed key is gone on both",
  ignore: !hasRedisServer,
  fn: async () => {
    const variables = { PORTCULLIS_AUDIT_PAYLOADS: JSON.stringify([{}]) };
    await withInstances({ servers: [{}, {}], variables }, async ({ servers, upstream, stop }) => {
      const [first, second] = servers as [ServerUnderTest, ServerUnderTest];
      upstream.plays(answerChat(9, 5));
      const token = (await signIn(first)).access_token;
      const [one, other] = [callsOf(first, token), callsOf(second, token)];
      const body = { model: MODEL, messages: [{ role: "user", content: PROMPT }] };
      const chat = async (call: typeof one): Promise<string> => {
        const answer = await call("POST", "/v1/chat/completions", body);
        strictEqual(answer.status, 200, answer.text);
        return answer.request;
      };
      const payloads = (server: ServerUnderTest): readonly TrailEvent[] =>
        trailOf(server.dataDir).filter(({ type }) => type === "inference.payload");
      const keyOf = (server: ServerUnderTest, request: string): unknown =>
        payloads(server).find((event) => event.request === request)?.key;

      const [here, there] = [await chat(one), await chat(other)];
      strictEqual(keyOf(first, here), keyOf(second, there));
      const path = (request: string) => `/admin/v1/requests/${request}/payload`;
      const { input, output } = await expectStatus(one("GET", path(here)), 200);
      strictEqual(input.content.messages[0].parts[0].text, PROMPT);
      strictEqual(output.content.choices[0].text, "hello");
      // Each instance has a trail of its own.
      await expectStatus(other("GET", path(here)), 404);
      await expectStatus(other("GET", path(there)), 200);

      const subject = String(payloads(first)[0]?.subject);
      await expectStatus(other("DELETE", `/admin/v1/subjects/${subject}/payload-key`), 204);
      for (const [call, request] of [[one, here], [other, there]] as const) {
        const { detail } = await expectStatus(call("GET", path(request)), 404);
        ok(detail.includes("destroyed"), detail);
      }
      // What the other instance kept at hand it forgets within a second.
      await pause(1200);
      const [later, laterThere] = [await chat(one), await chat(other)];
      notStrictEqual(keyOf(first, later), keyOf(first, here));
      strictEqual(keyOf(first, later), keyOf(second, laterThere));
      await expectStatus(one("GET", path(later)), 200);

      for (const [index, { dataDir }] of servers.entries()) {
        strictEqual((await stop(index)).code, 0);
        deepStrictEqual(trailOf(dataDir).map(eventMistake).filter((mistake) => mistake !== undefined), []);
        ok(!Deno.readTextFileSync(`${dataDir}/audit/audit-000001.jsonl`).includes("flamingos"));
        await requireIntactTrail(dataDir);
      }
    });
  },
});
