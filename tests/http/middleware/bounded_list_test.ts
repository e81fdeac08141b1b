// Bounded list: how far a list is looked at, and that all it says of what it looked at is what a plain list says.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { z } from "@hono/zod-openapi";
import fc from "fast-check";
import { boundedList, MISTAKES_MAX } from "../../../src/http/middleware/bounded_list.ts";
import { chatMessagesSchema } from "../../../src/http/openai/chat_messages.ts";
import { responsesInputSchema } from "../../../src/http/openai/responses_input.ts";
import { messagesBody } from "../../../src/http/anthropic/messages_body.ts";

/** A list of numbers, and how many elements were looked at. */
function counted(max = 1000) {
  const looks = { count: 0 };
  const element = z.unknown().superRefine((value, context) => {
    looks.count++;
    if (typeof value !== "number") context.addIssue({ code: "custom", path: ["deep"], message: "no number" });
  });
  const plain = () => z.array(element).min(1, "too few").max(max, "too many");
  return { looks, plain: plain(), bounded: boundedList(plain()) };
}

Deno.test("OWASP API4: a list is looked at up to the last mistake that is told", () => {
  const { looks, bounded } = counted();
  const outcome = bounded.safeParse([1, ...Array(500).fill("x")]);
  strictEqual(looks.count, 1 + MISTAKES_MAX);
  deepStrictEqual(
    outcome.error?.issues.map(({ path }) => path),
    [1, 2, 3, 4, 5, 6, 7, 8].map((at) => [at, "deep"]),
  );
});

Deno.test("it stays bounded however often it was used, and with whatever", () => {
  const { plain, bounded } = counted(12);
  // After some calls the library swaps its parsers for quicker ones.
  for (let round = 0; round < 2000; round++) {
    const value = round % 3 === 0 ? Array(9).fill("x") : round % 3 === 1 ? [1, 2, 3] : { no: "list" };
    const [expected, actual] = [plain.safeParse(value), bounded.safeParse(value)];
    deepStrictEqual(actual.error?.issues, expected.error?.issues.slice(0, MISTAKES_MAX), `round ${round}`);
  }
});

Deno.test("no element is looked at of a list that is too long", () => {
  const { looks, bounded } = counted(10);
  deepStrictEqual(bounded.safeParse(Array(11).fill("x")).error?.issues.map(({ message }) => message), [
    "too many",
  ]);
  strictEqual(looks.count, 0);
});

Deno.test("a list says what a plain one says, but for mistakes beyond those that are told", () => {
  const { plain, bounded } = counted(12);
  const anything = fc.oneof(
    fc.array(fc.oneof({ weight: 3, arbitrary: fc.integer() }, fc.string(), fc.constant(null)), {
      maxLength: 14,
    }),
    fc.anything(),
  );
  fc.assert(
    fc.property(anything, (value) => {
      const [expected, actual] = [plain.safeParse(value), bounded.safeParse(value)];
      deepStrictEqual(actual.data, expected.data);
      deepStrictEqual(actual.error?.issues, expected.error?.issues.slice(0, MISTAKES_MAX));
      // Inside other schemas as well.
      const wrapped = z.strictObject({ list: z.union([z.literal("x"), bounded]).optional() });
      strictEqual(
        wrapped.safeParse({ list: value }).success,
        value === undefined || value === "x" || expected.success,
      );
    }),
    { numRuns: 1000 },
  );
});

Deno.test("OWASP API4: a conversation of nothing but wrong parts is given up after a few of them, in every dialect", () => {
  const dialects: [string, z.ZodType, (messages: unknown) => unknown][] = [
    ["chat", chatMessagesSchema(new Set()), (messages) => messages],
    ["responses", responsesInputSchema(new Set()), (messages) => messages],
    ["messages", messagesBody(new Set()), (messages) => ({ model: "m", max_tokens: 1, messages })],
  ];
  for (const [name, schema, bodyOf] of dialects) {
    let looks = 0;
    const part = new Proxy({ type: "x" }, {
      get(target, member) {
        if (member === "type") looks++;
        return Reflect.get(target, member);
      },
    });
    const messages = Array(500).fill({ role: "user", content: Array(500).fill(part) });
    strictEqual(schema.safeParse(bodyOf(messages)).success, false, name);
    ok(looks > 0 && looks <= 20 * MISTAKES_MAX ** 2, `${name}: ${looks} looks at 250,000 parts`);
  }
});
