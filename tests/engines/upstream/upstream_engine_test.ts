// Tests of the upstream engine: the choice among replicas, retries and their bounds, and what a run leaves behind.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import type { RunBounds } from "../../../src/engines/engine.ts";
import { openaiWire } from "../../../src/engines/upstream/openai/openai_wire.ts";
import { openUpstream, type Upstream } from "../../../src/engines/upstream/upstream.ts";
import { openUpstreamEngine } from "../../../src/engines/upstream/upstream_engine.ts";
import type { UpstreamSettings } from "../../../src/engines/upstream/upstream_settings.ts";
import type { Wire } from "../../../src/engines/upstream/wire.ts";
import { systemClock } from "../../../src/time/clock.ts";
import {
  answerBusy,
  answerBytes,
  answerHtml,
  answerJson,
  answerStatus,
  eventOf,
  hangBeforeHead,
  hangMidBody,
  type Script,
  type ScriptedUpstream,
  sendRaw,
  startScriptedUpstream,
  streamEvents,
} from "../../support/scripted_upstream.ts";
import { chatOf, createTestWire, transcriptionOf } from "./test_wire.ts";
import { faultOf, settingsOf, until, within } from "./upstream_under_test.ts";

interface Parts {
  readonly servers: readonly ScriptedUpstream[];
  readonly upstreams: readonly Upstream[];
  readonly engine: ReturnType<typeof openUpstreamEngine>;
  /** Requests that each server got. */
  counts(): number[];
  /** One chat; resolves with what it said. */
  ask(bounds?: RunBounds): Promise<string | undefined>;
}

/** Runs a test with one engine over as many servers as there are scripts; they are called a, b, c. */
async function withReplicas(
  scripts: readonly Script[],
  test: (parts: Parts) => Promise<void>,
  options: {
    settings?: Partial<UpstreamSettings>;
    weights?: readonly number[];
    routing?: "weighted" | "least-busy";
    wires?: readonly Wire[];
  } = {},
): Promise<void> {
  const servers = await Promise.all(scripts.map(async (script) => {
    const server = await startScriptedUpstream();
    server.plays(script);
    return server;
  }));
  const nameOf = (index: number): string => "abcdefgh".charAt(index);
  const upstreams = servers.map(({ url }, index) =>
    openUpstream(
      settingsOf(url, { name: nameOf(index), ...options.settings }),
      options.wires?.[index] ?? createTestWire(),
      systemClock,
    )
  );
  const engine = openUpstreamEngine({
    model: {
      id: "chat-1",
      routing: options.routing ?? "weighted",
      replicas: upstreams.map(({ name }, index) => ({
        upstream: name,
        model: `m-${name}`,
        weight: options.weights?.[index] ?? 1,
      })),
    },
    upstreams: new Map(upstreams.map((upstream) => [upstream.name, upstream])),
    clock: systemClock,
  });
  try {
    await test({
      servers,
      upstreams,
      engine,
      counts: () => servers.map(({ requests }) => requests.length),
      ask: async (bounds = within()) => (await engine.run<"chat">(chatOf("hi"), bounds)).choices[0]?.text,
    });
  } finally {
    await engine.close();
    for (const upstream of upstreams) await upstream.close();
    for (const server of servers) await server.close();
  }
}

const HELLO = answerJson({ text: "hello" });
const DONE = eventOf("[DONE]");
const text = (word: string) => eventOf({ text: word });

Deno.test("a run goes to one replica, by the model's name there, and says which before it is made", async () => {
  await withReplicas([HELLO], async ({ servers, engine }) => {
    const bounds = within();
    let servedBy: string | null = "";
    servers[0]?.plays((reply, request) => {
      servedBy = bounds.trace.servedBy;
      return HELLO(reply, request);
    });
    await engine.run<"chat">(chatOf("hi"), bounds);
    strictEqual(servedBy, "a/m-a");
    deepStrictEqual(bounds.trace, { servedBy: "a/m-a", attempts: 1 });
    strictEqual(servers[0]?.requests[0]?.json().model, "m-a");
    strictEqual(engine.modelId, "chat-1");
  });
});

Deno.test("runs are shared by weight", async () => {
  await withReplicas([HELLO, HELLO], async ({ ask, counts }) => {
    for (let count = 0; count < 8; count++) await ask();
    deepStrictEqual(counts(), [6, 2]);
  }, { weights: [3, 1] });
});

Deno.test("least-busy: a replica whose runs hang gets no more while others are free", async () => {
  await withReplicas([hangBeforeHead(), HELLO], async ({ ask, counts }) => {
    const controller = new AbortController();
    const hanging = faultOf(ask(within(60_000, controller.signal)));
    await until(() => counts()[0] === 1);
    for (let count = 0; count < 6; count++) await ask();
    deepStrictEqual(counts(), [1, 6]);
    controller.abort();
    await hanging;
  }, { routing: "least-busy" });
});

const FAILURES: readonly [string, Script][] = [
  ["cannot be reached", sendRaw("")],
  [
    "drops its answer",
    sendRaw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"te'),
  ],
  ["fails", answerStatus(500)],
  ["is busy", answerBusy(503, "30")],
  ["has too many requests", answerBusy(429)],
  ["answers nonsense", answerHtml()],
];
for (const [what, script] of FAILURES) {
  Deno.test(`another replica answers when one ${what}, with and without a stream`, async () => {
    await withReplicas([script, HELLO], async ({ servers, engine, counts }) => {
      const bounds = within();
      strictEqual((await engine.run<"chat">(chatOf("hi"), bounds)).choices[0]?.text, "hello");
      deepStrictEqual(bounds.trace, { servedBy: "b/m-b", attempts: 2 });
      strictEqual(counts()[1], 1);
      servers[1]?.plays(streamEvents([text("hello"), DONE]));
      // Turns alternate: one of these two begins at each.
      for (let count = 0; count < 2; count++) {
        const stream = await engine.stream<"chat">(chatOf("hi"), within());
        deepStrictEqual(await stream.next(), [{ type: "text", choice: 0, text: "hello" }]);
        strictEqual(await stream.next(), undefined);
      }
      // The runtime itself sends a request once more when a connection that it used before is closed without an answer.
      ok((counts()[0] ?? 0) >= 2);
    });
  });
}

Deno.test("no answer in time is tried on another replica, and not on the same", async () => {
  const settings = { firstByteTimeoutMs: 300 };
  await withReplicas([hangBeforeHead(), HELLO], async ({ ask, counts }) => {
    strictEqual(await ask(), "hello");
    deepStrictEqual(counts(), [1, 1]);
  }, { settings });
  await withReplicas([hangBeforeHead()], async ({ ask, counts }) => {
    strictEqual((await faultOf(ask())).kind, "upstream_timeout");
    deepStrictEqual(counts(), [1]);
  }, { settings });
});

Deno.test("what the request itself is to blame for is never tried again", async () => {
  for (const status of [400, 401, 403, 404, 413, 422]) {
    await withReplicas([answerStatus(status), HELLO], async ({ ask, counts }) => {
      const fault = await faultOf(ask());
      ok(fault.kind === "input_refused" || fault.kind === "upstream_failed");
      deepStrictEqual(counts(), [1, 0]);
    });
  }
});

Deno.test("an answer that fell silent midway is not tried again", async () => {
  await withReplicas([hangMidBody("{"), HELLO], async ({ ask, counts }) => {
    strictEqual((await faultOf(ask())).kind, "upstream_timeout");
    deepStrictEqual(counts(), [1, 0]);
  }, { settings: { betweenBytesTimeoutMs: 60 } });
});

Deno.test("a single replica that drops a connection or cannot be reached gets the request again; one that fails, is busy or talks nonsense does not", async () => {
  for (const script of [sendRaw(""), answerStatus(502)]) {
    await withReplicas([HELLO], async ({ servers, ask }) => {
      servers[0]?.plays(script, HELLO);
      strictEqual(await ask(), "hello");
    });
  }
  for (const script of [answerStatus(500), answerBusy(503), answerHtml()]) {
    await withReplicas([HELLO], async ({ servers, ask, counts }) => {
      servers[0]?.plays(script, HELLO);
      await faultOf(ask());
      deepStrictEqual(counts(), [1]);
    });
  }
});

Deno.test("a request is sent three times at most, to each replica once while others are left", async () => {
  const failing = answerStatus(502);
  await withReplicas([failing, failing, failing, failing], async ({ engine, counts }) => {
    const bounds = within();
    strictEqual((await faultOf(engine.run<"chat">(chatOf("hi"), bounds))).kind, "upstream_failed");
    strictEqual(bounds.trace.attempts, 3);
    deepStrictEqual(counts(), [1, 1, 1, 0]);
  });
  await withReplicas([failing], async ({ ask, counts }) => {
    await faultOf(ask());
    deepStrictEqual(counts(), [3]);
  });
});

Deno.test("a failure that may be the request's own doing is tried on one other replica and no more", async () => {
  const pairs: readonly (readonly [Script, Script, string])[] = [
    [answerHtml(), answerHtml(), "upstream_answer_invalid"],
    [answerStatus(500), answerStatus(500), "upstream_failed"],
    [answerStatus(501), answerHtml(), "upstream_answer_invalid"],
    [answerHtml(), answerStatus(500), "upstream_failed"],
  ];
  for (const [first, second, kind] of pairs) {
    await withReplicas([first, second, HELLO], async ({ ask, counts }) => {
      strictEqual((await faultOf(ask())).kind, kind);
      deepStrictEqual(counts(), [1, 1, 0]);
    });
  }
});

Deno.test("one caller's requests that no engine bears take the model from nobody else", async () => {
  const bears: Script = (reply, request) =>
    (request.text().includes("POISON") ? answerStatus(500) : HELLO)(reply, request);
  await withReplicas([bears, bears], async ({ engine, ask }) => {
    for (let count = 0; count < 30; count++) {
      strictEqual((await faultOf(engine.run<"chat">(chatOf("POISON"), within()))).kind, "upstream_failed");
    }
    strictEqual(engine.state(), "ready");
    strictEqual(await ask(), "hello");
  });
});

Deno.test("whole answers that are text are bounded however large the setting is; those that carry data are not", async () => {
  const settings = { answerBytesMax: 100_000_000 };
  const spaces = (bytes: number): Script =>
    answerBytes(`{"text":"hello"}${" ".repeat(bytes)}`, "application/json");
  await withReplicas([spaces(8_000_000)], async ({ servers, ask, engine }) => {
    strictEqual(await ask(), "hello");
    servers[0]?.plays(spaces(9_000_000));
    strictEqual((await faultOf(ask())).kind, "upstream_answer_invalid");
    const sound = transcriptionOf(ReadableStream.from([new Uint8Array(10)]));
    strictEqual(
      (await faultOf(engine.run<"transcription">(sound, within()))).kind,
      "upstream_answer_invalid",
    );
  }, { settings });
  await withReplicas([
    answerBytes(`{"data":[{"embedding":[1]}]}${" ".repeat(9_000_000)}`, "application/json"),
  ], async ({ engine }) => {
    const { dimensions } = await engine.run<"embedding">({ task: "embedding", texts: ["a"] }, within());
    strictEqual(dimensions, 1);
  }, { settings, wires: [openaiWire] });
});

Deno.test("the last fault is the one that is told, with its Retry-After", async () => {
  await withReplicas([answerStatus(502), answerBusy(429, "9")], async ({ ask }) => {
    const fault = await faultOf(ask());
    // The busy one is not asked again; the one that failed is, and it is its fault that comes last.
    strictEqual(fault.kind, "upstream_failed");
  });
  await withReplicas([answerBusy(503), answerBusy(429, "9")], async ({ ask }) => {
    const fault = await faultOf(ask());
    deepStrictEqual([fault.kind, fault.details.retryAfterSeconds], ["overloaded", 9]);
  });
});

Deno.test("a stream is tried again until its first piece, and never after it", async () => {
  await withReplicas(
    [streamEvents([": hello\n\n"], { then: "drop" }), streamEvents([text("hello"), DONE])],
    async ({ engine, counts }) => {
      const stream = await engine.stream<"chat">(chatOf("hi"), within());
      strictEqual((await stream.next())?.length, 1);
      strictEqual(await stream.next(), undefined);
      deepStrictEqual(counts(), [1, 1]);
    },
  );
  await withReplicas(
    [streamEvents([text("hel")], { then: "drop" }), streamEvents([text("hello"), DONE])],
    async ({ engine, counts }) => {
      const stream = await engine.stream<"chat">(chatOf("hi"), within());
      strictEqual((await stream.next())?.length, 1);
      strictEqual((await faultOf(stream.next())).kind, "upstream_unreachable");
      deepStrictEqual(counts(), [1, 0]);
    },
  );
});

Deno.test("a body in pieces is sent once, whatever becomes of it", async () => {
  await withReplicas([answerStatus(500), HELLO], async ({ engine, counts }) => {
    const bytes = ReadableStream.from([new Uint8Array(10)]);
    const bounds = within();
    strictEqual(
      (await faultOf(engine.run<"transcription">(transcriptionOf(bytes), bounds))).kind,
      "upstream_failed",
    );
    strictEqual(bounds.trace.attempts, 1);
    deepStrictEqual(counts(), [1, 0]);
  });
});

Deno.test("a retry that the budget of its upstream does not hold is not made", async () => {
  await withReplicas([answerStatus(500), HELLO], async ({ ask, upstreams, counts }) => {
    const budget = upstreams[1]?.retryBudget;
    while (budget?.takeRetry()) { /* until it is used up */ }
    strictEqual((await faultOf(ask())).kind, "upstream_failed");
    deepStrictEqual(counts(), [1, 0]);
    strictEqual(await ask(), "hello", "first attempts need no budget");
  });
});

Deno.test("an upstream that is full is passed over; when all are, the answer is overloaded at once", async () => {
  await withReplicas([hangBeforeHead(), hangBeforeHead()], async ({ ask, engine, counts }) => {
    const controller = new AbortController();
    const hanging = [1, 2].map(() => faultOf(ask(within(60_000, controller.signal))));
    await until(() => counts()[0] === 1 && counts()[1] === 1);
    strictEqual(engine.state(), "ready");
    const bounds = within();
    const fault = await faultOf(ask(bounds));
    deepStrictEqual([fault.kind, fault.details.retryAfterSeconds], ["overloaded", 1]);
    deepStrictEqual(bounds.trace, { servedBy: null, attempts: 0 });
    controller.abort();
    await Promise.all(hanging);
  }, { settings: { requestsAtOnceMax: 1 } });
});

Deno.test("an unhealthy upstream gets nothing; without another the model is down, and comes back by itself", async () => {
  await withReplicas([HELLO, HELLO], async ({ servers, upstreams, ask, engine, counts }) => {
    servers[0]?.playsHealth(answerStatus(500));
    await until(() => upstreams[0]?.refusal() === "unhealthy");
    for (let count = 0; count < 4; count++) await ask();
    deepStrictEqual(counts(), [0, 4]);
    strictEqual(engine.state(), "ready");
    servers[1]?.playsHealth(answerStatus(500));
    await until(() => engine.state() === "down");
    const fault = await faultOf(ask());
    deepStrictEqual([fault.kind, fault.details.retryAfterSeconds], ["unavailable", 2]);
    servers[0]?.playsHealth(answerStatus(200));
    await until(() => engine.state() === "ready");
    await ask();
    deepStrictEqual(counts(), [1, 4]);
  }, { settings: { healthSeconds: 0.02 } });
});

Deno.test("a model is down while the breakers of all its upstreams are open", async () => {
  await withReplicas([answerStatus(502), answerStatus(504)], async ({ ask, engine }) => {
    for (let count = 0; count < 10 && engine.state() !== "down"; count++) await faultOf(ask());
    strictEqual(engine.state(), "down");
    strictEqual((await faultOf(ask())).kind, "unavailable");
  });
});

Deno.test("a replica whose protocol lacks the task is passed over; when all lack it, that is the fault", async () => {
  const lacking = createTestWire({ lacks: ["chat"] });
  await withReplicas([HELLO, HELLO], async ({ ask, counts }) => {
    await ask();
    await ask();
    deepStrictEqual(counts(), [0, 2]);
  }, { wires: [lacking, createTestWire()] });
  await withReplicas([HELLO], async ({ engine, counts }) => {
    const bounds = within();
    strictEqual((await faultOf(engine.run<"chat">(chatOf("hi"), bounds))).kind, "capability_missing");
    strictEqual(bounds.trace.attempts, 0);
    deepStrictEqual(counts(), [0]);
  }, { wires: [lacking] });
});

Deno.test("a caller who leaves while a retry is waited for ends it", async () => {
  await withReplicas([answerStatus(502)], async ({ servers, ask }) => {
    const controller = new AbortController();
    servers[0]?.plays(async (reply, request) => {
      await answerStatus(502)(reply, request);
      setTimeout(() => controller.abort(), 0);
    });
    const fault = await faultOf(ask(within(60_000, controller.signal)));
    // The abort may come before or in the second try, never after a third.
    strictEqual(fault.kind, "client_left");
    ok((servers[0]?.requests.length ?? 0) <= 2);
  });
});

Deno.test("a deadline leaves no time for retries that would not end before it", async () => {
  await withReplicas([hangBeforeHead(), HELLO], async ({ ask, counts }) => {
    strictEqual((await faultOf(ask(within(60)))).kind, "deadline_exceeded");
    deepStrictEqual(counts(), [1, 0]);
  });
});

Deno.test("a closed engine refuses work and leaves the upstreams to others", async () => {
  await withReplicas([HELLO], async ({ engine, upstreams, ask }) => {
    await engine.close();
    strictEqual(engine.state(), "closed");
    strictEqual((await faultOf(ask())).kind, "unavailable");
    strictEqual(upstreams[0]?.refusal(), undefined);
  });
});

Deno.test("an engine without replicas, or on an upstream that is not there, is a mistake of whoever opens it", () => {
  const open = (replicas: readonly { upstream: string; model: string; weight: number }[]) => () =>
    openUpstreamEngine({
      model: { id: "m", replicas, routing: "weighted" },
      upstreams: new Map(),
      clock: systemClock,
    });
  throws(open([]), /no replica/);
  throws(open([{ upstream: "a", model: "m", weight: 1 }]), /no upstream a/);
});
