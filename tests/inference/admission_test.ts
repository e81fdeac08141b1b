// Tests of admission: all limits in one decision, what is reserved, and what is charged however an inference ends.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { Principal } from "../../src/access/principal.ts";
import { DEFAULT_CAPS } from "../../src/access/request_caps.ts";
import { memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { RequestRecord } from "../../src/audit/request_record.ts";
import type { ChatEvent, ChatRequest } from "../../src/engines/chat.ts";
import { createEngineTable } from "../../src/engines/engine_table.ts";
import type { TaskRequest } from "../../src/engines/task.ts";
import type { Usage } from "../../src/engines/usage.ts";
import { Fault } from "../../src/faults/fault.ts";
import { type AdmissionContext, openAdmission } from "../../src/inference/admission.ts";
import { countChatTokens } from "../../src/inference/count_tokens.ts";
import { type InferenceContext, openRunInference } from "../../src/inference/run_inference.ts";
import { type LimitPolicy, type LimitView, readyPolicies } from "../../src/limits/limit_policy.ts";
import type { LimitCell } from "../../src/limits/limit_store.ts";
import { openLimiter } from "../../src/limits/limiter.ts";
import { openMemoryLimitStore } from "../../src/limits/memory_limit_store.ts";
import { readUsage, type UsageRow, type UsedAmounts } from "../../src/limits/usage_book.ts";
import type { ServedModel } from "../../src/registry/served_model.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { principalOf } from "../access/principal_of.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";
import { CHAT, servedModel, ToldEngine } from "./gateway_under_test.ts";

const NOW_MS = Date.UTC(2026, 10, 22, 12);
const DAY = "2026-11-22";
const USER = "https://ai.example.com usr_1";
const DEADLINE_MS = 30_000;
const RATE = 100;
const BOUNDED: ChatRequest = { ...CHAT, outputTokensMax: 100 };
/** What is reserved for the question of `CHAT`. */
const INPUT_RESERVED = Math.ceil(countChatTokens(CHAT.messages, CHAT.tools) * 1.25) + 16;
const RESERVED = INPUT_RESERVED + 100;
const PRICES = { inputPerMillion: 2.5, outputPerMillion: 10 };
const USAGE: Usage = { inputTokens: 7, outputTokens: 5, countedBy: "engine" };
const ANSWER = { choices: [{ text: "hi", reasoning: "", toolCalls: [], finish: "stop" }], usage: USAGE };
const TEXT = (text: string): ChatEvent => ({ type: "text", choice: 0, text });

const ALL: LimitPolicy = {
  name: "all",
  subject: "user",
  for: {},
  requestsPerMinute: 10,
  tokensPerMinute: 10_000,
  requestsAtOnce: 3,
  requestsPerDay: 50,
  requestsPerMonth: 500,
  tokensPerDay: 20_000,
  tokensPerMonth: 100_000,
  costPerDay: 5,
  costPerMonth: 50,
};

/** The act over models that answer as they are told, with real limits; `calls` is what their store was asked. */
function openLimited(
  policies: readonly LimitPolicy[],
  models: readonly ServedModel[] = [servedModel({ id: "m", aliases: ["gpt-4o"], prices: PRICES })],
  placesPerUser = 5,
) {
  const clock = manualClock(NOW_MS);
  const trail = memoryAuditTrail();
  let logged = "";
  const log = openLog({
    level: "warn",
    clock,
    sink(bytes) {
      logged += new TextDecoder().decode(bytes);
      return Promise.resolve(bytes.length);
    },
  });
  const store = openMemoryLimitStore(clock);
  const calls = {
    takes: [] as (readonly LimitCell[])[],
    settled: 0,
    fail: false,
    /** Decisions are told only when it resolves. */
    gate: undefined as Promise<void> | undefined,
  };
  const limiter = openLimiter({
    store: {
      ...store,
      take(hold, cells) {
        if (calls.fail) throw new Fault("unavailable", "Cannot take: told to fail");
        calls.takes.push(cells);
        const decisions = store.take(hold, cells);
        return calls.gate === undefined ? decisions : calls.gate.then(() => decisions);
      },
      settle(hold, used, tallies) {
        calls.settled++;
        store.settle(hold, used, tallies);
      },
    },
    local: openMemoryLimitStore(clock),
    degradedFraction: 0.5,
    clock,
    log,
  });
  const admission = openAdmission({
    limiter,
    policies: readyPolicies(policies),
    userRate: { quota: RATE, windowMs: 60_000 },
    placesPerUser,
    clock,
  });
  const engines = new Map(models.map(({ id }) => [id, new ToldEngine(id)]));
  for (const engine of engines.values()) engine.answer = () => Promise.resolve(ANSWER);
  const act = openRunInference({
    catalog: {
      find: (name) => models.find(({ id, aliases }) => id === name || aliases.includes(name)),
      list: () => models,
    },
    engines: createEngineTable([...engines.values()]),
    admission,
    capsOf: () => ({ ...DEFAULT_CAPS, outputTokensMax: null }),
    log,
    clock,
  });
  const told: LimitView[] = [];
  const context = (changes: Partial<InferenceContext> = {}): InferenceContext => {
    const record = new RequestRecord(trail, { request: "req_1", address: "192.0.2.1", route: "POST /x" });
    record.identify({ issuer: "https://ai.example.com", subject: "usr_1", team: "red", credential: "tok_1" });
    return {
      principal: principalOf(["user"]),
      network: "192.0.2.1",
      tellLimits: (views) => told.push(...views),
      record,
      signal: new AbortController().signal,
      deadlineMs: clock.monotonic() + DEADLINE_MS,
      ...changes,
    };
  };
  const [model] = models;
  ok(model);
  return {
    clock,
    trail,
    calls,
    told,
    limiter,
    act,
    context,
    engine(id = "m"): ToldEngine {
      const engine = engines.get(id);
      ok(engine);
      return engine;
    },
    admit: (request: TaskRequest = BOUNDED, changes: Partial<AdmissionContext> = {}) =>
      admission.admit(context(changes), [{ model, request }]).then((admitted) => ({
        ...admitted,
        settle: (usage: Usage | null) => admitted.settle(usage, model),
      })),
    run: (request = BOUNDED, changes: Partial<InferenceContext> = {}, name = "m") =>
      act.run<"chat">(name, request, context(changes)),
    stream: (request = BOUNDED, changes: Partial<InferenceContext> = {}) =>
      act.stream<"chat">("m", request, context(changes)),
    /** What the sums of the policy `all` are, by their quotas. */
    async used(key = USER): Promise<Record<string, number>> {
      const sums: Record<string, number> = {};
      for (const quota of ["requestsPerDay", "tokensPerDay", "costPerDay"]) {
        sums[quota] = (await limiter.sums(`all/${quota}/${DAY}`)).get(key) ?? 0;
      }
      return sums;
    },
    rows: (): Promise<readonly { readonly row: UsageRow; readonly used: UsedAmounts }[]> =>
      readUsage(limiter, DAY),
    /** What is left of a rate of the user now. */
    async left(quota: "requestsPerMinute" | "tokensPerMinute"): Promise<number> {
      const max = ALL[quota] ?? 0;
      const [decision] = await store.take(null, [
        { kind: "rate", key: `all/${quota}/${USER}`, quota: max, windowMs: 60_000, amount: 0 },
      ]);
      return decision?.remaining ?? NaN;
    },
    /** The one outcome on record. */
    outcome() {
      const ends = trail.events.filter((event) => event.type === "inference.finished");
      strictEqual(ends.length, 1);
      return ends[0] as Extract<typeof ends[0], { type: "inference.finished" }>;
    },
    /** The lines of the log about an event. */
    async lines(event: string): Promise<readonly Record<string, unknown>[]> {
      await log.flush();
      return logged.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line))
        .filter((line) => line.event === event);
    },
    async close(): Promise<void> {
      await limiter.close(0);
      await log.flush();
    },
  };
}

const SOUND: TaskRequest = {
  task: "transcription",
  file: { name: "a.wav", mediaType: "audio/wav", bytes: new ReadableStream() },
  format: "json",
  timestampGranularities: [],
};
const NOTHING = { requestsPerDay: 0, tokensPerDay: 0, costPerDay: 0 };

Deno.test("all limits that apply are one question to the store: the user's own and those of every policy", async () => {
  const limited = openLimited([
    ALL,
    { name: "team", subject: "team", for: { teams: ["red"] }, tokensPerDay: 50_000 },
    { name: "others", subject: "team", for: { teams: ["blue"] }, tokensPerDay: 1 },
    { name: "model", subject: "model", for: { models: ["m*"] }, requestsPerMinute: 70 },
    { name: "network", subject: "address", for: { roles: ["user"] }, requestsPerMinute: 90 },
    { name: "keys", subject: "key", for: {}, requestsPerMinute: 1 },
  ]);
  await limited.run();
  strictEqual(limited.calls.takes.length, 1);
  const names = limited.told.map(({ limit }) => limit.name);
  deepStrictEqual(names.filter((name) => !name.startsWith("all:")), [
    "user",
    "at-once",
    "team",
    "model",
    "network",
  ]);
  strictEqual(names.length, 2 + 9 + 3);
  strictEqual(limited.calls.takes[0]?.length, names.length);
  const keys = limited.calls.takes[0]?.slice(-3).map(({ key }) => key);
  deepStrictEqual(keys, ["red", "model/requestsPerMinute/m", "network/requestsPerMinute/192.0.2.1"]);
  strictEqual(limited.calls.settled, 1);
  await limited.close();
});

Deno.test("where no policy applies the user's own limits stand alone, and the use is in the book all the same", async () => {
  const limited = openLimited([]);
  await limited.run();
  deepStrictEqual(limited.told.map(({ limit }) => limit.name), ["user", "at-once"]);
  strictEqual((await limited.rows()).length, 1);
  await limited.close();
});

Deno.test("where one limit refuses nothing is taken from any other, nothing runs, and the caller is told of all of them", async () => {
  const limited = openLimited([
    ALL,
    { name: "tight", subject: "team", for: {}, tokensPerDay: RESERVED - 1 },
  ]);
  await rejects(limited.run(), isFault("budget_exhausted"));
  deepStrictEqual([limited.calls.takes.length, limited.calls.settled, limited.engine().asked.length], [
    1,
    0,
    0,
  ]);
  deepStrictEqual(limited.told.filter(({ decision }) => !decision.allowed).map(({ limit }) => limit.name), [
    "tight",
  ]);
  strictEqual(limited.told.length, 12);
  deepStrictEqual(await limited.used(), NOTHING);
  deepStrictEqual([await limited.left("requestsPerMinute"), await limited.left("tokensPerMinute")], [
    10,
    10_000,
  ]);
  deepStrictEqual(await limited.rows(), []);
  deepStrictEqual(limited.trail.events, []);
  await limited.close();
});

Deno.test("the user's own rate and places are 429 with when to come back, and a place is free again after the run", async () => {
  const limited = openLimited([], undefined, 1);
  const first = await limited.admit();
  const atOnce = 'At most 1 requests may be under way at once (limit "at-once").';
  await rejects(limited.admit(), isFault("rate_limited", atOnce));
  first.settle(USAGE);
  for (let taken = 1; taken < RATE; taken++) (await limited.admit()).settle(USAGE);
  await rejects(limited.admit(), (thrown) => {
    ok(isFault("rate_limited")(thrown));
    strictEqual((thrown as Fault).details.retryAfterSeconds, 1);
    return true;
  });
  await limited.close();
});

Deno.test("while an inference runs its estimate is taken; when it has completed, what it used", async () => {
  const limited = openLimited([ALL]);
  const answered = Promise.withResolvers<unknown>();
  limited.engine().answer = () => answered.promise;
  const running = limited.run();
  // The engine is asked when all is reserved and the intent is on record.
  while (limited.engine().asked.length === 0) await Promise.resolve();
  const cost = INPUT_RESERVED * 2500 + 100 * 10_000;
  deepStrictEqual(await limited.used(), { requestsPerDay: 1, tokensPerDay: RESERVED, costPerDay: cost });
  deepStrictEqual(await limited.left("tokensPerMinute"), 10_000 - RESERVED);
  deepStrictEqual(await limited.rows(), []);
  answered.resolve(ANSWER);
  await running;
  deepStrictEqual(await limited.used(), { requestsPerDay: 1, tokensPerDay: 12, costPerDay: 67_500 });
  deepStrictEqual([await limited.left("requestsPerMinute"), await limited.left("tokensPerMinute")], [
    9,
    9988,
  ]);
  deepStrictEqual(await limited.rows(), [{
    row: { team: "red", issuer: "https://ai.example.com", subject: "usr_1", key: "", model: "m" },
    used: { requests: 1, inputTokens: 7, outputTokens: 5, cost: 67_500 },
  }]);
  await limited.close();
});

Deno.test("what failed is not charged; the attempt counts for the rate of requests alone", async () => {
  const limited = openLimited([ALL]);
  limited.engine().answer = () => Promise.reject(new Fault("upstream_failed", "Cannot answer: told so"));
  await rejects(limited.run(), isFault("upstream_failed"));
  deepStrictEqual(await limited.used(), NOTHING);
  deepStrictEqual([await limited.left("requestsPerMinute"), await limited.left("tokensPerMinute")], [
    9,
    10_000,
  ]);
  deepStrictEqual(await limited.rows(), []);
  // And its places are free.
  const admitted = [await limited.admit(), await limited.admit(), await limited.admit()];
  for (const each of admitted) each.settle(null);
  await limited.close();
});

Deno.test("a stream that ends well is charged what the engine counted", async () => {
  const limited = openLimited([ALL]);
  limited.engine().batches = [[TEXT("hi")], [{ type: "usage", usage: USAGE }]];
  const stream = await limited.stream();
  while (await stream.next() !== undefined);
  deepStrictEqual(await limited.used(), { requestsPerDay: 1, tokensPerDay: 12, costPerDay: 67_500 });
  await limited.close();
});

/** Charged is what the record says, which is more than nothing and less than what was reserved. */
async function chargedAsRecorded(limited: ReturnType<typeof openLimited>): Promise<void> {
  const { inputTokens, outputTokens, countedBy } = limited.outcome();
  strictEqual(countedBy, "estimate");
  ok(inputTokens > 0 && outputTokens > 0 && inputTokens + outputTokens < RESERVED);
  const cost = inputTokens * 2500 + outputTokens * 10_000;
  deepStrictEqual(await limited.used(), {
    requestsPerDay: 1,
    tokensPerDay: inputTokens + outputTokens,
    costPerDay: cost,
  });
  deepStrictEqual((await limited.rows()).map(({ used }) => used), [
    { requests: 1, inputTokens, outputTokens, cost },
  ]);
}

Deno.test("of a stream that breaks, what was sent is charged, whatever the engine counted for the whole", async () => {
  const limited = openLimited([ALL]);
  const whole = { inputTokens: 900, outputTokens: 900, countedBy: "engine" } as const;
  limited.engine().batches = [
    [TEXT("one two three")],
    [{ type: "usage", usage: whole }],
    new Fault("upstream_unreachable", "cut"),
  ];
  const stream = await limited.stream();
  await stream.next();
  await stream.next();
  await rejects(stream.next(), isFault("upstream_unreachable"));
  await chargedAsRecorded(limited);
  await limited.close();
});

Deno.test("of a stream whose client leaves, what was sent is charged, at once", async () => {
  const limited = openLimited([ALL]);
  const client = new AbortController();
  limited.engine().batches = [[TEXT("one two three")], new Promise(() => {})];
  const stream = await limited.stream(BOUNDED, { signal: client.signal });
  await stream.next();
  client.abort();
  while (limited.calls.settled === 0) await Promise.resolve();
  await chargedAsRecorded(limited);
  await limited.close();
});

Deno.test("a stream that breaks before its first piece costs nothing", async () => {
  const limited = openLimited([ALL]);
  limited.engine().batches = [new Fault("upstream_timeout", "Cannot answer: told so")];
  await rejects(limited.stream(), isFault("upstream_timeout"));
  deepStrictEqual(await limited.used(), NOTHING);
  deepStrictEqual(await limited.rows(), []);
  await limited.close();
});

Deno.test("an inference whose intent cannot be recorded is withdrawn: it does not run, costs nothing and holds no place", async () => {
  const limited = openLimited([{ ...ALL, requestsAtOnce: 1 }]);
  limited.trail.setFailing(true);
  await rejects(limited.run(), isFault("unavailable"));
  deepStrictEqual([limited.engine().asked.length, limited.calls.settled], [0, 1]);
  deepStrictEqual(await limited.used(), NOTHING);
  limited.trail.setFailing(false);
  await limited.run();
  await limited.close();
});

Deno.test("a whole answer whose outcome cannot be recorded does not leave, and costs nothing", async () => {
  const limited = openLimited([ALL]);
  limited.engine().answer = () => {
    limited.trail.setFailing(true);
    return Promise.resolve(ANSWER);
  };
  await rejects(limited.run(), isFault("unavailable"));
  deepStrictEqual(await limited.used(), NOTHING);
  deepStrictEqual(await limited.rows(), []);
  await limited.close();
});

Deno.test("settled twice counts once, and the first time is the one that counts", async () => {
  const limited = openLimited([ALL]);
  const admitted = await limited.admit();
  admitted.settle(USAGE);
  admitted.settle({ ...USAGE, outputTokens: 500 });
  admitted.settle(null);
  strictEqual(limited.calls.settled, 1);
  deepStrictEqual(await limited.used(), { requestsPerDay: 1, tokensPerDay: 12, costPerDay: 67_500 });
  await limited.close();
});

Deno.test("what an engine counts beyond the estimate is charged as well: a sum can pass its quota, and then refuses", async () => {
  const limited = openLimited([{ ...ALL, tokensPerDay: RESERVED }]);
  (await limited.admit()).settle({ inputTokens: RESERVED, outputTokens: 60, countedBy: "engine" });
  strictEqual((await limited.used()).tokensPerDay, RESERVED + 60);
  await rejects(limited.admit(), (thrown) => {
    ok(isFault("budget_exhausted")(thrown));
    strictEqual((thrown as Fault).details.retryAfterSeconds, 12 * 3600);
    return true;
  });
  await limited.close();
});

Deno.test("of requests at once as many pass as the budget has room for their estimates, and none more", async () => {
  const limited = openLimited(
    [{ name: "all", subject: "team", for: {}, tokensPerDay: 5 * RESERVED + 1 }],
    undefined,
    100,
  );
  const outcomes = await Promise.allSettled(Array.from({ length: 40 }, () => limited.admit()));
  const admitted = outcomes.flatMap((outcome) => outcome.status === "fulfilled" ? [outcome.value] : []);
  strictEqual(admitted.length, 5);
  strictEqual((await limited.used("red")).tokensPerDay, 5 * RESERVED);
  for (const each of admitted) each.settle(USAGE);
  strictEqual((await limited.used("red")).tokensPerDay, 5 * 12);
  await limited.close();
});

Deno.test("a request that is larger than the whole quota is told so, and not to try again", async () => {
  const limited = openLimited([{ name: "small", subject: "user", for: {}, tokensPerMinute: 50 }]);
  await rejects(limited.run(), (thrown) => {
    ok(isFault("rate_limited")(thrown));
    const { detail, retryAfterSeconds } = (thrown as Fault).details;
    strictEqual(retryAfterSeconds, undefined);
    strictEqual(
      detail,
      `This request alone may take ${RESERVED} (tokens); the limit "small" is 50. Ask for less: a shorter input, or a smaller ` +
        "bound on the output.",
    );
    return true;
  });
  await limited.close();
});

Deno.test("the output is bounded where its tokens are limited and the request names no bound, and nowhere else", async () => {
  const cases: readonly (readonly [string, Partial<LimitPolicy>, ChatRequest, number | undefined])[] = [
    ["no tokens limited", { requestsPerDay: 5, requestsAtOnce: 5 }, CHAT, undefined],
    ["tokens limited", { tokensPerMinute: 9000 }, CHAT, 4096],
    ["money limited", { costPerDay: 5 }, CHAT, 4096],
    ["a bound of its own", { tokensPerMinute: 9000 }, BOUNDED, 100],
    ["a large bound of its own", { tokensPerMinute: 9000 }, { ...CHAT, outputTokensMax: 8000 }, 8000],
    ["a policy on others", { tokensPerMinute: 9000, for: { teams: ["blue"] } }, CHAT, undefined],
  ];
  for (const [name, policy, request, bound] of cases) {
    const limited = openLimited([{ name: "some", subject: "user", for: {}, ...policy }]);
    await limited.run(request);
    deepStrictEqual(limited.engine().asked, [
      bound === undefined ? CHAT : { ...CHAT, outputTokensMax: bound },
    ], name);
    await limited.close();
  }
});

Deno.test("where input and output share a small context, the bound leaves the input its room", async () => {
  const limits = { ...servedModel({ id: "m" }).limits, contextTokensMax: 1000 };
  const limited = openLimited([ALL], [servedModel({ id: "m", limits })]);
  await limited.run(CHAT);
  deepStrictEqual(limited.engine().asked, [{ ...CHAT, outputTokensMax: 1000 - INPUT_RESERVED }]);
  // Each prompt has a context to itself, and what fills it whole still asks for something.
  const word = "word ";
  const completion = (...prompts: string[]) => (
    { task: "completion", prompts, stop: [], choices: 1, extra: {} } as const
  );
  const short = completion("hello there", "hello there", "hello there");
  const boundOf = async (request: ReturnType<typeof completion>) => {
    const admitted = await limited.admit(request);
    admitted.settle(null);
    return (admitted.bound(request) as { outputTokensMax?: number }).outputTokensMax ?? NaN;
  };
  const room = await boundOf(short);
  ok(room > 950 && room < 1000, String(room));
  strictEqual(await boundOf(completion(word.repeat(1000))), 1);
  await limited.close();
});

Deno.test("each answer of several is reserved for, and each prompt's", async () => {
  const limited = openLimited([ALL]);
  const { tokensPerDay: before = NaN } = await limited.used();
  const two = await limited.admit({ ...BOUNDED, choices: 2 });
  const { tokensPerDay: choices = NaN } = await limited.used();
  strictEqual(choices - before, INPUT_RESERVED + 200);
  two.settle(null);
  const four = await limited.admit({
    task: "completion",
    prompts: ["hello there", "hello there"],
    stop: [],
    choices: 2,
    outputTokensMax: 100,
    extra: {},
  });
  const { tokensPerDay: prompts = NaN } = await limited.used();
  ok(prompts > 400 && prompts < 450, String(prompts));
  four.settle(null);
  await limited.close();
});

Deno.test("of what generates nothing the input is reserved alone; of what has no text, 1, and of files and pictures a constant", async () => {
  const limited = openLimited([ALL]);
  await limited.admit({ task: "embedding", texts: ["some words"] });
  const { tokensPerDay: embedding = NaN } = await limited.used();
  ok(embedding > 16 && embedding < 30, String(embedding));
  await limited.admit({ task: "tensor", inputs: [], outputs: [], parameters: {} } as unknown as TaskRequest);
  deepStrictEqual(await limited.used(), {
    requestsPerDay: 2,
    tokensPerDay: embedding + 1,
    costPerDay: embedding * 2500 + 1,
  });
  const reserved = async (request: TaskRequest) => {
    const { tokensPerDay: before = NaN } = await limited.used();
    const admitted = await limited.admit(request);
    const { tokensPerDay: after = NaN } = await limited.used();
    admitted.settle(null);
    return after - before;
  };
  const pictures = await reserved({ task: "image", prompt: "a cat", images: 3, extra: {} });
  ok(pictures > 3000 && pictures < 3030, String(pictures));
  strictEqual(await reserved(SOUND), 1000);
  await limited.close();
});

Deno.test("a model that stands in is bound by what was reserved, whatever its own settings would let it generate", async () => {
  const limits = servedModel({ id: "any" }).limits;
  for (const own of [undefined, 300]) {
    const limited = openLimited([ALL], [
      servedModel({ id: "m", fallbacks: ["b"], limits: { ...limits, outputTokensMax: own ?? null } }),
      servedModel({ id: "b", limits: { ...limits, outputTokensMax: 9000 } }),
    ]);
    limited.engine().answer = () => Promise.reject(new Fault("upstream_failed", "Cannot answer: told so"));
    await limited.run(CHAT);
    deepStrictEqual(limited.engine("b").asked, [{ ...CHAT, outputTokensMax: own ?? 4096 }]);
    await limited.close();
  }
});

Deno.test("policies and rows know a model by its id, by whatever name it is asked for, and a key by its id", async () => {
  const limited = openLimited([{
    name: "all",
    subject: "model",
    for: { models: ["m"] },
    tokensPerDay: 9000,
  }]);
  const byKey: Principal = {
    ...principalOf(["user"]),
    credential: { kind: "api_key", id: "pck_1", expiresAtSeconds: null, session: null, boundTo: null },
  };
  await limited.run(BOUNDED, { principal: byKey }, "gpt-4o");
  strictEqual((await limited.used("m")).tokensPerDay, 12);
  deepStrictEqual((await limited.rows()).map(({ row }) => row), [
    { team: "red", issuer: "https://ai.example.com", subject: "usr_1", key: "pck_1", model: "m" },
  ]);
  await limited.close();
});

Deno.test("a place that nobody gives back is free again a minute after the request's deadline, and not before", async () => {
  const limited = openLimited([], undefined, 1);
  await limited.admit();
  limited.clock.advance(DEADLINE_MS + 60_000 - 1);
  await rejects(limited.admit(), isFault("rate_limited"));
  limited.clock.advance(1);
  await limited.admit();
  await limited.close();
});

Deno.test("a day's budget begins anew at midnight in UTC; what ends after it corrects the day in which it began", async () => {
  const limited = openLimited([{ ...ALL, requestsPerDay: 1 }]);
  const late = await limited.admit();
  await rejects(limited.admit(), isFault("budget_exhausted"));
  limited.clock.advance(12 * 3_600_000);
  // The next day, in which the late one has nothing.
  const next = await limited.admit();
  next.settle(USAGE);
  late.settle(USAGE);
  strictEqual((await limited.limiter.sums("all/tokensPerDay/2026-11-23")).get(USER), 12);
  strictEqual((await limited.limiter.sums("all/tokensPerMonth/2026-11")).get(USER), 24);
  deepStrictEqual((await readUsage(limited.limiter, "2026-11-23")).map(({ used }) => used.requests), [2]);
  await limited.close();
});

Deno.test("where a budget cannot be asked nothing runs; where there are rates alone, a part of them is allowed", async () => {
  const closed = openLimited([ALL]);
  closed.calls.fail = true;
  await rejects(closed.run(), isFault("unavailable"));
  deepStrictEqual([closed.engine().asked.length, closed.trail.events.length], [0, 0]);
  closed.calls.fail = false;
  await closed.close();
  const degraded = openLimited([{ name: "rates", subject: "user", for: {}, requestsPerMinute: 4 }]);
  degraded.calls.fail = true;
  await degraded.run();
  await degraded.run();
  await rejects(degraded.run(), isFault("rate_limited"));
  degraded.calls.fail = false;
  await degraded.close();
});

Deno.test("a sum that is used up refuses all that counts into it, also what nobody can count before", async () => {
  for (const quota of ["tokensPerDay", "costPerDay"] as const) {
    const limited = openLimited([{
      name: "all",
      subject: "user",
      for: {},
      [quota]: quota === "tokensPerDay" ? 5000 : 1,
    }]);
    (await limited.admit()).settle({ inputTokens: 5000, outputTokens: 100_000, countedBy: "engine" });
    const requests: readonly TaskRequest[] = [
      SOUND,
      { task: "image", prompt: "a cat", images: 1, extra: {} },
      { task: "tensor", inputs: [], outputs: [], binaryOutputs: false },
      { task: "embedding", texts: [""] },
    ];
    for (const request of requests) {
      await rejects(limited.admit(request), isFault("budget_exhausted"), request.task);
    }
    await limited.close();
  }
});

Deno.test("whoever leaves before the first piece has used a request and the input; whose engine failed, or was not asked, has not", async () => {
  const input = countChatTokens(CHAT.messages, CHAT.tools);
  const charged = { requestsPerDay: 1, tokensPerDay: input, costPerDay: input * 2500 };
  for (const kind of ["client_left", "deadline_exceeded", "stopping", "upstream_timeout"] as const) {
    const isCharged = kind === "client_left" || kind === "deadline_exceeded";
    for (const way of ["run", "stream"] as const) {
      const limited = openLimited([ALL]);
      limited.engine().answer = () => Promise.reject(new Fault(kind, "told so"));
      limited.engine().batches = [new Fault(kind, "told so")];
      await rejects(limited[way](), isFault(kind));
      deepStrictEqual(await limited.used(), isCharged ? charged : NOTHING, `${kind} ${way}`);
      const { inputTokens, outputTokens } = limited.outcome();
      deepStrictEqual([inputTokens, outputTokens], [isCharged ? input : 0, 0]);
      await limited.close();
    }
  }
  const gone = openLimited([ALL]);
  await rejects(gone.run(BOUNDED, { signal: AbortSignal.abort() }), isFault("client_left"));
  deepStrictEqual([await gone.used(), gone.engine().asked.length], [NOTHING, 0]);
  await gone.close();
});

Deno.test("whoever leaves after the engine's figures is charged by them: all was sent", async () => {
  const limited = openLimited([ALL]);
  limited.engine().batches = [[TEXT("hi")], [{ type: "usage", usage: USAGE }], new Promise(() => {})];
  const stream = await limited.stream();
  await stream.next();
  await stream.next();
  stream.cancel();
  while (limited.calls.settled === 0) await Promise.resolve();
  deepStrictEqual(await limited.used(), { requestsPerDay: 1, tokensPerDay: 12, costPerDay: 67_500 });
  await limited.close();
});

const DEAR = { inputPerMillion: 1000, outputPerMillion: 1000 };
const STAND_INS = [
  servedModel({ id: "m", fallbacks: ["dear"], prices: PRICES }),
  servedModel({ id: "dear", prices: DEAR }),
];
const BUSY = () => Promise.reject(new Fault("overloaded", "Cannot answer: told so"));

Deno.test("a model that stands in is held to its own limits, and its answer costs its own price, under the model that was asked for", async () => {
  const limited = openLimited([
    ALL,
    { name: "dear-ones", subject: "user", for: { models: ["dear"] }, requestsPerDay: 2, costPerDay: 50 },
    { name: "each", subject: "model", for: {}, requestsPerDay: 9 },
  ], STAND_INS);
  const count = async (book: string, key = USER) =>
    (await limited.limiter.sums(`${book}/${DAY}`)).get(key) ?? 0;
  const counts = async () => [
    await count("all/requestsPerDay"),
    await count("dear-ones/requestsPerDay"),
    await count("each/requestsPerDay", "m"),
    await count("each/requestsPerDay", "dear"),
  ];
  await limited.run();
  // Those of the stand-in are given back: it did not run.
  deepStrictEqual(await counts(), [1, 0, 1, 0]);
  strictEqual((await limited.used()).costPerDay, 67_500);
  // Each cell is asked for once, by the dearest price of those that it is about.
  const cells = limited.calls.takes[0] ?? [];
  strictEqual(
    new Set(cells.map((cell) => JSON.stringify([cell.kind, "book" in cell && cell.book, cell.key]))).size,
    cells.length,
  );
  const cost = cells.find((cell) => cell.kind === "count" && cell.book === `all/costPerDay/${DAY}`);
  strictEqual(cost?.kind === "count" && cost.amount, RESERVED * 1_000_000);

  limited.engine().answer = BUSY;
  strictEqual((await limited.run()).servedBy, "upstream-of-dear/m");
  deepStrictEqual(await counts(), [2, 1, 1, 1]);
  strictEqual((await limited.used()).costPerDay, 67_500 + 12 * 1_000_000);
  strictEqual(await count("dear-ones/costPerDay"), 12 * 1_000_000);
  const [row, ...others] = await limited.rows();
  deepStrictEqual([others, row?.row.model, row?.used.requests, row?.used.cost], [[], "m", 2, 12_067_500]);
  await limited.run();
  // Its own limit is used up: it does not stand in any more, and the model that was asked for is as open as ever.
  await rejects(limited.run(), isFault("overloaded"));
  limited.engine().answer = () => Promise.resolve(ANSWER);
  strictEqual((await limited.run()).servedBy, "upstream-of-m/m");
  deepStrictEqual(await counts(), [4, 2, 2, 2]);
  strictEqual(limited.told.filter(({ decision }) => !decision.allowed).length, 0);
  await limited.close();
});

Deno.test("an attempt counts for the rates of the model that was asked for and of the one that stood in last", async () => {
  const rate = (name: string, model: string): LimitPolicy => (
    { name, subject: "user", for: { models: [model] }, requestsPerMinute: 2, tokensPerMinute: 10_000 }
  );
  const limited = openLimited([rate("asked", "m"), rate("other", "dear")], STAND_INS);
  limited.engine().answer = BUSY;
  limited.engine("dear").answer = BUSY;
  await rejects(limited.run(), isFault("overloaded"));
  await rejects(limited.run(), isFault("overloaded"));
  await rejects(limited.run(), isFault("rate_limited"));
  const left = limited.told.slice(-6).map((
    { limit: { name }, decision: { remaining } },
  ) => [name, remaining]);
  deepStrictEqual(left.filter(([name]) => String(name).includes("requests")), [
    ["asked:requestsPerMinute", 0],
    ["other:requestsPerMinute", 0],
  ]);
  await limited.close();
});

Deno.test("figures that cannot be true are not charged; the log says so, once a minute", async () => {
  const limited = openLimited([ALL]);
  const absurd = { ...ANSWER, usage: { inputTokens: 7, outputTokens: 1_000_000_000, countedBy: "engine" } };
  limited.engine().answer = () => Promise.resolve(absurd);
  const { answer } = await limited.run();
  strictEqual(answer.usage.countedBy, "estimate");
  ok(((await limited.used()).tokensPerDay ?? NaN) < 50);
  await limited.run();
  const lines = await limited.lines("usage.not_believed");
  deepStrictEqual(lines.map(({ model, servedBy, outputTokens }) => [model, servedBy, outputTokens]), [
    ["m", "upstream-of-m/m", 1_000_000_000],
  ]);
  limited.clock.advance(60_000);
  await limited.run();
  strictEqual((await limited.lines("usage.not_believed")).length, 2);
  await limited.close();
});

Deno.test("the bound by which figures are believed is that of the model that ran", async () => {
  const limits = servedModel({ id: "any" }).limits;
  const limited = openLimited([], [
    servedModel({ id: "m", fallbacks: ["b"], limits: { ...limits, outputTokensMax: 10 } }),
    servedModel({ id: "b", limits: { ...limits, outputTokensMax: 5000 } }),
  ]);
  const figures = { ...USAGE, outputTokens: 4000 };
  for (const id of ["m", "b"]) {
    limited.engine(id).answer = () => Promise.resolve({ ...ANSWER, usage: figures });
  }
  strictEqual((await limited.run(CHAT)).answer.usage.countedBy, "estimate");
  limited.engine().answer = BUSY;
  deepStrictEqual((await limited.run(CHAT)).answer.usage, figures);
  strictEqual((await limited.lines("usage.not_believed"))[0]?.model, "m");
  await limited.close();
});

Deno.test("what comes out of admission after stop() does not begin: nothing on record, nothing charged, its place free", async () => {
  const limited = openLimited([{ ...ALL, requestsAtOnce: 1 }]);
  const gate = Promise.withResolvers<void>();
  const { takes } = limited.calls;
  limited.calls.gate = gate.promise;
  const running = limited.run();
  while (takes.length === 0) await Promise.resolve();
  limited.act.stop();
  gate.resolve();
  await rejects(running, isFault("stopping"));
  deepStrictEqual([limited.engine().asked.length, limited.trail.events, limited.act.underWay()], [0, [], 0]);
  deepStrictEqual([await limited.used(), limited.calls.settled], [NOTHING, 1]);
  (await limited.admit()).settle(null);
  await limited.close();
});
