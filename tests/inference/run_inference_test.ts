// Tests of running an inference: nothing is computed that was not recorded first, and every start has one outcome.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault, type FaultKind } from "../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../src/faults/fault_table.ts";
import { CHARACTERS_MAX, openInferenceUnderTest, principal, TEXTS_MAX } from "./parts_under_test.ts";

function isFault(kind: FaultKind): (thrown: unknown) => true {
  return (thrown) => {
    ok(thrown instanceof Fault, String(thrown));
    strictEqual(thrown.kind, kind);
    return true;
  };
}

const BOTH = (outcome: string) => ["inference.started", `inference.finished ${outcome}`];

Deno.test("an inference gives the engine's vectors, its count of tokens and the model", async () => {
  const { run, engine } = openInferenceUnderTest();
  const result = await run({ texts: ["a", "b", ""] });
  deepStrictEqual(result.answer.vectors, new Float32Array(6).fill(0.5));
  deepStrictEqual([result.answer.usage.inputTokens, result.model.id, result.servedBy], [21, "open", null]);
  deepStrictEqual(engine.asked, [["a", "b", ""]]);
});

Deno.test("the engine gets a signal that aborts when the caller leaves, and the deadline", async () => {
  const { run, engine } = openInferenceUnderTest();
  const client = new AbortController();
  const behave = engine.behave;
  const seen: unknown[] = [];
  engine.behave = (texts, bounds) => {
    client.abort();
    seen.push(bounds.signal.aborted, bounds.deadlineMs);
    return behave(texts, bounds);
  };
  await run({}, { signal: client.signal, deadlineMs: 1234 });
  deepStrictEqual(seen, [true, 1234]);
});

Deno.test("ASVS V16.2.1: the records tell who, where, what and how much, and nothing of the texts", async () => {
  const { run, engine, trail, clock } = openInferenceUnderTest();
  const behave = engine.behave;
  engine.behave = (texts, bounds) => {
    clock.advance(12.4);
    clock.jumpWall(-1_000_000); // durations are of the monotonic clock
    return behave(texts, bounds);
  };
  await run({ texts: ["prive", "texts"] });
  const requester = {
    request: "req_1",
    address: "192.0.2.1",
    route: "POST /x",
    issuer: "https://ai.example.com",
    subject: "usr_1",
    team: "default",
    credential: "tok_1",
  };
  deepStrictEqual(trail.events, [
    {
      type: "inference.started",
      ...requester,
      model: "open",
      task: "embedding",
      sha256: "ab".repeat(32),
      items: 2,
      decision: "allowed",
    },
    {
      type: "inference.finished",
      ...requester,
      model: "open",
      sha256: "ab".repeat(32),
      outcome: "completed",
      inputTokens: 14,
      outputTokens: 0,
      countedBy: "engine",
      servedBy: null,
      attempts: 0,
      durationMs: 12,
    },
  ]);
  ok(!JSON.stringify(trail.events).includes("prive"));
});

Deno.test("the intent is durable before the engine is called", async () => {
  const { run, engine, summary } = openInferenceUnderTest();
  const behave = engine.behave;
  let seen: string[] = [];
  engine.behave = (texts, bounds) => {
    seen = summary();
    return behave(texts, bounds);
  };
  await run();
  deepStrictEqual(seen, ["inference.started"]);
});

Deno.test("ASVS V16.5.3: where the intent cannot be recorded the engine is not called, and the caller gets a fault", async () => {
  const { run, engine, trail, summary } = openInferenceUnderTest();
  trail.setFailing(true);
  await rejects(run(), isFault("unavailable"));
  deepStrictEqual([engine.asked, summary()], [[], []]);
  trail.setFailing(false);
  await run();
  deepStrictEqual(summary(), BOTH("completed"));
});

Deno.test("a result whose outcome cannot be recorded does not leave", async () => {
  const { run, engine, trail, summary } = openInferenceUnderTest();
  const behave = engine.behave;
  engine.behave = (texts, bounds) => {
    trail.setFailing(true);
    return behave(texts, bounds);
  };
  await rejects(run(), isFault("unavailable"));
  deepStrictEqual([engine.asked.length, summary()], [1, ["inference.started"]]);
});

Deno.test("the result leaves after the record of it, not before", async () => {
  const { run, trail, summary } = openInferenceUnderTest();
  const record = trail.record;
  const { promise, resolve } = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  let left = false;
  trail.record = async (event) => {
    if (event.type === "inference.finished") {
      reached.resolve();
      await promise;
    }
    await record(event);
  };
  const result = run().then(() => left = true);
  await reached.promise;
  await new Promise((settle) => setTimeout(settle, 0));
  strictEqual(left, false);
  resolve();
  await result;
  deepStrictEqual(summary(), BOTH("completed"));
});

Deno.test("each fault of the engine reaches the caller as it is, with its code as the outcome", async () => {
  for (const kind of Object.keys(FAULT_TABLE) as FaultKind[]) {
    const { run, engine, summary } = openInferenceUnderTest();
    const fault = new Fault(kind, "of the engine", { fields: [{ path: "/0", message: "x" }] });
    engine.behave = () => Promise.reject(fault);
    await rejects(run(), (thrown) => thrown === fault);
    deepStrictEqual(summary(), BOTH(FAULT_TABLE[kind].code), kind);
  }
});

Deno.test("ASVS V16.5.4: whatever else an engine throws, at once or later, is recorded as internal and thrown on", async () => {
  for (const thrown of [new TypeError("of the engine"), "a text", undefined, null, { kind: "forbidden" }]) {
    for (const atOnce of [true, false]) {
      const { run, engine, summary } = openInferenceUnderTest();
      engine.behave = () => {
        if (atOnce) throw thrown;
        return Promise.reject(thrown);
      };
      const outcome = await Promise.allSettled([run()]);
      deepStrictEqual(outcome, [{ status: "rejected", reason: thrown }]);
      deepStrictEqual(summary(), BOTH("internal"));
    }
  }
});

Deno.test("where the outcome of a failed run cannot be recorded either, the caller gets the trail's fault", async () => {
  const { run, engine, trail } = openInferenceUnderTest();
  engine.behave = () => {
    trail.setFailing(true);
    return Promise.reject(new Fault("fields_invalid", "of the engine"));
  };
  await rejects(run(), isFault("unavailable"));
});

Deno.test("what is refused before it starts leaves no start, no outcome and no call", async () => {
  for (
    const [kind, request, roles] of [
      ["model_not_found", { modelId: "no-such-model" }, ["user"]],
      ["model_not_found", { modelId: "hidden" }, ["user"]],
      ["forbidden", { modelId: "guarded" }, ["user"]],
      ["forbidden", {}, ["auditor"]],
      ["unavailable", { modelId: "broken" }, ["user"]],
      ["unavailable", { modelId: "engineless" }, ["user"]],
      ["fields_invalid", { texts: Array(TEXTS_MAX + 1).fill("a") }, ["user"]],
      ["fields_invalid", { texts: ["a", "x".repeat(CHARACTERS_MAX + 1)] }, ["user"]],
    ] as const
  ) {
    const { run, engine, summary } = openInferenceUnderTest();
    await rejects(run(request, { principal: principal(...roles) }), isFault(kind));
    deepStrictEqual([engine.asked, summary()], [[], []], kind);
  }
});

Deno.test("an engine that is not ready is not called; the caller is told to come back", async () => {
  for (const state of ["warming", "down", "failed", "closed"] as const) {
    const { run, engine, summary } = openInferenceUnderTest();
    engine.stateNow = state;
    await rejects(run(), (thrown) => {
      isFault("unavailable")(thrown);
      ok(thrown instanceof Fault);
      deepStrictEqual([thrown.details.detail, thrown.details.retryAfterSeconds], [
        "The model is not ready.",
        2,
      ]);
      return true;
    });
    deepStrictEqual([engine.asked, summary()], [[], []]);
  }
});

Deno.test("ASVS V8.2.2: access is decided before limits: who may not use a model learns nothing of its limits", async () => {
  const { run } = openInferenceUnderTest();
  const texts = Array(TEXTS_MAX + 1).fill("x".repeat(CHARACTERS_MAX + 1));
  await rejects(run({ modelId: "hidden", texts }), isFault("model_not_found"));
  await rejects(run({ modelId: "guarded", texts }), isFault("forbidden"));
});

Deno.test("OWASP API4: the card's limits hold exactly, and name the text that breaks them", async () => {
  const { run } = openInferenceUnderTest();
  await run({ texts: Array(TEXTS_MAX).fill("x".repeat(CHARACTERS_MAX)) });
  const fieldsOf = async (texts: readonly string[]) => {
    const [outcome] = await Promise.allSettled([run({ texts })]);
    ok(outcome.status === "rejected" && outcome.reason instanceof Fault);
    return outcome.reason.details.fields;
  };
  deepStrictEqual(await fieldsOf(Array(TEXTS_MAX + 1).fill("a")), [
    { path: "/texts", message: "has 4 texts; at most 3 are allowed" },
  ]);
  deepStrictEqual(await fieldsOf(["a", "x".repeat(CHARACTERS_MAX + 1), "b"]), [
    { path: "/texts/1", message: "has 6 characters; at most 5 are allowed" },
  ]);
  // UTF-16 units, as the card says: three of these are six.
  deepStrictEqual(await fieldsOf(["😀😀😀"]), [{
    path: "/texts/0",
    message: "has 6 characters; at most 5 are allowed",
  }]);
});

Deno.test("property: of any mixture at once, every start has one outcome and every call a start", async () => {
  const kind = fc.constantFrom<FaultKind | "good">(
    "good",
    "overloaded",
    "deadline_exceeded",
    "client_left",
    "internal",
  );
  const fate = fc.record({ kind, laterMs: fc.constantFrom(undefined, 0, 1) });
  await fc.assert(
    fc.asyncProperty(fc.array(fate, { maxLength: 20 }), async (fates) => {
      const { run, engine, summary } = openInferenceUnderTest();
      const good = engine.behave;
      engine.behave = async (texts, bounds) => {
        const { kind, laterMs } = fates[engine.asked.length - 1] ?? { kind: "good", laterMs: undefined };
        if (laterMs !== undefined) await new Promise((resolve) => setTimeout(resolve, laterMs));
        if (kind === "good") return await good(texts, bounds);
        throw new Fault(kind, "of the engine");
      };
      await Promise.allSettled(fates.map(() => run()));
      const events = summary();
      strictEqual(engine.asked.length, fates.length);
      strictEqual(events.filter((event) => event === "inference.started").length, fates.length);
      deepStrictEqual(
        events.filter((event) => event !== "inference.started").sort(),
        fates.map(({ kind }) =>
          `inference.finished ${kind === "good" ? "completed" : FAULT_TABLE[kind].code}`
        ).sort(),
      );
    }),
    { numRuns: 30 },
  );
});
