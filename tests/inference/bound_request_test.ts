// Tests of the bounds of one request: the model's own, the caller's by role, and what is filled in.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { capsOf, DEFAULT_CAPS, type RequestCaps } from "../../src/access/request_caps.ts";
import type { ChatRequest } from "../../src/engines/chat.ts";
import type { TaskRequest } from "../../src/engines/task.ts";
import { Fault } from "../../src/faults/fault.ts";
import { boundRequest } from "../../src/inference/bound_request.ts";
import type { ServedModel } from "../../src/registry/served_model.ts";
import { CHAT, servedModel } from "./gateway_under_test.ts";
import { principal } from "./parts_under_test.ts";

const CAPS: RequestCaps = {
  outputTokensMax: 100,
  choicesMax: 2,
  stopSequencesMax: 1,
  imagesMax: 1,
  toolsMax: 1,
};
const LIMITS = servedModel({ id: "x" }).limits;

function refusalOf(
  request: TaskRequest,
  caps = CAPS,
  limits: Partial<ServedModel["limits"]> = {},
): Fault | undefined {
  try {
    boundRequest(request, servedModel({ id: "x", limits: { ...LIMITS, ...limits } }), caps);
    return undefined;
  } catch (thrown) {
    ok(thrown instanceof Fault);
    return thrown;
  }
}

const placesOf = (request: TaskRequest, caps = CAPS, limits: Partial<ServedModel["limits"]> = {}) =>
  refusalOf(request, caps, limits)?.details.fields?.map(({ path }) => path);

const image = { type: "image", url: "data:image/png;base64,AA==" } as const;

Deno.test("each cap holds exactly, and names its field in neutral words", () => {
  const tool = { name: "f" };
  const cases: readonly [string, (count: number) => Partial<ChatRequest>, number][] = [
    ["/outputTokensMax", (count) => ({ outputTokensMax: count }), 100],
    ["/choices", (count) => ({ choices: count }), 2],
    ["/stop", (count) => ({ stop: Array(count).fill("x") }), 1],
    ["/tools", (count) => ({ tools: Array(count).fill(tool) }), 1],
    ["/images", (count) => ({ messages: [{ role: "user", parts: Array(count).fill(image) }] }), 1],
  ];
  for (const [path, make, max] of cases) {
    strictEqual(placesOf({ ...CHAT, ...make(max) }), undefined, path);
    deepStrictEqual(placesOf({ ...CHAT, ...make(max + 1) }), [path]);
  }
});

Deno.test("pictures in results of tools count as well", () => {
  const messages = [{ role: "tool", toolCallId: "1", parts: [image, image] }] as const;
  deepStrictEqual(placesOf({ ...CHAT, messages }), ["/images"]);
});

Deno.test("the cap on output is filled in where the caller names none: the smaller of the role's and the model's", () => {
  const bound = (caps: number | null, model: number | null, asked?: number) =>
    boundRequest(
      { ...CHAT, ...(asked === undefined ? {} : { outputTokensMax: asked }) },
      servedModel({ id: "x", limits: { ...LIMITS, outputTokensMax: model } }),
      { ...CAPS, outputTokensMax: caps },
    ).outputTokensMax;
  deepStrictEqual([bound(100, 50), bound(50, 100), bound(null, 70), bound(70, null)], [50, 50, 70, 70]);
  deepStrictEqual([bound(null, null), bound(100, 50, 30)], [undefined, 30]);
});

Deno.test("a conversation far beyond the model's context is refused before any call; one near it is the engine's to decide", () => {
  const saying = (words: number) => ({
    ...CHAT,
    messages: [{ role: "user", parts: [{ type: "text", text: "word ".repeat(words) }] }] as const,
  });
  strictEqual(
    refusalOf(saying(2000), DEFAULT_CAPS, { contextTokensMax: 1000 })?.kind,
    "context_length_exceeded",
  );
  strictEqual(refusalOf(saying(900), DEFAULT_CAPS, { contextTokensMax: 1000 }), undefined);
  strictEqual(
    refusalOf({ ...saying(10), outputTokensMax: 2000 }, DEFAULT_CAPS, { contextTokensMax: 1000 })?.kind,
    "context_length_exceeded",
  );
});

Deno.test("texts of every task are counted and measured", () => {
  const long = "x".repeat(1001);
  const five = Array(5).fill("a");
  deepStrictEqual(placesOf({ task: "embedding", texts: five }), ["/texts"]);
  deepStrictEqual(placesOf({ task: "moderation", texts: ["a", long] }), ["/texts/1"]);
  deepStrictEqual(placesOf({ task: "rerank", query: long, documents: ["a"] }), ["/query"]);
  deepStrictEqual(placesOf({ task: "rerank", query: "a", documents: ["a", long] }), ["/documents/1"]);
  deepStrictEqual(placesOf({ task: "image", prompt: long, images: 1, extra: {} }), ["/prompt"]);
  deepStrictEqual(placesOf({ task: "image", prompt: "a", images: 2, extra: {} }), ["/images"]);
  deepStrictEqual(placesOf({ task: "speech", text: long, voice: "a", format: "mp3" }), ["/text"]);
  const prompts = { task: "completion", stop: [], choices: 1, extra: {} } as const;
  deepStrictEqual(placesOf({ ...prompts, prompts: ["a", long] }), ["/prompts/1"]);
  deepStrictEqual(placesOf({ ...prompts, prompts: ["a", "b"], choices: 2 }), ["/choices"]);
});

Deno.test("of several roles the most generous cap holds, each for itself; no role has none of anything", () => {
  const of = (outputTokensMax: number | null, imagesMax: number): RequestCaps => ({
    ...CAPS,
    outputTokensMax,
    imagesMax,
  });
  const caps = { admin: of(null, 0), operator: of(10, 5), auditor: of(1, 1), user: of(20, 2) };
  const seen = (...roles: string[]) => {
    const { outputTokensMax, imagesMax } = capsOf(principal(...roles), caps);
    return [outputTokensMax, imagesMax];
  };
  deepStrictEqual(seen("user"), [20, 2]);
  deepStrictEqual(seen("user", "operator"), [20, 5]);
  deepStrictEqual(seen("user", "admin"), [null, 2]);
  deepStrictEqual([seen(), seen("no-such-role")], [[0, 0], [0, 0]]);
});
