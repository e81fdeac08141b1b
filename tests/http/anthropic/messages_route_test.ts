// Anthropic's routes: what they are, which models they take, and that no body breaks them.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../../src/faults/fault.ts";
import { anthropicRoutes } from "../../../src/http/anthropic/anthropic_routes.ts";
import { bodyWith, fakeDoor, HELLO } from "./fake_door.ts";

Deno.test("both routes demand the right to infer, are rated, and take the bodies that carry images", () => {
  const routes = anthropicRoutes({ door: {} as never, imageHosts: new Set(), mediaBodyBytesMax: 77 });
  deepStrictEqual(
    routes.map(({ method, path, policy, rated, bodyBytesMax, dialect }) => [
      `${method} ${path}`,
      policy,
      rated,
      bodyBytesMax,
      dialect.name,
    ]),
    ["/v1/messages", "/v1/messages/count_tokens"].map((path) => [
      `POST ${path}`,
      { kind: "action", action: "model:infer" },
      true,
      77,
      "anthropic",
    ]),
  );
});

for (const path of ["/v1/messages", "/v1/messages/count_tokens"]) {
  const body = (fields: object = {}) => ({ model: "m1", messages: HELLO, ...fields });
  const sent = path === "/v1/messages" ? bodyWith : body;

  Deno.test(`${path} refuses models that are unknown or cannot chat, before anything is run or recorded`, async () => {
    const fake = fakeDoor({ model: { capabilities: ["embedding"] } });
    for (const [model, kind] of [["other", "model_not_found"], ["m1", "capability_missing"]]) {
      await rejects(
        fake.send(path, sent({ model })),
        (thrown) => thrown instanceof Fault && thrown.kind === kind,
      );
    }
    deepStrictEqual([fake.requests, fake.allowed], [[], []]);
  });

  Deno.test(`${path} lets through what the model's settings do, and no other field`, async () => {
    strictEqual((await fakeDoor().send(path, sent({ min_p: 0.1 }))).status, 200);
    await rejects(
      fakeDoor().send(path, sent({ min_q: 0.1 })),
      (thrown) => thrown instanceof Fault && thrown.details.fields?.[0]?.path === "/min_q",
    );
  });

  Deno.test(`${path} answers any JSON with an answer or a fault about the request (property)`, async () => {
    const anyBlock = fc.oneof(
      fc.jsonValue(),
      fc.record({
        type: fc.constantFrom("text", "image", "tool_use", "tool_result", "thinking", "document"),
        text: fc.jsonValue(),
        source: fc.jsonValue(),
        id: fc.constantFrom("a", "b"),
        tool_use_id: fc.constantFrom("a", "b"),
        name: fc.string(),
        input: fc.jsonValue(),
        content: fc.jsonValue(),
      }, { requiredKeys: ["type"] }),
    );
    const anyMessage = fc.record({
      role: fc.oneof(fc.constantFrom("user", "assistant", "system"), fc.string()),
      content: fc.oneof(fc.string(), fc.array(anyBlock, { maxLength: 3 })),
    });
    const anyBody = fc.oneof(
      { weight: 1, arbitrary: fc.jsonValue() },
      {
        weight: 4,
        arbitrary: fc.record({
          model: fc.oneof(fc.constant("m1"), fc.jsonValue()),
          messages: fc.oneof(fc.array(anyMessage, { maxLength: 3 }), fc.jsonValue()),
          max_tokens: fc.oneof(fc.constant(10), fc.jsonValue()),
          system: fc.jsonValue(),
          tools: fc.jsonValue(),
          tool_choice: fc.jsonValue(),
          thinking: fc.jsonValue(),
          output_config: fc.jsonValue(),
          stop_sequences: fc.jsonValue(),
        }, { requiredKeys: ["model", "messages", "max_tokens"] }),
      },
    );
    const fake = fakeDoor();
    await fc.assert(
      fc.asyncProperty(anyBody, async (body) => {
        const response = await fake.answer(path, JSON.parse(JSON.stringify(body)));
        const answer = await response.json();
        if (response.status === 200) ok(answer.type === "message" || answer.input_tokens > 0);
        else {
          ok([404, 422].includes(response.status));
          ok(answer.type === "error" && answer.error.message !== "");
        }
      }),
      { numRuns: 500 },
    );
  });
}
