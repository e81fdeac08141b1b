// Tests of the embed pipeline with runners that the test answers by hand: every request ends once, whatever happens.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../../src/faults/fault.ts";
import type { Embeddings } from "../../../src/engines/task.ts";
import { EmbedPipeline, type Runner } from "../../../src/engines/onnx/embed_pipeline.ts";
import { packRows, type TokenRows } from "../../../src/engines/onnx/worker_messages.ts";

const FAR_MS = 1e6;
const never = () => new AbortController().signal;

/** A runner whose runs end when the test says so. */
function handRunner<Order, Answer>(answer: (order: Order) => Answer): Runner<Order, Answer> & {
  readonly orders: Order[];
  readonly busy: () => boolean;
  readonly end: () => void;
  readonly die: () => void;
} {
  const orders: Order[] = [];
  let current:
    | { order: Order; resolve: (answer: Answer) => void; reject: (fault: Fault) => void }
    | undefined;
  const leave = () => {
    const run = current;
    current = undefined;
    return run;
  };
  return {
    orders,
    idle: () => current === undefined,
    busy: () => current !== undefined,
    run: (order) => {
      orders.push(order);
      const { promise, resolve, reject } = Promise.withResolvers<Answer>();
      current = { order, resolve, reject };
      return promise;
    },
    end: () => {
      const run = leave();
      run?.resolve(answer(run.order));
    },
    die: () => leave()?.reject(new Fault("unavailable", "the runner died", { retryAfterSeconds: 1 })),
  };
}

/** One token for each character: its code. */
const tokensOf = (text: string) => Int32Array.from(text, (character) => character.charCodeAt(0));

/** Dimensions 2: the number of tokens and their sum, so that a vector says whose it is. */
function vectorsOf({ ids, lengths }: TokenRows): Float32Array {
  let offset = 0;
  return Float32Array.from([...lengths].flatMap((length) => {
    const row = ids.subarray(offset, offset += length);
    return [length, row.reduce((sum, id) => sum + id, 0)];
  }));
}

const expected = (texts: readonly string[]) =>
  texts.flatMap((text) => [...vectorsOf(packRows([tokensOf(text)]))]);

function setUp(inferrerCount = 1, requestsMax = 10) {
  const clock = { nowMs: 0, now: () => 0, monotonic: () => clock.nowMs };
  const tokenizer = handRunner((texts: readonly string[]) => packRows(texts.map(tokensOf)));
  const inferrers = Array.from({ length: inferrerCount }, () => handRunner(vectorsOf));
  const pipeline = new EmbedPipeline({
    dimensions: 2,
    tokensPerTextMax: 100,
    tokensPerRequestMax: 300,
    requestsMax,
    clock,
    tokenizer,
    inferrers,
  });
  return { clock, tokenizer, inferrers, pipeline, inferrer: inferrers[0] ?? handRunner(vectorsOf) };
}

const turn = () => new Promise<void>((resolve) => setTimeout(resolve, 0));
const kind = (wanted: string) => (thrown: unknown) => thrown instanceof Fault && thrown.kind === wanted;

Deno.test("vectors and counts come back in the order of the texts, whatever order they ran in", async () => {
  const { pipeline, tokenizer, inferrer } = setUp();
  const texts = ["a".repeat(90), "bc", "", "d".repeat(50), "e"];
  const answer = pipeline.embed(texts, { signal: never(), deadlineMs: FAR_MS });
  tokenizer.end();
  for (await turn(); inferrer.busy(); await turn()) inferrer.end();
  const { vectors, tokenCounts } = await answer;
  deepStrictEqual([...vectors], expected(texts));
  deepStrictEqual(tokenCounts, [90, 2, 0, 50, 1]);
  ok(inferrer.orders.length > 1, "the texts were meant to need several runs");
});

Deno.test("texts of several requests share a run", async () => {
  const { pipeline, tokenizer, inferrer } = setUp();
  const bounds = { signal: never(), deadlineMs: FAR_MS };
  const answers = [
    pipeline.embed(["first"], bounds),
    pipeline.embed(["other"], bounds),
    pipeline.embed(["third"], bounds),
  ];
  tokenizer.end(); // the first alone: nothing waited when it came
  await turn();
  tokenizer.end(); // the other two, which came meanwhile
  await turn();
  inferrer.end();
  await turn();
  inferrer.end();
  deepStrictEqual((await Promise.all(answers)).map(({ vectors }) => [...vectors]), [
    expected(["first"]),
    expected(["other"]),
    expected(["third"]),
  ]);
  deepStrictEqual(inferrer.orders.map(({ lengths }) => [...lengths]), [[5], [5, 5]]);
});

Deno.test("every text with too many tokens is named, and nothing of its request is inferred", async () => {
  const { pipeline, tokenizer, inferrer } = setUp();
  const texts = ["fine", "x".repeat(101), "y".repeat(100), "z".repeat(150)];
  const answer = pipeline.embed(texts, { signal: never(), deadlineMs: FAR_MS });
  tokenizer.end();
  await rejects(answer, (thrown) => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "fields_invalid");
    deepStrictEqual(thrown.details.fields, [
      { path: "/texts/1", message: "has 101 tokens; at most 100 are allowed" },
      { path: "/texts/3", message: "has 150 tokens; at most 100 are allowed" },
    ]);
    return true;
  });
  await turn();
  deepStrictEqual(inferrer.orders, []);
});

Deno.test("a request with too many tokens in sum is refused as a whole", async () => {
  const { pipeline, tokenizer, inferrer } = setUp();
  const texts = Array(4).fill("x".repeat(76));
  const answer = pipeline.embed(texts, { signal: never(), deadlineMs: FAR_MS });
  tokenizer.end();
  await rejects(answer, (thrown) => {
    ok(thrown instanceof Fault);
    deepStrictEqual(thrown.details.fields, [{
      path: "/texts",
      message: "has 304 tokens; at most 300 are allowed",
    }]);
    return true;
  });
  deepStrictEqual(inferrer.orders, []);
});

Deno.test("a request beyond the bound is refused as overloaded, and one that ends makes room", async () => {
  const { pipeline, tokenizer, inferrer } = setUp(1, 2);
  const bounds = { signal: never(), deadlineMs: FAR_MS };
  const first = pipeline.embed(["a"], bounds);
  const second = pipeline.embed(["b"], bounds);
  await rejects(
    pipeline.embed(["c"], bounds),
    (thrown) => kind("overloaded")(thrown) && (thrown as Fault).details.retryAfterSeconds === 1,
  );
  tokenizer.end();
  await turn();
  inferrer.end();
  await first;
  const third = pipeline.embed(["d"], bounds);
  for (await turn(); tokenizer.busy() || inferrer.busy(); await turn()) {
    tokenizer.end();
    inferrer.end();
  }
  await Promise.all([second, third]);
});

Deno.test("a deadline that passes while the request waits drops it before it is inferred", async () => {
  const { pipeline, tokenizer, inferrer, clock } = setUp();
  const running = pipeline.embed(["a"], { signal: never(), deadlineMs: FAR_MS });
  tokenizer.end();
  await turn();
  const waiting = pipeline.embed(["late"], { signal: never(), deadlineMs: 5 });
  tokenizer.end();
  await turn();
  clock.nowMs = 5;
  await rejects(waiting, kind("deadline_exceeded")); // by the timer: nothing else happens here
  inferrer.end();
  await running;
  await turn();
  strictEqual(pipeline.figures().textsDispatched, 1);
});

Deno.test("a deadline that passes while a run is under way ends the request then, and drops the rest of its texts", async () => {
  const { pipeline, tokenizer, inferrer, clock } = setUp();
  const answer = pipeline.embed(["a".repeat(100), "b".repeat(100)], { signal: never(), deadlineMs: 5 });
  tokenizer.end();
  await turn();
  clock.nowMs = 5;
  await rejects(answer, kind("deadline_exceeded"));
  ok(inferrer.busy(), "the run was meant to be under way still");
  inferrer.end();
  await turn();
  strictEqual(pipeline.figures().textsDispatched, 1);
  strictEqual(pipeline.figures().requestsUnfinished, 0);
});

Deno.test("a client that leaves ends its request at once, and its waiting texts are never inferred", async () => {
  const { pipeline, tokenizer, inferrer } = setUp();
  const client = new AbortController();
  const answer = pipeline.embed(["a".repeat(100), "b".repeat(100)], {
    signal: client.signal,
    deadlineMs: FAR_MS,
  });
  tokenizer.end();
  await turn();
  client.abort();
  await rejects(answer, kind("client_left"));
  inferrer.end();
  await turn();
  strictEqual(pipeline.figures().textsDispatched, 1);
});

Deno.test("a client that leaves before its texts are tokenized spares the tokenizer them", async () => {
  const { pipeline, tokenizer } = setUp();
  const client = new AbortController();
  const first = pipeline.embed(["first"], { signal: client.signal, deadlineMs: FAR_MS });
  const second = pipeline.embed(["second"], { signal: client.signal, deadlineMs: FAR_MS });
  client.abort();
  await rejects(first, kind("client_left"));
  await rejects(second, kind("client_left"));
  tokenizer.end();
  await turn();
  deepStrictEqual(tokenizer.orders, [["first"]]);
  strictEqual(pipeline.figures().textsDispatched, 0);
});

Deno.test("a request leaves nothing on its client's signal, however it ends", async () => {
  const { pipeline, tokenizer, inferrer } = setUp();
  const { signal } = new AbortController();
  let listeners = 0;
  const [add, remove] = [signal.addEventListener, signal.removeEventListener];
  signal.addEventListener = (...given: unknown[]) => void (listeners++, Reflect.apply(add, signal, given));
  signal.removeEventListener = (...given: unknown[]) =>
    void (listeners--, Reflect.apply(remove, signal, given));
  const answered = pipeline.embed(["answered"], { signal, deadlineMs: FAR_MS });
  strictEqual(listeners, 1);
  tokenizer.end();
  await turn();
  inferrer.end();
  await answered;
  strictEqual(listeners, 0);
  const refused = pipeline.embed(["x".repeat(101)], { signal, deadlineMs: FAR_MS });
  tokenizer.end();
  await rejects(refused, kind("fields_invalid"));
  strictEqual(listeners, 0);
});

Deno.test("a request that comes too late or from a client who has left starts nothing", async () => {
  const { pipeline, tokenizer } = setUp();
  await rejects(
    pipeline.embed(["a"], { signal: AbortSignal.abort(), deadlineMs: FAR_MS }),
    kind("client_left"),
  );
  await rejects(pipeline.embed(["a"], { signal: never(), deadlineMs: 0 }), kind("deadline_exceeded"));
  deepStrictEqual(tokenizer.orders, []);
});

Deno.test("a runner that dies takes down the requests of its run and no other", async () => {
  const { pipeline, tokenizer, inferrers: [left, right] } = setUp(2);
  ok(left !== undefined && right !== undefined);
  const bounds = { signal: never(), deadlineMs: FAR_MS };
  const hit = pipeline.embed(["hit"], bounds);
  tokenizer.end();
  await turn();
  const spared = pipeline.embed(["spared"], bounds);
  tokenizer.end();
  await turn();
  left.die();
  await rejects(hit, kind("unavailable"));
  right.end();
  deepStrictEqual([...(await spared).vectors], expected(["spared"]));
});

Deno.test("whatever the order of requests, runs, deaths, departures and deadlines: each request ends exactly once and rightly, and each text is inferred at most once", async () => {
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        texts: fc.array(fc.string({ maxLength: 110, unit: "grapheme-ascii" }), {
          minLength: 1,
          maxLength: 6,
        }),
        timeoutMs: fc.integer({ min: 1, max: 12 }),
      }),
    },
    { weight: 3, arbitrary: fc.constant("tokenized" as const) },
    { weight: 4, arbitrary: fc.record({ inferred: fc.nat(1) }) },
    { weight: 1, arbitrary: fc.record({ died: fc.nat(2) }) },
    { weight: 1, arbitrary: fc.record({ left: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ passMs: fc.integer({ min: 1, max: 5 }) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { pipeline, tokenizer, inferrers, clock } = setUp(2, 6);
      const requests: { texts: string[]; client: AbortController; ends: number; result: unknown }[] = [];
      const followed: Promise<void>[] = [];
      for (const act of steps) {
        if (act === "tokenized") tokenizer.end();
        else if ("inferred" in act) inferrers[act.inferred]?.end();
        else if ("died" in act) [...inferrers, tokenizer][act.died]?.die();
        else if ("left" in act) requests[act.left]?.client.abort();
        else if ("passMs" in act) clock.nowMs += act.passMs;
        else {
          const request = {
            texts: act.texts,
            client: new AbortController(),
            ends: 0,
            result: undefined as unknown,
          };
          requests.push(request);
          const end = (result: unknown) => {
            request.ends++;
            request.result = result;
          };
          const bounds = { signal: request.client.signal, deadlineMs: clock.nowMs + act.timeoutMs };
          followed.push(pipeline.embed(act.texts, bounds).then(end, end));
        }
        for (let count = 0; count < 8; count++) await Promise.resolve();
      }
      clock.nowMs += FAR_MS;
      await Promise.all(followed); // by the timers: every deadline has passed
      strictEqual(pipeline.figures().requestsUnfinished, 0);
      for (const { texts, client, ends, result } of requests) {
        strictEqual(ends, 1);
        if (result instanceof Fault) {
          if (result.kind === "client_left") ok(client.signal.aborted);
          if (result.kind === "fields_invalid") {
            ok(texts.some(({ length }) => length > 100) || texts.join("").length > 300);
          }
          ok(result.kind !== "internal", result.message);
        } else {
          deepStrictEqual([...(result as Embeddings).vectors], expected(texts));
        }
      }
      for (const { lengths } of inferrers.flatMap(({ orders }) => orders)) {
        ok(lengths.length <= 8 && (lengths.length === 1 || lengths.length * Math.max(...lengths) <= 192));
      }
      const texts = requests.reduce((sum, request) => sum + request.texts.length, 0);
      ok(pipeline.figures().textsDispatched <= texts);
    }),
    { numRuns: 60 },
  );
});
