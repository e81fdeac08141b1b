// Tests of answers in pieces: counted as they are sent, on record before they end, and stopped however they end.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { ChatEvent } from "../../src/engines/chat.ts";
import { Fault, type FaultKind } from "../../src/faults/fault.ts";
import { CHAT, openGateway, servedModel } from "./gateway_under_test.ts";

const LIMITS = servedModel({ id: "any" }).limits;
const TEXT = (text: string): ChatEvent => ({ type: "text", choice: 0, text });
const FINISH: ChatEvent = { type: "finish", choice: 0, reason: "stop" };
const USAGE: ChatEvent = { type: "usage", usage: { inputTokens: 11, outputTokens: 22, countedBy: "engine" } };
const isFault = (kind: FaultKind) => (thrown: unknown) => thrown instanceof Fault && thrown.kind === kind;

/** The one record of an end. */
function finished(records: unknown[]): Record<string, unknown> {
  const ends = records.filter((event) => (event as { type: string }).type === "inference.finished");
  strictEqual(ends.length, 1, JSON.stringify(records));
  return ends[0] as Record<string, unknown>;
}

Deno.test("a stream passes its pieces on as they come, and its outcome is on record before it says that it ended", async () => {
  const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
  engine("a").batches = [[TEXT("one")], [TEXT(" two"), FINISH], [USAGE]];
  const stream = await act.stream<"chat">("a", CHAT, context());
  deepStrictEqual([stream.servedBy, stream.model.id, records().length], ["upstream-of-a/m", "a", 1]);
  deepStrictEqual(await stream.next(), [TEXT("one")]);
  deepStrictEqual(await stream.next(), [TEXT(" two"), FINISH]);
  deepStrictEqual(await stream.next(), [USAGE]);
  strictEqual(records().length, 1);
  strictEqual(await stream.next(), undefined);
  deepStrictEqual(records(), [
    { type: "inference.started", model: "a", task: "chat", sha256: null, items: 1, decision: "allowed" },
    {
      type: "inference.finished",
      model: "a",
      sha256: null,
      outcome: "completed",
      inputTokens: 11,
      outputTokens: 22,
      countedBy: "engine",
      servedBy: "upstream-of-a/m",
      attempts: 1,
      durationMs: 0,
    },
  ]);
});

Deno.test("where the engine gives no figures, ours are sent as the last piece and recorded as an estimate", async () => {
  const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
  engine("a").batches = [[TEXT("one two three")], [FINISH]];
  const stream = await act.stream<"chat">("a", CHAT, context());
  await stream.next();
  await stream.next();
  const [owed] = await stream.next() ?? [];
  ok(owed?.type === "usage" && owed.usage.countedBy === "estimate");
  ok(owed.usage.outputTokens >= 3 && owed.usage.inputTokens >= 2, JSON.stringify(owed));
  strictEqual(await stream.next(), undefined);
  const { outputTokens, inputTokens, countedBy } = finished(records());
  deepStrictEqual([outputTokens, inputTokens, countedBy], [
    owed.usage.outputTokens,
    owed.usage.inputTokens,
    "estimate",
  ]);
});

Deno.test("of a stream that breaks, only what was sent is recorded, whatever figures the engine gave for the whole", async () => {
  const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
  engine("a").batches = [[TEXT("one")], [USAGE], new Fault("upstream_unreachable", "cut")];
  const stream = await act.stream<"chat">("a", CHAT, context());
  await stream.next();
  await stream.next();
  await rejects(stream.next(), isFault("upstream_unreachable"));
  const { outcome, outputTokens, countedBy } = finished(records());
  deepStrictEqual([outcome, outputTokens, countedBy], ["upstream-unreachable", 1, "estimate"]);
});

Deno.test("a client that leaves cancels the engine's stream, gives its place back, and the record says so once", async () => {
  const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
  for (let round = 0; round < 5; round++) {
    engine("a").batches = [[TEXT("one")], [TEXT("two")]];
    // Two places: a third stream would be refused if those before it had kept theirs.
    const stream = await act.stream<"chat">("a", CHAT, context());
    await stream.next();
    stream.cancel();
    stream.cancel();
    strictEqual(engine("a").cancelled, 2 * round + 2);
  }
  await new Promise((resolve) => setTimeout(resolve, 0));
  const ends = records().filter((event) => (event as { type: string }).type === "inference.finished");
  deepStrictEqual(ends.map((event) => (event as { outcome: string }).outcome), Array(5).fill("client-left"));
});

Deno.test("what fails before the first piece is thrown with its own kind, recorded, and holds no place", async () => {
  const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
  for (let round = 0; round < 4; round++) {
    engine("a").batches = [new Fault("upstream_timeout", "silent")];
    await rejects(act.stream<"chat">("a", CHAT, context()), isFault("upstream_timeout"));
  }
  strictEqual(records().length, 8);
});

Deno.test("stop() aborts what is under way with the fault of a server that stops", async () => {
  const { act, engine, context } = openGateway([servedModel({ id: "a" })]);
  const waits = Promise.withResolvers<readonly ChatEvent[] | undefined>();
  engine("a").batches = [[TEXT("one")], waits.promise];
  const stream = await act.stream<"chat">("a", CHAT, context());
  await stream.next();
  const { signal } = engine("a").bounds[0] ?? {};
  strictEqual(signal?.aborted, false);
  act.stop();
  ok(signal?.aborted && isFault("stopping")(signal.reason));
  waits.resolve(undefined);
  await rejects(stream.next(), isFault("stopping"));
});

Deno.test("another model of the same capability stands in where the first fails before anything was sent, and it is on record first", async () => {
  const models = [
    servedModel({ id: "a", fallbacks: ["embeds", "closed", "down", "b"] }),
    servedModel({ id: "embeds", capabilities: ["embedding"] }),
    servedModel({ id: "closed", access: { see: ["admin"], use: ["admin"], teams: null } }),
    servedModel({ id: "down" }),
    servedModel({ id: "b" }),
  ];
  const { act, engine, context, records } = openGateway(models);
  engine("a").batches = [new Fault("upstream_failed", "500")];
  engine("down").stateNow = "down";
  engine("b").batches = [[TEXT("from b")], [FINISH]];
  const stream = await act.stream<"chat">("a", CHAT, context());
  deepStrictEqual([stream.servedBy, stream.model.id], ["upstream-of-b/m", "a"]);
  deepStrictEqual(["embeds", "closed", "down"].map((id) => engine(id).asked.length), [0, 0, 0]);
  deepStrictEqual(records()[1], {
    type: "inference.rerouted",
    model: "a",
    to: "b",
    reason: "upstream-failed",
  });
  while (await stream.next() !== undefined);
  const { servedBy, attempts, outcome } = finished(records());
  deepStrictEqual([servedBy, attempts, outcome], ["upstream-of-b/m", 2, "completed"]);
});

Deno.test("a request that is wrong in itself, or whose time is over, is not tried on another model", async () => {
  for (
    const kind of [
      "input_refused",
      "context_length_exceeded",
      "deadline_exceeded",
      "client_left",
      "stopping",
    ] as const
  ) {
    const { act, engine, context } = openGateway([
      servedModel({ id: "a", fallbacks: ["b"] }),
      servedModel({ id: "b" }),
    ]);
    engine("a").batches = [new Fault(kind, "x")];
    await rejects(act.stream<"chat">("a", CHAT, context()), isFault(kind));
    strictEqual(engine("b").asked.length, 0, kind);
  }
});

Deno.test("a model that is down is not asked where another stands in, and refused without a start where none does", async () => {
  const { act, engine, context, records } = openGateway([
    servedModel({ id: "a", fallbacks: ["b"] }),
    servedModel({ id: "b" }),
  ]);
  engine("a").stateNow = "down";
  engine("b").batches = [[TEXT("b")], [FINISH]];
  const stream = await act.stream<"chat">("a", CHAT, context());
  strictEqual(stream.servedBy, "upstream-of-b/m");
  stream.cancel();
  await new Promise((resolve) => setTimeout(resolve, 0));
  engine("b").stateNow = "down";
  const before = records().length;
  await rejects(act.stream<"chat">("a", CHAT, context()), isFault("unavailable"));
  strictEqual(records().length, before);
});

Deno.test("an alias is the model: its id is on record and in the result", async () => {
  const { act, engine, context, records } = openGateway([servedModel({ id: "a", aliases: ["gpt-4o"] })]);
  engine("a").batches = [[TEXT("x")], [FINISH]];
  const stream = await act.stream<"chat">("gpt-4o", CHAT, context());
  strictEqual(stream.model.id, "a");
  strictEqual((records()[0] as { model: string }).model, "a");
  stream.cancel();
});

Deno.test("property: however a stream goes, it leaves one start and one outcome, and what was sent is what is counted", async () => {
  const end = fc.constantFrom<"well" | "broken" | "left">("well", "broken", "left");
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat({ max: 3 }), { minLength: 1, maxLength: 8 }),
      end,
      async (sizes, how) => {
        const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
        engine("a").batches = sizes.map((size) => Array.from({ length: size + 1 }, () => TEXT("word ")));
        if (how === "broken") engine("a").batches.push(new Fault("upstream_answer_invalid", "x"));
        const stream = await act.stream<"chat">("a", CHAT, context());
        let sent = 0;
        try {
          for (let index = 0;; index++) {
            if (how === "left" && index === Math.floor(sizes.length / 2)) {
              stream.cancel();
              break;
            }
            const items = await stream.next();
            if (items === undefined) break;
            sent += items.filter(({ type }) => type === "text").length;
          }
        } catch (thrown) {
          ok(how === "broken" && isFault("upstream_answer_invalid")(thrown));
        }
        await new Promise((resolve) => setTimeout(resolve, 0));
        const types = records().map((event) => (event as { type: string }).type);
        deepStrictEqual(types, ["inference.started", "inference.finished"]);
        const each = finished(records());
        const outcome = { well: "completed", broken: "upstream-answer-invalid", left: "client-left" }[how];
        strictEqual(each.outcome, outcome);
        // Every piece is one short word: a token or two each, and none that was not sent.
        ok(
          Number(each.outputTokens) >= sent && Number(each.outputTokens) <= 2 * sent,
          JSON.stringify([sent, each]),
        );
      },
    ),
    { numRuns: 50 },
  );
});

Deno.test("a stream that nobody reads ends by its deadline and by stop(): recorded, its place given back, and no good end after it", async () => {
  for (const kind of ["deadline_exceeded", "stopping"] as const) {
    const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
    engine("a").batches = [[TEXT("one")], [TEXT("two")]];
    const stream = await act.stream<"chat">(
      "a",
      CHAT,
      context({ deadlineMs: kind === "stopping" ? 30_000 : 5 }),
    );
    if (kind === "stopping") act.stop();
    while (records().length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
    const { outcome, outputTokens } = finished(records());
    deepStrictEqual([outcome, outputTokens, engine("a").cancelled], [kind.replace("_", "-"), 0, 1]);
    await rejects(stream.next(), isFault(kind));
    await rejects(stream.next(), isFault(kind));
    strictEqual(records().length, 2);
  }
});

Deno.test("what ends a stream from outside is on record by its own name", async () => {
  const { act, engine, context, records } = openGateway([servedModel({ id: "a" })]);
  engine("a").batches = [[TEXT("one")]];
  const stream = await act.stream<"chat">("a", CHAT, context());
  stream.cancel(new Fault("upstream_answer_invalid", "it cannot be written"));
  await new Promise((resolve) => setTimeout(resolve, 0));
  strictEqual(finished(records()).outcome, "upstream-answer-invalid");
});

Deno.test("a model stands in only for what its own settings allow, and with its own bounds", async () => {
  const { act, engine, context } = openGateway([
    servedModel({ id: "a", fallbacks: ["strict", "small", "b"], passFields: ["top_k"] }),
    servedModel({ id: "strict" }),
    servedModel({ id: "small", passFields: ["top_k"], limits: { ...LIMITS, outputTokensMax: 10 } }),
    servedModel({ id: "b", passFields: ["top_k"], limits: { ...LIMITS, outputTokensMax: 100 } }),
  ]);
  engine("a").batches = [new Fault("upstream_failed", "500")];
  engine("b").batches = [[TEXT("from b")], [FINISH]];
  const asked = { ...CHAT, extra: { top_k: 5 }, outputTokensMax: 50 };
  const stream = await act.stream<"chat">("a", asked, context());
  strictEqual(stream.servedBy, "upstream-of-b/m");
  // One does not let the field through, the other gives fewer tokens than were asked for.
  deepStrictEqual(["strict", "small"].map((id) => engine(id).asked.length), [0, 0]);
  stream.cancel();

  engine("a").batches = [new Fault("upstream_failed", "500")];
  engine("small").batches = [[TEXT("from small")], [FINISH]];
  const open = await act.stream<"chat">("a", { ...CHAT, extra: { top_k: 5 } }, context());
  strictEqual(open.servedBy, "upstream-of-small/m");
  const [request] = engine("small").asked;
  strictEqual(
    request?.task === "chat" && request.outputTokensMax,
    10,
    "nobody named a number: the stand-in's own",
  );
  open.cancel();
});
