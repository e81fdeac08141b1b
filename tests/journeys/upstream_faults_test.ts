// Upstream faults: whatever an upstream does, the caller reads our own words in the form of its dialect, the trail has one intent and
// one outcome, and the next request works.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { recordsOf, until, withUpstreams } from "../support/app_with_upstreams.ts";
import {
  answerWell,
  type Door,
  DOORS,
  endsWell,
  eventsIn,
  failureAnswer,
  type FailureCode,
  failureEvent,
  requestThrough,
  servedBehind,
  textIn,
} from "../support/doors.ts";
import { type AuditRecord, type GateJourney, throughTheGate } from "../support/gate_journey.ts";
import {
  answerBytes,
  answerJson,
  drip,
  eventOf,
  hangBeforeHead,
  hangMidBody,
  redirectTo,
  type Reply,
  type Script,
  type ScriptedRequest,
  type ScriptedUpstream,
  sendRaw,
  startScriptedUpstream,
  streamEvents,
} from "../support/scripted_upstream.ts";
import { makeSelfSignedCertificate } from "../support/self_signed_certificate.ts";
import { environmentOfServers, flagsFor, freePort } from "../support/server_under_test.ts";

const ROOT = `${import.meta.dirname}/../..`;
/** Stands in all that an upstream writes where it fails. */
const CANARY = "words-of-the-upstream";
/** What callers say: it belongs into no log and no record. */
const PROMPT = "words-of-the-caller";
const HELLO = "Grüße, 世界 😀";

/** One way to fail. */
interface Failure {
  /** Continues "an upstream that …". */
  readonly what: string;
  play(door: Door): Script;
  readonly code: FailureCode;
  /** How often the request is tried; there is one replica. */
  readonly attempts: number;
  readonly retryAfter?: RegExp;
  /** Where it means one thing in events and another in a whole answer. */
  readonly only?: "streams" | "whole";
  readonly settings?: Readonly<Record<string, unknown>>;
}

/** All that an upstream knows, in its own words: key, prompt, headers. */
function quoted({ headerLines, text }: ScriptedRequest): string {
  return `${CANARY} ${JSON.stringify(headerLines)} ${text()}`;
}

/** An error status whose body and headers tell all. */
function quoting(
  status: number,
  headers: Readonly<Record<string, string>> = {},
  code = "some_error",
): Script {
  return (reply, request) => {
    const message = quoted(request);
    return answerJson({ type: "error", error: { message, type: code, code } }, status, {
      "x-upstream": CANARY,
      "set-cookie": `upstream=${CANARY}`,
      ...headers,
    })(reply, request);
  };
}

/** A good status with a value of the right media type. */
function says(door: Door, value: unknown): Script {
  return door.streams ? streamEvents([eventOf(value)], { then: "hang" }) : answerJson(value);
}

const mediaTypeOf = (door: Door): string => door.streams ? "text/event-stream" : "application/json";
const allOf = (door: Door, words: string): string => [...door.begin, door.text(words), ...door.end].join("");
const ERROR_EVENT = { type: "error", error: { message: CANARY, type: "api_error", code: "boom" } };
const SMALL = { answerBytesMax: 1024 };
const LARGE = `${CANARY} ${"x".repeat(2000)}`;

const BEFORE_THE_ANSWER: readonly Failure[] = [
  {
    what: "takes the request and never answers",
    play: hangBeforeHead,
    code: "upstream-timeout",
    attempts: 1,
    settings: { firstByteTimeoutMs: 800 },
  },
  {
    what: "resets the connection",
    play: () => (reply) => reply.reset(),
    code: "upstream-unreachable",
    attempts: 3,
  },
  {
    what: "closes the connection without an answer",
    play: () => (reply) => reply.drop(),
    code: "upstream-unreachable",
    attempts: 3,
  },
  {
    what: "speaks no HTTP",
    play: () => sendRaw(`220 ${CANARY} ESMTP\r\n\r\n`),
    code: "upstream-answer-invalid",
    attempts: 1,
  },
  {
    what: "answers with a page",
    play: () => (reply, request) =>
      answerBytes(`<!doctype html><title>${quoted(request)}</title>`, "text/html")(reply, request),
    code: "upstream-answer-invalid",
    attempts: 1,
  },
  {
    what: "names no media type",
    play: (door) => answerBytes(allOf(door, CANARY), "", 200),
    code: "upstream-answer-invalid",
    attempts: 1,
  },
  {
    what: "answers with what is no JSON",
    play: (door) =>
      door.streams
        ? streamEvents([`data: {"choices": ${CANARY}\n\n`], { then: "hang" })
        : answerBytes(`{"choices": ${CANARY}`, "application/json"),
    code: "upstream-answer-invalid",
    attempts: 1,
  },
  {
    what: "answers with JSON of another schema",
    play: (door) => says(door, { type: CANARY, choices: 7, content: CANARY, outputs: 7, message: CANARY }),
    code: "upstream-answer-invalid",
    attempts: 1,
  },
  {
    what: "answers with an error under a good status",
    play: (door) => says(door, ERROR_EVENT),
    only: "whole",
    code: "upstream-answer-invalid",
    attempts: 1,
  },
  {
    what: "begins its stream with an error",
    play: (door) => says(door, ERROR_EVENT),
    only: "streams",
    code: "upstream-failed",
    attempts: 1,
  },
  {
    what: "announces an answer that is too large",
    play: (door) => answerBytes(allOf(door, LARGE), mediaTypeOf(door)),
    code: "upstream-answer-invalid",
    attempts: 1,
    settings: SMALL,
  },
  {
    what: "sends an answer that is too large without saying so",
    play: (door) => async (reply) => {
      await reply.head(200, { "content-type": mediaTypeOf(door) });
      await reply.chunk(allOf(door, LARGE));
      await reply.endChunks();
    },
    code: "upstream-answer-invalid",
    attempts: 1,
    settings: SMALL,
  },
  {
    what: "compresses its answer, which nobody asked for",
    play: (door) =>
      answerBytes(gzipSync(allOf(door, "hello")), mediaTypeOf(door), 200, { "content-encoding": "gzip" }),
    code: "upstream-answer-invalid",
    attempts: 1,
  },
  {
    what: "is too busy and says for how many seconds",
    play: () => quoting(429, { "retry-after": "7" }),
    code: "overloaded",
    attempts: 1,
    retryAfter: /^7$/,
  },
  {
    what: "is too busy and says until when",
    play: () => (reply, request) =>
      quoting(429, { "retry-after": new Date(Date.now() + 50_000).toUTCString() })(reply, request),
    code: "overloaded",
    attempts: 1,
    retryAfter: /^(?:[2-9]|[1-5]\d)$/,
  },
  {
    what: "is too busy for years",
    play: () => quoting(503, { "retry-after": "99999999" }),
    code: "overloaded",
    attempts: 1,
    retryAfter: /^60$/,
  },
  {
    what: "is too busy and says nonsense of when to come back",
    play: () => quoting(503, { "retry-after": CANARY }),
    code: "overloaded",
    attempts: 1,
    retryAfter: /^1$/,
  },
  { what: "fails with 500", play: () => quoting(500), code: "upstream-failed", attempts: 1 },
  { what: "fails with 502", play: () => quoting(502), code: "upstream-failed", attempts: 3 },
  { what: "refuses the key with 401", play: () => quoting(401), code: "upstream-failed", attempts: 1 },
  { what: "refuses the key with 403", play: () => quoting(403), code: "upstream-failed", attempts: 1 },
  { what: "does not know the model", play: () => quoting(404), code: "upstream-failed", attempts: 1 },
  {
    what: "says that the input is too long",
    play: () => quoting(400, {}, "context_length_exceeded"),
    code: "context-length-exceeded",
    attempts: 1,
  },
  {
    what: "refuses the input, with the key and the prompt in its words",
    play: () => quoting(400),
    code: "input-refused",
    attempts: 1,
  },
  { what: "refuses the input with 422", play: () => quoting(422), code: "input-refused", attempts: 1 },
  {
    what: "falls silent within the body",
    play: (door) => hangMidBody(`: ${CANARY}`.slice(door.streams ? 0 : 1), mediaTypeOf(door)),
    code: "upstream-timeout",
    attempts: 1,
    settings: { betweenBytesTimeoutMs: 800 },
  },
  {
    what: "resets the connection within the body",
    play: (door) => async (reply) => {
      await reply.head(200, { "content-type": mediaTypeOf(door) });
      await reply.chunk(allOf(door, CANARY).slice(0, 9));
      await reply.pause(50);
      reply.reset();
    },
    code: "upstream-unreachable",
    attempts: 3,
  },
  {
    what: "closes the connection within a body in chunks",
    play: (door) => async (reply) => {
      await reply.head(200, { "content-type": mediaTypeOf(door) });
      await reply.chunk(allOf(door, CANARY).slice(0, 9));
      reply.drop();
    },
    code: "upstream-unreachable",
    attempts: 3,
  },
  {
    what: "closes the connection before the end that it announced",
    play: (door) => async (reply) => {
      await reply.head(200, { "content-type": mediaTypeOf(door), "content-length": "5000" });
      await reply.write(allOf(door, CANARY).slice(0, 9));
      reply.drop();
    },
    code: "upstream-unreachable",
    attempts: 3,
  },
  {
    what: "drips its answer for longer than all of it may take",
    // A stream's first event would be sent on: a comment that never ends is none.
    play: (door) =>
      drip(door.streams ? `: ${"x".repeat(10_000)}` : `${" ".repeat(10_000)}{}`, mediaTypeOf(door), 50),
    code: "upstream-timeout",
    attempts: 1,
    settings: { wholeTimeoutMs: 1200 },
  },
];

/** Redirects are tried with each status that makes clients follow. */
const REDIRECTS = [301, 302, 303, 307, 308];

Deno.test("an upstream that fails before its answer stands is told in our words, in each dialect, and leaves one outcome and a free place", async (test) => {
  const doors: readonly Door[] = [DOORS.chat, DOORS.chatStream, DOORS.messages, DOORS.infer];
  const trap = await startScriptedUpstream({ isHealthCheck: () => false });
  const failures: readonly Failure[] = [
    ...BEFORE_THE_ANSWER,
    ...REDIRECTS.map((status): Failure => ({
      what: `redirects with ${status}`,
      play: (door) => redirectTo(`${trap.url}${door.path("x")}?${CANARY}`, status),
      code: "upstream-failed",
      attempts: 1,
    })),
  ];
  const plans = failures.map((failure, index) => ({
    failure,
    each: doors.filter(({ streams }) =>
      failure.only === undefined || streams === (failure.only === "streams")
    )
      .map((door, at) => ({ door, name: `f${index}-${at}` })),
  }));
  const stage = await openStage();
  const served = plans.flatMap(({ failure, each }) =>
    each.map(({ door, name }) => servedBehind(door, name, stage.url, { ...limited(), ...failure.settings }))
  );
  try {
    await throughTheGate({
      upstreams: served.map(({ upstream }) => upstream),
      models: served.map(({ model }) => model),
      // As many as run at once: a place that one did not give back would be missed.
      variables: { PORTCULLIS_REQUESTS_AT_ONCE_PER_USER: String(doors.length) },
    }, async (journey) => {
      for (const { failure, each } of plans) {
        await test.step(`an upstream that ${failure.what}`, async () => {
          const { code, attempts, retryAfter } = failure;
          await Promise.all(each.map(async ({ door, name }) => {
            stage.plays(name, failure.play(door));
            const response = await ask(journey, door, name);
            await assertFailed(journey, door, response, { code, attempts, servedBy: `${name}/${name}` });
            const wait = response.headers.get("retry-after");
            if (retryAfter === undefined) strictEqual(wait, null);
            else match(wait ?? "none", retryAfter);
            stage.plays(name, answerWell(door, HELLO));
            await assertServed(journey, door, await ask(journey, door, name), name);
          }));
        });
      }
      strictEqual(trap.connections, 0, "a redirect was followed");
      await assertUnspoken(journey, stage);
    });
  } finally {
    await stage.close();
    await trap.close();
  }
});

Deno.test("an upstream where nobody listens, and one that swallows connections, are told apart from one that thinks", async (test) => {
  const doors: readonly Door[] = [DOORS.chat, DOORS.chatStream, DOORS.messages, DOORS.infer];
  const swallowing = await openBlackHole();
  const cases = [
    {
      what: "refused",
      origin: `http://127.0.0.1:${freePort()}`,
      code: "upstream-unreachable",
      attempts: [3, 2],
    },
    { what: "swallowed", origin: swallowing.url, code: "upstream-timeout", attempts: [1, 1] },
  ] as const;
  const served = cases.flatMap(({ what, origin }) =>
    doors.map((door, at) =>
      servedBehind(door, `${what}-${at}`, origin, { ...limited(), connectTimeoutMs: 300 })
    )
  );
  try {
    await throughTheGate({
      upstreams: served.map(({ upstream }) => upstream),
      models: served.map(({ model }) => model),
    }, async (journey) => {
      for (const { what, code, attempts } of cases) {
        await test.step(`a connection that is ${what}`, async () => {
          await Promise.all(doors.map(async (door, at) => {
            const name = `${what}-${at}`;
            // Twice: the place is free again. At the fifth failure in a row nothing more is tried.
            for (const tries of attempts) {
              const expected = { code, attempts: tries, servedBy: `${name}/${name}` };
              await assertFailed(journey, door, await ask(journey, door, name), expected);
            }
          }));
        });
      }
      const log = await logOf(journey);
      match(log, /swallowed-0: no connection came to stand in time/);
      const written = `${log}${JSON.stringify(journey.records())}`;
      for (const { origin } of cases) ok(!written.includes(new URL(origin).port), "an address is on record");
    });
  } finally {
    swallowing.close();
  }
});

/** One way to fail after a piece of a stream was sent. */
interface BreakUp {
  /** Continues "an upstream that …". */
  readonly what: string;
  play(reply: Reply, door: Door): Promise<void> | void;
  readonly inOrder?: boolean;
  readonly code: FailureCode;
  readonly settings?: Readonly<Record<string, unknown>>;
}

const WITHIN_A_STREAM: readonly BreakUp[] = [
  {
    what: "falls silent",
    play: (reply) => reply.closed,
    code: "upstream-timeout",
    settings: { betweenBytesTimeoutMs: 800 },
  },
  { what: "resets the connection", play: (reply) => reply.reset(), code: "upstream-unreachable" },
  { what: "closes the connection", play: (reply) => reply.drop(), code: "upstream-unreachable" },
  {
    what: "ends in order, but without its mark",
    play: (reply) => reply.endChunks(),
    inOrder: true,
    code: "upstream-unreachable",
  },
  {
    what: "sends an event that is no JSON",
    play: (reply) => reply.chunk(`data: {${CANARY}\n\n`),
    code: "upstream-answer-invalid",
  },
  {
    what: "sends an event of another schema",
    play: (reply) => reply.chunk(eventOf({ type: "content_block_delta", delta: CANARY, choices: CANARY })),
    code: "upstream-answer-invalid",
  },
  {
    what: "sends what is no UTF-8",
    play: (reply) => reply.chunk(Uint8Array.of(0x64, 0xff, 0x0a, 0x0a)),
    code: "upstream-answer-invalid",
  },
  {
    what: "sends an error",
    play: (reply) =>
      reply.chunk(eventOf({ type: "error", error: { type: "api_error", message: CANARY } }, "error")),
    code: "upstream-failed",
  },
  {
    what: "never ends",
    play: async (reply, door) => {
      while (!reply.isClosed()) await reply.chunk(door.text("and so on "));
    },
    code: "upstream-answer-invalid",
    settings: { answerBytesMax: 8192 },
  },
  {
    what: "never ends an event",
    play: async (reply) => {
      await reply.chunk("data: ");
      while (!reply.isClosed()) await reply.chunk("x".repeat(512));
    },
    code: "upstream-answer-invalid",
    settings: { answerBytesMax: 8192 },
  },
  {
    what: "drips for longer than all of it may take",
    play: async (reply, door) => {
      for (; !reply.isClosed(); await reply.pause(50)) await reply.chunk(door.text("and so on "));
    },
    code: "upstream-timeout",
    settings: { wholeTimeoutMs: 1200 },
  },
];

const STREAMS: readonly Door[] = [
  DOORS.chatStream,
  DOORS.completionStream,
  DOORS.responsesStream,
  DOORS.messagesStream,
  // The dialect of one with the engine of another.
  {
    ...DOORS.chatStream,
    ...pick(DOORS.messagesStream, "kind", "begin", "text", "end"),
    name: "chat by messages",
  },
  {
    ...DOORS.messagesStream,
    ...pick(DOORS.chatStream, "kind", "begin", "text", "end"),
    name: "messages by chat",
  },
];

Deno.test("an upstream that fails within a stream ends it with one event in our words; the trail counts what was sent", async (test) => {
  const plans = WITHIN_A_STREAM.map((failure, index) => ({
    failure,
    each: STREAMS.map((door, at) => ({ door, name: `s${index}-${at}` })),
  }));
  const stage = await openStage();
  const served = plans.flatMap(({ failure, each }) =>
    each.map(({ door, name }) => servedBehind(door, name, stage.url, { ...limited(), ...failure.settings }))
  );
  try {
    await throughTheGate({
      upstreams: served.map(({ upstream }) => upstream),
      models: served.map(({ model }) => model),
      variables: { PORTCULLIS_REQUESTS_AT_ONCE_PER_USER: String(STREAMS.length) },
    }, async (journey) => {
      for (const { failure, each } of plans) {
        await test.step(`an upstream that ${failure.what}`, async () => {
          await Promise.all(each.map(async ({ door, name }) => {
            const seen = Promise.withResolvers<void>();
            stage.plays(name, async (reply) => {
              await reply.head(200, { "content-type": "text/event-stream", "x-upstream": CANARY });
              for (const piece of [...door.begin, door.text(HELLO)]) await reply.chunk(piece);
              await seen.promise;
              await failure.play(reply, door);
              // What ended in order takes the next request; all else hangs on, so that it is the gate that ends it.
              if (failure.inOrder !== true) await reply.closed;
            });
            const response = await ask(journey, door, name);
            strictEqual(response.status, 200);
            const text = await readStream(response, (soFar) => {
              if (soFar.includes("Grüße")) seen.resolve();
            });
            seen.resolve();
            const events = eventsIn(text);
            assertFailureEvent(door, failure.code, response, events.pop());
            ok(textIn(door, events).startsWith(HELLO), text);
            ok(!endsWell(events));
            ok(!text.includes(CANARY), text);
            const [started, finished] = await outcomeRecords(journey, response);
            strictEqual(started?.model, name);
            deepStrictEqual(
              [finished?.outcome, finished?.servedBy, finished?.attempts, finished?.countedBy],
              [failure.code, `${name}/${name}`, 1, "estimate"],
            );
            ok(Number(finished?.inputTokens) > 0 && Number(finished?.outputTokens) > 0);
            stage.plays(name, answerWell(door, HELLO));
            await assertServed(journey, door, await ask(journey, door, name), name);
          }));
        });
      }
      await assertUnspoken(journey, stage);
    });
  } finally {
    await stage.close();
  }
});

/** Line ends of every kind, fields, an end mark: what a model may say, and what no event may become of. */
const FORGERY =
  'one\n\ndata: {"forged":1}\n\nevent: forged\rid: 7\r\n\r\ndata: [DONE]\n\n\u2028\u2029\u0000: two';

Deno.test("no text and no field of an upstream forges an event, and events are the same however they come in pieces", async (test) => {
  const stage = await openStage();
  const served = STREAMS.map((door, at) => servedBehind(door, `w-${at}`, stage.url, limited()));
  try {
    await throughTheGate({
      upstreams: served.map(({ upstream }) => upstream),
      models: served.map(({ model }) => model),
    }, async (journey) => {
      for (const [at, door] of STREAMS.entries()) {
        const name = `w-${at}`;
        const eventsOf = async (script: Script) => {
          stage.plays(name, script);
          const response = await ask(journey, door, name);
          const text = await response.text();
          strictEqual(response.status, 200, text);
          const events = eventsIn(text);
          ok(endsWell(events), text);
          const [, finished] = await outcomeRecords(journey, response);
          deepStrictEqual([finished?.outcome, finished?.outputTokens, finished?.countedBy], [
            "completed",
            2,
            "engine",
          ]);
          return { events, text };
        };
        const plain = await eventsOf(answerWell(door, HELLO));

        await test.step(`${door.name}: line ends and fields in a text stay in the text`, async () => {
          const { events } = await eventsOf(answerWell(door, FORGERY));
          deepStrictEqual(events.map(({ event }) => event), plain.events.map(({ event }) => event));
          strictEqual(textIn(door, events), FORGERY);
        });

        await test.step(`${door.name}: what else an upstream writes into its events is not passed on`, async () => {
          const forged = `forged\n\ndata: {"forged":1}\n\n`;
          const pieces = [...door.begin, door.text(HELLO), ...door.end].map((event) => {
            const data = /^data: (\{.*)$/m.exec(event)?.[1];
            if (data === undefined) return event;
            const members = { id: forged, object: forged, created: forged, model: forged, forged };
            return `: forged\nid: forged\nretry: 1\nforged: 1\n${
              event.replace(data, () => JSON.stringify({ ...JSON.parse(data), ...members }))
            }`;
          });
          const { events, text } = await eventsOf(streamEvents(pieces));
          strictEqual(events.length, plain.events.length);
          ok(!text.includes("forged"), text);
        });

        await test.step(`${door.name}: a stream that comes byte by byte is the same stream`, async () => {
          const bytes = new TextEncoder().encode(allOf(door, HELLO));
          const { events } = await eventsOf(streamEvents([...bytes].map((byte) => Uint8Array.of(byte))));
          strictEqual(textIn(door, events), HELLO);
        });

        await test.step(`${door.name}: line ends of the other kinds mean the same`, async () => {
          for (const lineEnd of ["\r\n", "\r"]) {
            const { events } = await eventsOf(streamEvents([allOf(door, HELLO).replaceAll("\n", lineEnd)]));
            strictEqual(textIn(door, events), HELLO);
          }
        });
      }
    });
  } finally {
    await stage.close();
  }
});

Deno.test("a deadline of ours ends what an upstream does not: with 504 before the first piece, with an event after it", async () => {
  const doors: readonly Door[] = [DOORS.chat, DOORS.messages, DOORS.infer, ...STREAMS];
  const stage = await openStage();
  const served = doors.map((door, at) => servedBehind(door, `d-${at}`, stage.url, limited()));
  try {
    await withUpstreams({
      upstreams: served.map(({ upstream }) => upstream),
      models: served.map(({ model }) => model),
      variables: { PORTCULLIS_GENERATION_TIMEOUT_MS: "1500", PORTCULLIS_REQUEST_TIMEOUT_MS: "1500" },
    }, async (app) => {
      const token = await app.tokenFor("user");
      await Promise.all(doors.map(async (door, at) => {
        const name = `d-${at}`;
        stage.plays(name, async (reply) => {
          if (!door.streams) return await reply.closed;
          await reply.head(200, { "content-type": "text/event-stream" });
          for (const piece of door.begin) await reply.chunk(piece);
          for (; !reply.isClosed(); await reply.pause(50)) await reply.chunk(door.text("and so on "));
        });
        const response = await app.call(door.path(name), requestThrough(door, name, PROMPT, token));
        const text = await response.text();
        if (door.streams) {
          assertFailureEvent(door, "deadline-exceeded", response, eventsIn(text).pop());
        } else {
          const [status, body] = failureAnswer(
            door.dialect,
            "deadline-exceeded",
            response.headers.get("x-request-id"),
          );
          deepStrictEqual([response.status, JSON.parse(text)], [status, body]);
        }
        const [, finished] = await recordsOf(app, response);
        deepStrictEqual([finished?.outcome, finished?.attempts], ["deadline-exceeded", 1]);
      }));
    });
  } finally {
    await stage.close();
  }
});

Deno.test("a client that leaves in the middle of a stream closes the connection to the upstream, and the record says so", async (test) => {
  await withClients(async ({ journey, stage, nameOf }) => {
    for (const door of STREAMS) {
      await test.step(door.name, async () => {
        const name = nameOf(door);
        const before = stage.server.requests.length;
        stage.plays(name, async (reply) => {
          await reply.head(200, { "content-type": "text/event-stream" });
          for (const piece of [...door.begin, door.text(HELLO)]) await reply.chunk(piece);
          await reply.closed;
        });
        const response = await ask(journey, door, name);
        const reader = response.body?.getReader();
        await reader?.read();
        const upstreams = await stage.server.request(before);
        await reader?.cancel();
        await assertLeft(upstreams);
        const [, finished] = await outcomeRecords(journey, response);
        deepStrictEqual([finished?.outcome, finished?.servedBy, finished?.attempts], [
          "client-left",
          `${name}/${name}`,
          1,
        ]);
        stage.plays(name, answerWell(door, HELLO));
        await assertServed(journey, door, await ask(journey, door, name), name);
      });
    }
  });
});

for (
  const [size, words] of [
    ["a small request", PROMPT],
    ["a request of 300 kB", `${PROMPT} `.repeat(15_000)],
  ] as const
) {
  Deno.test(`a client that leaves after ${size}, before any answer, closes the connection to the upstream, and the record says so`, async (test) => {
    await withClients(async ({ journey, stage, nameOf }) => {
      for (const door of [DOORS.chat, DOORS.chatStream, DOORS.messages, DOORS.infer]) {
        await test.step(door.name, async () => {
          const name = nameOf(door);
          const before = stage.server.requests.length;
          stage.plays(name, hangBeforeHead());
          const leaving = new AbortController();
          const asked = ask(journey, door, name, { words, signal: leaving.signal }).catch((error: Error) =>
            error.name
          );
          const upstreams = await stage.server.request(before);
          await until("the whole request has come", () => upstreams.text().includes(words.slice(-20)));
          leaving.abort();
          strictEqual(await asked, "AbortError");
          await assertLeft(upstreams);
          const finished = await lastOutcome(journey, name);
          deepStrictEqual([finished.outcome, finished.attempts], ["client-left", 1]);
          stage.plays(name, answerWell(door, HELLO));
          await assertServed(journey, door, await ask(journey, door, name), name);
        });
      }
    });
  });
}

Deno.test("a client that leaves in the middle of an upload leaves no half file behind: the upstream's connection closes, the record says so", async () => {
  await withClients(async ({ journey, stage }) => {
    const before = stage.server.requests.length;
    stage.plays("sound", answerJson({ text: CANARY }));
    const leaving = new AbortController();
    const upload = soundUpload("sound", 3 * 1024 * 1024);
    const asked = journey.fetch(`${journey.origin}/v1/audio/transcriptions`, {
      ...upload.request(journey.token),
      signal: leaving.signal,
    }).catch((error: Error) => error.name);
    const upstreams = await stage.server.request(before);
    await until("the upload is under way", () => upload.sent() >= 2 * 1024 * 1024);
    leaving.abort();
    upload.end();
    strictEqual(await asked, "AbortError");
    await assertLeft(upstreams);
    const finished = await lastOutcome(journey, "sound");
    deepStrictEqual([finished.outcome, finished.attempts, finished.servedBy], [
      "client-left",
      1,
      "sound/sound",
    ]);

    // One that leaves before an engine began leaves a refusal, and no engine hears of it.
    const early = new AbortController();
    const begun = soundUpload("sound", 128 * 1024);
    const refusals = (): AuditRecord[] => journey.records().filter(({ type }) => type === "request.refused");
    const askedEarly = journey.fetch(`${journey.origin}/v1/audio/transcriptions`, {
      ...begun.request(journey.token),
      signal: early.signal,
    }).catch((error: Error) => error.name);
    await until("the upload is under way", () => begun.sent() >= 128 * 1024);
    early.abort();
    begun.end();
    strictEqual(await askedEarly, "AbortError");
    await until("it is refused", () => refusals().length > 0);
    deepStrictEqual(refusals().map(({ code }) => code), ["client-left"]);
    strictEqual(stage.server.requests.length, before + 1);

    // The next one works.
    const whole = soundUpload("sound", 3 * 1024 * 1024, true);
    const response = await journey.fetch(
      `${journey.origin}/v1/audio/transcriptions`,
      whole.request(journey.token),
    );
    deepStrictEqual([response.status, await response.json()], [200, { text: CANARY }]);
  });
});

Deno.test("sound that breaks off is broken off here too, so that nobody takes it for whole; a caller who leaves it frees the engine", async () => {
  await withClients(async ({ journey, stage }) => {
    const request = {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${journey.token}` },
      body: JSON.stringify({ model: "voice", input: PROMPT, voice: "any" }),
    };
    for (const how of ["reset", "drop", "leave"] as const) {
      const seen = Promise.withResolvers<void>();
      const before = stage.server.requests.length;
      stage.plays("voice", async (reply) => {
        await reply.head(200, { "content-type": "audio/mpeg" });
        await reply.chunk(new Uint8Array(1000));
        await seen.promise;
        how === "leave" ? await reply.closed : reply[how]();
      });
      const response = await journey.fetch(`${journey.origin}/v1/audio/speech`, request);
      strictEqual(response.status, 200);
      const reader = response.body?.getReader();
      await reader?.read();
      seen.resolve();
      if (how === "leave") {
        await reader?.cancel();
        await assertLeft(await stage.server.request(before));
      } else {
        await rejects(async () => {
          while ((await reader?.read())?.done === false);
        });
      }
      const [, finished] = await outcomeRecords(journey, response);
      deepStrictEqual([finished?.outcome, finished?.servedBy, finished?.attempts], [
        how === "leave" ? "client-left" : "upstream-unreachable",
        "voice/voice",
        1,
      ]);
    }
  });
});

Deno.test("SIGTERM ends streams with an event and waiting requests with 503, in each dialect; all is recorded, and the exit is in order", async () => {
  const waiting: readonly Door[] = [DOORS.chat, DOORS.chatStream, DOORS.messages, DOORS.infer];
  await withClients(async ({ journey, stage, nameOf }) => {
    const upstreams: ScriptedRequest[] = [];
    const streams = await Promise.all(STREAMS.map(async (door) => {
      stage.plays(nameOf(door), async (reply, request) => {
        upstreams.push(request);
        await reply.head(200, { "content-type": "text/event-stream" });
        for (const piece of [...door.begin, door.text(HELLO)]) await reply.chunk(piece);
        await reply.closed;
      });
      const response = await ask(journey, door, nameOf(door));
      const seen = Promise.withResolvers<void>();
      const text = readStream(response, (soFar) => {
        if (soFar.includes("Grüße")) seen.resolve();
      });
      await Promise.race([seen.promise, text]);
      return { door, response, text };
    }));
    const whole = waiting.map((door) => {
      stage.plays(`${nameOf(door)}-2`, async (reply, request) => {
        upstreams.push(request);
        await reply.closed;
      });
      return { door, asked: ask(journey, door, `${nameOf(door)}-2`) };
    });
    await until("all requests are under way", () => upstreams.length === STREAMS.length + waiting.length);
    const stopping = journey.stop();

    for (const { door, response, text } of streams) {
      const events = eventsIn(await text);
      assertFailureEvent(door, "stopping", response, events.pop());
      strictEqual(textIn(door, events), HELLO);
      const [, finished] = await outcomeRecords(journey, response);
      deepStrictEqual([finished?.outcome, finished?.countedBy], ["stopping", "estimate"]);
    }
    for (const { door, asked } of whole) {
      const response = await asked;
      const [status, body] = failureAnswer(door.dialect, "stopping", response.headers.get("x-request-id"));
      deepStrictEqual([response.status, await response.json()], [status, body]);
      const [, finished] = await outcomeRecords(journey, response);
      strictEqual(finished?.outcome, "stopping");
    }
    for (const request of upstreams) await assertLeft(request);
    strictEqual((await stopping).code, 0);
    strictEqual(journey.records().at(-1)?.type, "server.stopped");
  }, { PORTCULLIS_SHUTDOWN_TIMEOUT_MS: "3000" });
});

Deno.test("an upstream with a certificate that nobody vouches for is not spoken to, and is with caFile, under the flags of `deno task flags`", async () => {
  const certificate = await makeSelfSignedCertificate();
  const other = await makeSelfSignedCertificate();
  const folder = await Deno.makeTempDir();
  Deno.writeTextFileSync(`${folder}/ca.pem`, certificate.certificatePem);
  Deno.writeTextFileSync(`${folder}/other.pem`, other.certificatePem);
  const server = await startScriptedUpstream({ certificate });
  server.plays(answerWell(DOORS.chat, HELLO));
  const door = DOORS.chat;
  const served = [
    servedBehind(door, "unknown", server.url, limited()),
    servedBehind(door, "wrong", server.url, { ...limited(), caFile: `${folder}/other.pem` }),
    // The certificate is of localhost.
    servedBehind(door, "misnamed", server.url.replace("localhost", "127.0.0.1"), {
      ...limited(),
      caFile: `${folder}/ca.pem`,
    }),
    servedBehind(door, "known", server.url, { ...limited(), caFile: `${folder}/ca.pem` }),
  ];
  try {
    await throughTheGate({
      upstreams: served.map(({ upstream }) => upstream),
      models: served.map(({ model }) => model),
    }, async (journey) => {
      for (const name of ["unknown", "wrong", "misnamed"]) {
        const expected = { code: "upstream-unreachable", attempts: 3, servedBy: `${name}/${name}` } as const;
        await assertFailed(journey, door, await ask(journey, door, name), expected);
      }
      deepStrictEqual(server.requests, []);
      await assertServed(journey, door, await ask(journey, door, "known"), "known");
      strictEqual(server.requests.length, 1);
    });
  } finally {
    await server.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a start with the flags of `deno task start` and upstreams in the settings names the task that fits, and exits with 69", async () => {
  const upstream = await startScriptedUpstream();
  const folder = await Deno.makeTempDir();
  const port = String(freePort());
  const own = { PORTCULLIS_PORT: port, PORTCULLIS_DATA_DIR: folder };
  const settings = {
    ...own,
    PORTCULLIS_UPSTREAMS: JSON.stringify([{ name: "a", kind: "openai", url: `${upstream.url}/v1` }]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([
      { id: "m", capabilities: ["chat"], servedBy: [{ upstream: "a" }] },
    ]),
  };
  // The set of deno.json and, so that nothing else is missing, the flags that fit the same settings without upstreams.
  for (
    const flags of [["-P=server", "--no-prompt", "--cached-only", "--frozen", "--no-remote"], flagsFor(own)]
  ) {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", ...flags, "src/main.ts"],
      cwd: ROOT,
      env: { ...environmentOfServers(), ...settings, NO_COLOR: "1" },
      clearEnv: true,
      stdin: "null",
    }).output();
    const said = new TextDecoder().decode(Uint8Array.from([...stdout, ...stderr]));
    strictEqual(code, 69, said);
    match(said, /deno task serve/);
    match(said, new RegExp(`may not reach ${new URL(upstream.url).host}`));
  }
  deepStrictEqual([...Deno.readDirSync(folder)], [], "something was left behind");
  strictEqual(upstream.connections, 0);
  await upstream.close();
  await Deno.remove(folder, { recursive: true });
});

/** A scripted server that plays for each model its own script. */
interface Stage {
  readonly server: ScriptedUpstream;
  readonly url: string;
  /** What requests for a model get from now on. */
  plays(model: string, script: Script): void;
  close(): Promise<void>;
}

async function openStage(): Promise<Stage> {
  const server = await startScriptedUpstream();
  const scripts = new Map<string, Script>();
  server.plays(async (reply, request) => {
    const script = scripts.get(modelIn(request));
    if (script === undefined) throw new Error(`no script for ${request.target}`);
    await script(reply, request);
  });
  return {
    server,
    url: server.url,
    plays: (model, script) => scripts.set(model, script),
    close: () => server.close(),
  };
}

/** The model that a request names: in its path, in its form, or in its body. */
function modelIn(request: ScriptedRequest): string {
  const inPath = /^\/v2\/models\/([^/]+)\/infer$/.exec(request.target)?.[1];
  if (inPath !== undefined) return decodeURIComponent(inPath);
  if (!request.headers.get("content-type")?.startsWith("multipart/")) return request.json().model;
  return /name="model"\r\n\r\n([^\r]+)/.exec(new TextDecoder("latin1").decode(request.body()))?.[1] ?? "";
}

/** Settings of every upstream here: a secret, one place, and time-outs that end a test which went wrong. */
function limited(): {
  readonly key: string;
  readonly requestsAtOnceMax: number;
  readonly firstByteTimeoutMs: number;
} {
  return { key: `canary-${crypto.randomUUID()}`, requestsAtOnceMax: 1, firstByteTimeoutMs: 5000 };
}

/** A listener whose backlog is full: connections to it never come to stand. */
async function openBlackHole(): Promise<{ readonly url: string; close(): void }> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const waiting: Deno.Conn[] = [];
  for (;;) {
    const giveUp = new AbortController();
    const timer = setTimeout(() => giveUp.abort(), 1000);
    try {
      waiting.push(await Deno.connect({ hostname: "127.0.0.1", port, signal: giveUp.signal }));
    } catch {
      break;
    } finally {
      clearTimeout(timer);
    }
  }
  return {
    url: `http://127.0.0.1:${port}`,
    close() {
      for (const connection of waiting) connection.close();
      listener.close();
    },
  };
}

/** Models of `withClients` that are behind no door. */
const OTHER_CAPABILITIES: Readonly<Record<string, string>> = { sound: "transcription", voice: "speech" };

/** A journey with a stage and, for every door, a model `NAME` and a model `NAME-2`, besides those others. */
async function withClients(
  run: (parts: { journey: GateJourney; stage: Stage; nameOf(door: Door): string }) => Promise<void>,
  variables: Record<string, string> = {},
): Promise<void> {
  const doors: readonly Door[] = [DOORS.chat, DOORS.messages, DOORS.infer, ...STREAMS];
  const nameOf = (door: Door): string => `c-${doors.findIndex(({ name }) => name === door.name)}`;
  const stage = await openStage();
  const served = [
    ...doors.flatMap((door) =>
      [nameOf(door), `${nameOf(door)}-2`].map((name) => servedBehind(door, name, stage.url, limited()))
    ),
    ...Object.keys(OTHER_CAPABILITIES).map((name) => servedBehind(DOORS.chat, name, stage.url, limited())),
  ];
  try {
    await throughTheGate({
      upstreams: served.map(({ upstream }) => upstream),
      models: served.map(({ model }) => {
        const capability = OTHER_CAPABILITIES[String(model.id)];
        return capability === undefined ? model : { ...model, capabilities: [capability] };
      }),
      variables,
    }, (journey) => run({ journey, stage, nameOf }));
  } finally {
    await stage.close();
  }
}

/** A form with a file of sound that comes piece by piece, its model first. */
function soundUpload(
  model: string,
  bytes: number,
  ends = false,
): { request(token: string): RequestInit; sent(): number; end(): void } {
  const boundary = "----test-boundary";
  const encoder = new TextEncoder();
  const head = encoder.encode(
    `--${boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n${model}\r\n` +
      `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\nfLaC`,
  );
  const piece = new Uint8Array(64 * 1024).fill(0x61);
  const over = Promise.withResolvers<void>();
  let sent = -head.length;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      if (sent < 0) {
        sent = 0;
        controller.enqueue(head);
      } else if (sent < bytes) {
        sent += piece.length;
        controller.enqueue(piece);
      } else {
        // More was promised and does not come.
        if (!ends) await over.promise;
        else controller.enqueue(encoder.encode(`\r\n--${boundary}--\r\n`));
        controller.close();
      }
    },
  }, { highWaterMark: 0 });
  return {
    request: (token) => ({
      method: "POST",
      headers: {
        "content-type": `multipart/form-data; boundary=${boundary}`,
        authorization: `Bearer ${token}`,
      },
      body,
    }),
    sent: () => sent,
    end: () => over.resolve(),
  };
}

function ask(
  { origin, token, fetch }: GateJourney,
  door: Door,
  model: string,
  { words = PROMPT, signal }: { readonly words?: string; readonly signal?: AbortSignal } = {},
): Promise<Response> {
  return fetch(`${origin}${door.path(model)}`, {
    ...requestThrough(door, model, words, token),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** The intent and the outcome of an answer's request: there is nothing else of it. */
async function outcomeRecords(journey: GateJourney, response: Response): Promise<readonly AuditRecord[]> {
  const id = response.headers.get("x-request-id") ?? "";
  await journey.outcomeOf(id);
  const records = journey.records().filter(({ request }) => request === id);
  deepStrictEqual(records.map(({ type }) => type), ["inference.started", "inference.finished"]);
  return records;
}

/** The outcome of the last request for a model, as soon as each intent has one. */
async function lastOutcome(journey: GateJourney, model: string): Promise<AuditRecord> {
  const of = (type: string) =>
    journey.records().filter((record) => record.type === type && record.model === model);
  await until(
    "each intent has an outcome",
    () =>
      of("inference.finished").length > 0 &&
      of("inference.finished").length === of("inference.started").length,
  );
  const last = of("inference.finished").at(-1);
  ok(last);
  return last;
}

/** An answer that tells of a failure, with what belongs to it in the trail. */
async function assertFailed(
  journey: GateJourney,
  door: Door,
  response: Response,
  expected: { readonly code: FailureCode; readonly attempts: number; readonly servedBy: string },
): Promise<void> {
  const text = await response.text();
  const [status, body] = failureAnswer(door.dialect, expected.code, response.headers.get("x-request-id"));
  strictEqual(response.headers.get("content-type"), "application/json", text);
  deepStrictEqual([response.status, JSON.parse(text)], [status, body], door.name);
  for (const name of ["x-upstream", "set-cookie", "location", "server"]) {
    strictEqual(response.headers.get(name), null);
  }
  const [started, finished] = await outcomeRecords(journey, response);
  strictEqual(started?.model, finished?.model);
  deepStrictEqual(
    [
      finished?.outcome,
      finished?.attempts,
      finished?.servedBy,
      finished?.inputTokens,
      finished?.outputTokens,
    ],
    [expected.code, expected.attempts, expected.servedBy, 0, 0],
    door.name,
  );
}

/** A good answer that says hello. */
async function assertServed(
  journey: GateJourney,
  door: Door,
  response: Response,
  name: string,
): Promise<void> {
  const text = await response.text();
  strictEqual(response.status, 200, `${door.name}: ${text}`);
  if (door.streams) {
    const events = eventsIn(text);
    ok(endsWell(events), text);
    strictEqual(textIn(door, events), HELLO);
  } else ok(text.includes(HELLO), text);
  strictEqual(response.headers.get("x-portcullis-served-by"), `${name}/${name}`);
  const [, finished] = await outcomeRecords(journey, response);
  deepStrictEqual([finished?.outcome, finished?.attempts], ["completed", 1]);
}

function assertFailureEvent(
  door: Door,
  code: FailureCode,
  response: Response,
  last: { readonly event: string; readonly data: string } | undefined,
): void {
  const expected = failureEvent(door, code, response.headers.get("x-request-id"));
  const data = JSON.parse(last?.data ?? "null");
  // Events of the Responses API bear a type and a number.
  const numbered = typeof data?.sequence_number === "number"
    ? { type: "error", sequence_number: data.sequence_number }
    : {};
  deepStrictEqual({ event: last?.event, data }, {
    event: expected.event,
    data: { ...expected.data as Record<string, unknown>, ...numbered },
  }, door.name);
}

/** The connection to the upstream closes, and the gate closed it. */
async function assertLeft(request: ScriptedRequest): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, 15_000));
  await Promise.race([request.closed, late]);
  clearTimeout(timer);
  ok(request.closedByPeer(), "the connection to the upstream still stands");
}

/** Neither the upstream's words and address nor the caller's are in log and trail. */
async function assertUnspoken(journey: GateJourney, stage: Stage): Promise<void> {
  const written = `${await logOf(journey)}${JSON.stringify(journey.records())}`;
  for (const words of [CANARY, PROMPT, new URL(stage.url).host]) {
    ok(!written.includes(words), `${words} is in the log or the trail`);
  }
}

/** All of the log: it is whole when the process has ended. */
async function logOf(journey: GateJourney): Promise<string> {
  strictEqual((await journey.stop()).code, 0);
  return journey.server.output();
}

/** A stream's text; `onText` hears all that came so far, each time that more has come. */
async function readStream(response: Response, onText: (soFar: string) => void): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes, { stream: true });
    onText(text);
  }
  return text;
}

function pick<Value, Name extends keyof Value>(value: Value, ...names: Name[]): Pick<Value, Name> {
  return Object.fromEntries(names.map((name) => [name, value[name]])) as Pick<Value, Name>;
}
