// Tests of what is kept of inferences: durable before the model computes and before the answer leaves, or neither happens.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { keptParts, type PayloadPolicy } from "../../src/audit/payload/payload_policy.ts";
import { payloadsIn } from "../../src/audit/payload/payload_record.ts";
import { openPayload, PAYLOAD_BYTES_MAX } from "../../src/audit/payload/payload_seal.ts";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import type { ChatEvent, ChatRequest } from "../../src/engines/chat.ts";
import { Fault, type FaultKind } from "../../src/faults/fault.ts";
import { DEFAULT_CAPS } from "../../src/access/request_caps.ts";
import { CHAT, openGateway, servedModel } from "./gateway_under_test.ts";

const KEY = { id: "someone.pay_1", raw: new Uint8Array(32).fill(3) };
const BOTH: readonly PayloadPolicy[] = [{ parts: ["input", "output"] }];
const USAGE = { inputTokens: 1, outputTokens: 2, countedBy: "engine" } as const;
const ANSWER = {
  choices: [{ text: "an answer", reasoning: "", toolCalls: [], finish: "stop" }],
  usage: USAGE,
};
const TEXT = (text: string): ChatEvent => ({ type: "text", choice: 0, text });
const FINISH: ChatEvent = { type: "finish", choice: 0, reason: "stop" };
const isFault = (kind: FaultKind) => (thrown: unknown) => thrown instanceof Fault && thrown.kind === kind;

/** The gateway with models and policies; each key that is asked for is noted. */
function open(policies: readonly PayloadPolicy[], ...ids: string[]) {
  const asked: string[] = [];
  const own = { store: true };
  const models = ids.map((id, index) =>
    servedModel({ id, ...(index === 0 ? { fallbacks: ids.slice(1) } : {}) })
  );
  const gateway = openGateway(models, DEFAULT_CAPS, {
    partsOf: (model, { roles }) => keptParts(policies, model, roles),
    keyOf(issuer, subject) {
      asked.push(`${issuer} ${subject}`);
      return own.store ? Promise.resolve(KEY) : Promise.reject(new Fault("unavailable", "no store"));
    },
  });
  for (const id of ids) gateway.engine(id).answer = () => Promise.resolve(ANSWER);
  return { ...gateway, asked, own };
}

/** The payloads of a trail, opened. */
function opened(events: readonly AuditEvent[]) {
  return payloadsIn(events as unknown as readonly Readonly<Record<string, JsonValue>>[]).map((payload) => {
    const text = openPayload(KEY, { request: "req_1", part: payload.part }, payload);
    return { part: payload.part, model: payload.model, cut: payload.cut, text };
  });
}

const typesOf = (events: readonly AuditEvent[]) => events.map(({ type }) => type);

Deno.test("what is asked is durable before the engine is called, and what is answered before the answer leaves", async () => {
  const { act, engine, context, trail } = open(BOTH, "a");
  let seen: readonly string[] = [];
  engine("a").answer = () => {
    seen = typesOf(trail.events);
    return Promise.resolve(ANSWER);
  };
  await act.run<"chat">("a", CHAT, context());
  deepStrictEqual(seen, ["inference.payload", "inference.started"]);
  deepStrictEqual(typesOf(trail.events), [
    "inference.payload",
    "inference.started",
    "inference.payload",
    "inference.finished",
  ]);
  const [input, output] = opened(trail.events);
  deepStrictEqual([input?.part, input?.model, input?.cut], ["input", "a", false]);
  deepStrictEqual(JSON.parse(input?.text ?? ""), JSON.parse(JSON.stringify(CHAT)));
  deepStrictEqual(JSON.parse(output?.text ?? ""), { choices: ANSWER.choices });
  ok(!JSON.stringify(trail.events).includes("an answer") && !JSON.stringify(trail.events).includes("hello"));
});

Deno.test("without a policy that fits, no key is asked for and nothing is kept", async () => {
  for (
    const policies of [[], [{ models: ["b"], parts: ["input"] }], [{ roles: ["admin"], parts: ["input"] }]]
  ) {
    const { act, context, trail, asked } = open(policies as PayloadPolicy[], "a");
    await act.run<"chat">("a", CHAT, context());
    deepStrictEqual(typesOf(trail.events), ["inference.started", "inference.finished"]);
    deepStrictEqual(asked, []);
  }
});

Deno.test("a policy keeps the parts that it names, of the roles and models that it names", async () => {
  for (const part of ["input", "output"] as const) {
    const { act, context, trail, asked } = open([{ models: ["a*"], roles: ["us*"], parts: [part] }], "a");
    await act.run<"chat">("a", CHAT, context());
    deepStrictEqual(opened(trail.events).map((payload) => payload.part), [part]);
    strictEqual(asked.length, 1);
  }
});

Deno.test("where the payload's key cannot be had, or the payload not be recorded, no model runs and the place is given back", async () => {
  const { act, engine, context, trail, own } = open(BOTH, "a");
  own.store = false;
  for (let times = 0; times < 5; times++) {
    await rejects(act.run<"chat">("a", CHAT, context()), isFault("unavailable"));
  }
  own.store = true;
  trail.setFailing(true);
  for (let times = 0; times < 5; times++) {
    await rejects(act.run<"chat">("a", CHAT, context()), isFault("unavailable"));
    await rejects(act.stream<"chat">("a", CHAT, context()), isFault("unavailable"));
  }
  deepStrictEqual([engine("a").asked.length, trail.events.length, act.underWay()], [0, 0, 0]);
  trail.setFailing(false);
  // Two places a user.
  await act.run<"chat">("a", CHAT, context());
});

Deno.test("a whole answer that cannot be recorded does not leave", async () => {
  const { act, engine, context, trail } = open([{ parts: ["output"] }], "a");
  engine("a").answer = () => {
    trail.setFailing(true);
    return Promise.resolve(ANSWER);
  };
  await rejects(act.run<"chat">("a", CHAT, context()), isFault("unavailable"));
  deepStrictEqual(typesOf(trail.events), ["inference.started"]);
});

Deno.test("of an answer in pieces, what was sent is kept with the outcome, however it ends", async () => {
  const ends = {
    well: { batches: [[TEXT("one")], [TEXT(" two"), FINISH]], kept: "one two", finish: "stop" },
    broken: {
      batches: [[TEXT("one")], new Fault("upstream_unreachable", "cut")],
      kept: "one",
      finish: null,
    },
  };
  for (const [name, { batches, kept, finish }] of Object.entries(ends)) {
    const { act, engine, context, trail } = open(BOTH, "a");
    engine("a").batches = batches;
    const stream = await act.stream<"chat">("a", CHAT, context());
    try {
      while (await stream.next() !== undefined);
    } catch {
      strictEqual(name, "broken");
    }
    const [, output] = opened(trail.events);
    deepStrictEqual(JSON.parse(output?.text ?? ""), {
      choices: [{ text: kept, reasoning: "", finish, toolCalls: [] }],
    });
    deepStrictEqual(typesOf(trail.events).slice(-2), ["inference.payload", "inference.finished"]);
  }
});

Deno.test("of a stream whose client leaves, what it was sent is kept, and nothing where it was sent nothing", async () => {
  const { act, engine, context, trail } = open(BOTH, "a");
  engine("a").batches = [[TEXT("one")], [TEXT(" two")]];
  const stream = await act.stream<"chat">("a", CHAT, context());
  await stream.next();
  stream.cancel();
  const none = await act.stream<"chat">("a", CHAT, context({ record: context().record }));
  none.cancel();
  await new Promise((resolve) => setTimeout(resolve, 0));
  const outputs = opened(trail.events).filter(({ part }) => part === "output");
  deepStrictEqual(outputs.map(({ text }) => JSON.parse(text).choices[0].text), ["one"]);
  strictEqual(typesOf(trail.events).filter((type) => type === "inference.finished").length, 2);
});

Deno.test("more than the bound of a part is cut, in the input and in what was sent", async () => {
  const { act, engine, context, trail } = open(BOTH, "a");
  const long = "wörter ".repeat(200_000);
  const asked: ChatRequest = { ...CHAT, messages: [{ role: "user", parts: [{ type: "text", text: long }] }] };
  engine("a").batches = [...Array.from({ length: 20 }, () => [TEXT("y".repeat(100_000))]), [FINISH]];
  const stream = await act.stream<"chat">("a", asked, context());
  while (await stream.next() !== undefined);
  const [input, output] = opened(trail.events);
  deepStrictEqual([input?.cut, output?.cut], [true, true]);
  const bytes = new TextEncoder().encode(input?.text).length;
  ok(bytes <= PAYLOAD_BYTES_MAX && bytes > PAYLOAD_BYTES_MAX - 4);
  ok(JSON.stringify(asked).startsWith((input?.text ?? "").slice(0, 1000)));
  ok((output?.text.length ?? 0) > 1_000_000);
});

Deno.test("where another model stands in, what is kept of it is durable before it runs, once", async () => {
  const failing = () => Promise.reject(new Fault("upstream_failed", "no"));
  for (
    const [models, types] of [
      [["b"], ["started", "payload", "rerouted", "payload", "finished"]],
      [["a"], ["payload", "started", "rerouted", "payload", "finished"]],
      [["a", "b"], ["payload", "started", "rerouted", "payload", "finished"]],
    ] as const
  ) {
    const { act, engine, context, trail } = open([{ models, parts: ["input", "output"] }], "a", "b");
    engine("a").answer = failing;
    let atRun: readonly string[] = [];
    engine("b").answer = () => {
      atRun = typesOf(trail.events);
      return Promise.resolve(ANSWER);
    };
    await act.run<"chat">("a", CHAT, context());
    deepStrictEqual(typesOf(trail.events), types.map((type) => `inference.${type}`));
    strictEqual(atRun.length, 3);
    strictEqual(opened(trail.events).at(-1)?.model, "b");
  }
});

Deno.test("a model that fails leaves its input and no output", async () => {
  const { act, engine, context, trail } = open(BOTH, "a");
  engine("a").answer = () => Promise.reject(new Fault("input_refused", "no"));
  await rejects(act.run<"chat">("a", CHAT, context()), isFault("input_refused"));
  deepStrictEqual(opened(trail.events).map(({ part }) => part), ["input"]);
});
