// Tests of upstreams: calls with whole answers, their bounds and ends, health, breaker and TLS.
import { deepStrictEqual, match, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { openUpstream, type Upstream } from "../../../src/engines/upstream/upstream.ts";
import { breakerOutcome } from "../../../src/engines/upstream/upstream_fault.ts";
import type { CallBounds } from "../../../src/engines/upstream/upstream_call.ts";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { systemClock } from "../../../src/time/clock.ts";
import {
  answerBusy,
  answerBytes,
  answerHtml,
  answerJson,
  answerStatus,
  drip,
  hangBeforeHead,
  hangMidBody,
  redirectTo,
  type Script,
  sendRaw,
  startScriptedUpstream,
  streamEndlessly,
  streamEvents,
} from "../../support/scripted_upstream.ts";
import { makeSelfSignedCertificate } from "../../support/self_signed_certificate.ts";
import { chatOf, createTestWire, transcriptionOf } from "./test_wire.ts";
import { faultOf, isFault, settingsOf, until, within, withUpstream } from "./upstream_under_test.ts";

const options = { model: "m", usageInStreams: true };
const HELLO = answerJson({ text: "hello" });

/** One chat, read whole. */
async function ask(upstream: Upstream, bounds: CallBounds = within()): Promise<string | undefined> {
  const answer = await upstream.whole<"chat">(upstream.wire.whole<"chat">(chatOf("hi"), options), bounds);
  return answer.choices[0]?.text;
}

Deno.test("a call sends exactly its own headers, with the key, and reads the answer", async () => {
  await withUpstream({ key: "sk-1" }, async ({ server, upstream }) => {
    server.plays(HELLO);
    strictEqual(await ask(upstream), "hello");
    const [request] = server.requests;
    strictEqual(`${request?.method} ${request?.target}`, "POST /run");
    deepStrictEqual(request?.json(), { model: "m", text: "hi" });
    deepStrictEqual(
      [...request?.headerLines ?? []].map(([name, value]) => `${name}: ${value}`).sort(),
      [
        "accept-encoding: identity",
        "accept-language: *", // the runtime's own; it says nothing
        "accept: application/json",
        "authorization: Bearer sk-1",
        "content-length: 25",
        "content-type: application/json",
        `host: ${new URL(server.url).host}`,
        "user-agent: portcullis",
      ].sort(),
    );
    strictEqual(upstream.inFlight, 0);
  });
});

Deno.test("calls one after the other share a connection", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(HELLO);
    for (let count = 0; count < 10; count++) await ask(upstream);
    ok(server.connections <= 2, "one, and perhaps one of the health check");
  });
});

const BROKEN_ANSWERS: readonly [string, FaultKind, Script][] = [
  ["a page", "upstream_answer_invalid", answerHtml()],
  ["malformed JSON", "upstream_answer_invalid", answerBytes('{"text":"secret words', "application/json")],
  ["JSON of another shape", "upstream_answer_invalid", answerJson({ other: 1 })],
  ["an empty body", "upstream_answer_invalid", answerBytes("", "application/json")],
  ["no media type", "upstream_answer_invalid", sendRaw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")],
  ["no content", "upstream_answer_invalid", sendRaw("HTTP/1.1 204 No Content\r\n\r\n")],
  [
    "a compressed body",
    "upstream_answer_invalid",
    answerBytes('{"text":"hello"}', "application/json", 200, { "content-encoding": "gzip" }),
  ],
  [
    "a length beyond the bound",
    "upstream_answer_invalid",
    answerBytes("x".repeat(1_000_001), "application/json"),
  ],
  [
    "a huge length and a hanging body",
    "upstream_answer_invalid",
    async (reply) => {
      await reply.head(200, { "content-type": "application/json", "content-length": "99999999999" });
      await reply.closed;
    },
  ],
  [
    "a body beyond the bound in chunks",
    "upstream_answer_invalid",
    async (reply) => {
      await reply.head(200, { "content-type": "application/json" });
      for (let count = 0; count < 200; count++) await reply.chunk("x".repeat(10_000));
    },
  ],
  ["bytes that are no HTTP", "upstream_answer_invalid", sendRaw("SSH-2.0-OpenSSH_9.9\r\n\r\n")],
  ["nothing", "upstream_unreachable", sendRaw("")],
  ["half a head", "upstream_unreachable", sendRaw("HTTP/1.1 200 OK\r\ncontent-ty")],
  ["a reset before the head", "upstream_unreachable", sendRaw("", "reset")],
  [
    "a body shorter than its length",
    "upstream_unreachable",
    sendRaw(
      'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"text":"hello"}',
    ),
  ],
  [
    "chunks without the last",
    "upstream_unreachable",
    sendRaw(
      'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{"text":"hello"}\r\n',
    ),
  ],
  [
    "chunks that are none",
    "upstream_unreachable",
    sendRaw(
      "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ),
  ],
  [
    "a reset within a body without length",
    "upstream_unreachable",
    sendRaw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"text":"hello"}', "reset"),
  ],
  ["a status 500", "upstream_failed", answerJson({ error: { message: "secret words" } }, 500)],
  ["a status 404", "upstream_failed", answerStatus(404)],
  ["a status 400", "input_refused", answerJson({ error: { message: "secret words" } }, 400)],
  [
    "a context that is too small",
    "context_length_exceeded",
    answerJson({ error: { message: "secret words", code: "context_length_exceeded" } }, 400),
  ],
  ["a status 429", "overloaded", answerBusy(429, "7")],
];

for (const [name, kind, script] of BROKEN_ANSWERS) {
  Deno.test(`${name} as an answer is a fault ${kind} that quotes nothing`, async () => {
    await withUpstream({ key: "sk-secret" }, async ({ server, upstream }) => {
      server.plays(script);
      const fault = await faultOf(ask(upstream));
      strictEqual(fault.kind, kind);
      ok(!/secret|sk-|127\.0\.0\.1/.test(`${fault.message} ${JSON.stringify(fault.details)} ${fault.cause}`));
      strictEqual(upstream.inFlight, 0);
      server.plays(HELLO);
      strictEqual(await ask(upstream), "hello", "the next call is not touched by it");
    });
  });
}

Deno.test("an error's body is read to 64 KiB and no further", async () => {
  await withUpstream({ answerBytesMax: 100_000_000 }, async ({ server, upstream }) => {
    server.plays(async (reply) => {
      await reply.head(400, { "content-type": "application/json" });
      while (!reply.isClosed()) await reply.chunk("x".repeat(10_000));
    });
    strictEqual((await faultOf(ask(upstream))).kind, "input_refused");
    await (await server.request(0)).closed;
    ok(server.requests[0]?.closedByPeer());
  });
});

Deno.test("a redirect is not followed, wherever it leads", async () => {
  const trap = await startScriptedUpstream({ isHealthCheck: () => false });
  trap.plays(HELLO);
  await withUpstream({ key: "sk-1" }, async ({ server, upstream }) => {
    for (const status of [301, 302, 303, 307, 308, 300, 304]) {
      server.plays(redirectTo(`${trap.url}/run`, status));
      strictEqual((await faultOf(ask(upstream))).kind, "upstream_failed");
    }
    strictEqual(trap.connections, 0);
  });
  await trap.close();
});

Deno.test("a path that would lead elsewhere is not called", async () => {
  for (
    const path of [
      "/a/../b",
      "/a/%2e%2e/b",
      "/.%2E/b",
      "/a?b=1",
      "/a#b",
      "/a\\b",
      "/a b",
      "@evil.example/",
      "/a\nb",
      ".evil",
    ]
  ) {
    await withUpstream({}, async ({ server, upstream }) => {
      server.plays(HELLO);
      strictEqual((await faultOf(ask(upstream))).kind, "internal");
      strictEqual(server.requests.length, 0);
      strictEqual(upstream.inFlight, 0);
    }, { wire: createTestWire({ path }) });
  }
});

Deno.test("a name in a path stays a name when it is encoded, below a base address with a path", async () => {
  const server = await startScriptedUpstream();
  const path = `/models/${encodeURIComponent("../?#@:%2e")}/infer`;
  const upstream = openUpstream(settingsOf(`${server.url}/v1`), createTestWire({ path }), systemClock);
  server.plays(HELLO);
  await ask(upstream);
  strictEqual(server.requests[0]?.target, `/v1${path}`);
  await upstream.close();
  await server.close();
});

Deno.test("no answer in time is a time-out, and the connection is closed", async () => {
  await withUpstream({ firstByteTimeoutMs: 100 }, async ({ server, upstream }) => {
    for (const script of [hangBeforeHead(), hangMidBody("")]) {
      server.plays(script);
      const count = server.requests.length;
      strictEqual((await faultOf(ask(upstream))).kind, "upstream_timeout");
      await (await server.request(count)).closed;
      ok(server.requests[count]?.closedByPeer());
      strictEqual(upstream.inFlight, 0);
    }
  });
});

Deno.test("silence within an answer is a time-out, and a slow answer is none", async () => {
  await withUpstream({ betweenBytesTimeoutMs: 300 }, async ({ server, upstream }) => {
    server.plays(hangMidBody('{"text":'), drip('{"text":"slow"}', "application/json", 30));
    strictEqual((await faultOf(ask(upstream))).kind, "upstream_timeout");
    await (await server.request(0)).closed;
    // It takes longer than silence may last.
    strictEqual(await ask(upstream), "slow");
  });
});

Deno.test("the whole answer is bounded: by the upstream's own time-out, or by the caller's deadline if that is sooner", async () => {
  await withUpstream({ wholeTimeoutMs: 150 }, async ({ server, upstream }) => {
    server.plays(drip(" ".repeat(1_000), "application/json", 20));
    strictEqual((await faultOf(ask(upstream))).kind, "upstream_timeout");
    strictEqual((await faultOf(ask(upstream, within(50)))).kind, "deadline_exceeded");
    strictEqual((await faultOf(ask(upstream, within(0)))).kind, "deadline_exceeded");
    strictEqual(server.requests.length, 2, "what is late already is not sent");
  });
});

Deno.test("a server that takes no connection is a time-out of its own; one that only thinks is waited for", async () => {
  // Fills the queue of a listener that accepts nobody, so that the next connection never comes to stand.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
  const { port } = listener.addr as Deno.NetAddr;
  const fillers: Deno.TcpConn[] = [];
  for (;;) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), 200);
    const filler = await Deno.connect({ hostname: "127.0.0.1", port, signal: controller.signal }).catch(() =>
      undefined
    );
    clearTimeout(timer);
    if (filler === undefined) break;
    fillers.push(filler);
  }
  const deaf = openUpstream(
    settingsOf(`http://127.0.0.1:${port}`, { connectTimeoutMs: 100 }),
    createTestWire(),
    systemClock,
  );
  const faults = await Promise.all([faultOf(ask(deaf)), faultOf(ask(deaf))]);
  deepStrictEqual(faults.map(({ kind }) => kind), ["upstream_timeout", "upstream_timeout"]);
  deepStrictEqual(faults.map(breakerOutcome), ["failure", "failure"]);
  match(faults[0]?.message ?? "", /no connection/);
  await deaf.close();
  for (const filler of fillers) filler.close();
  listener.close();

  await withUpstream({ connectTimeoutMs: 30 }, async ({ server, upstream }) => {
    server.plays(async (reply, request) => {
      await reply.pause(300);
      await HELLO(reply, request);
    });
    strictEqual(await ask(upstream), "hello");
  });
});

Deno.test("nobody at the port, no such name: not reached", async () => {
  const server = await startScriptedUpstream();
  await server.close();
  const upstream = openUpstream(settingsOf(server.url), createTestWire(), systemClock);
  const fault = await faultOf(ask(upstream));
  strictEqual(fault.kind, "upstream_unreachable");
  match(fault.message, /refuses connections/);
  await upstream.close();
});

/** Says how long its body is and sends none of it. */
const hangBeforeBody: Script = async (reply) => {
  await reply.head(200, { "content-type": "application/json", "content-length": "100" });
  await reply.closed;
};

Deno.test("a body whose small length is known may take as long as silence may last", async () => {
  await withUpstream({ betweenBytesTimeoutMs: 100 }, async ({ server, upstream }) => {
    server.plays(hangBeforeBody);
    strictEqual((await faultOf(ask(upstream))).kind, "upstream_timeout");
    await (await server.request(0)).closed;
    ok(server.requests[0]?.closedByPeer());
  });
});

Deno.test("a length beside chunks is void, and the bound holds", async () => {
  await withUpstream({ answerBytesMax: 1_000 }, async ({ server, upstream }) => {
    server.plays(async (reply) => {
      await reply.write(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n",
      );
      while (!reply.isClosed()) await reply.chunk(" ".repeat(900));
    });
    strictEqual((await faultOf(ask(upstream))).kind, "upstream_answer_invalid");
    await (await server.request(0)).closed;
  });
});

Deno.test("an answer that is refused by its head is not read: its connection is closed", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    for (
      const head of [{ "content-type": "text/html" }, {
        "content-type": "application/json",
        "content-length": "9999999",
      }]
    ) {
      const count = server.requests.length;
      server.plays(async (reply) => {
        await reply.head(200, head);
        await reply.closed;
      });
      strictEqual((await faultOf(ask(upstream))).kind, "upstream_answer_invalid");
      await server.requests[count]?.closed;
      ok(server.requests[count]?.closedByPeer());
    }
  });
});

Deno.test("a caller who leaves closes the upstream's connection: before the head, within the body, and not sent at all", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    for (const script of [hangBeforeHead(), hangMidBody('{"text":'), hangMidBody(""), hangBeforeBody]) {
      server.plays(script);
      const count = server.requests.length;
      const controller = new AbortController();
      const asked = faultOf(ask(upstream, within(60_000, controller.signal)));
      const request = await server.request(count);
      await new Promise((resolve) => setTimeout(resolve, 50));
      controller.abort();
      strictEqual((await asked).kind, "client_left");
      await request.closed;
      ok(request.closedByPeer());
      strictEqual(upstream.inFlight, 0);
    }
    const count = server.requests.length;
    strictEqual((await faultOf(ask(upstream, within(60_000, AbortSignal.abort())))).kind, "client_left");
    strictEqual(server.requests.length, count);
  });
});

Deno.test("a signal that aborts with a Fault ends the call with that Fault", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(hangBeforeHead());
    const controller = new AbortController();
    const asked = faultOf(ask(upstream, within(60_000, controller.signal)));
    await server.request(0);
    const stopping = new Fault("stopping", "Cannot go on: the server stops");
    controller.abort(stopping);
    strictEqual(await asked, stopping);
  });
});

Deno.test("a call leaves no listener on its signal behind", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    const signal = new AbortController().signal;
    let listeners = 0;
    const { addEventListener, removeEventListener } = signal;
    signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
      listeners++;
      addEventListener.apply(signal, args);
    };
    signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
      listeners--;
      removeEventListener.apply(signal, args);
    };
    server.plays(HELLO, answerStatus(500));
    await ask(upstream, within(60_000, signal));
    await faultOf(ask(upstream, within(60_000, signal)));
    strictEqual(listeners, 0);
  });
});

Deno.test("more calls than may be under way are refused, and their places come back", async () => {
  await withUpstream({ requestsAtOnceMax: 2 }, async ({ server, upstream }) => {
    const controller = new AbortController();
    server.plays(hangBeforeHead());
    const asked = [1, 2].map(() => faultOf(ask(upstream, within(60_000, controller.signal))));
    strictEqual(upstream.inFlight, 2);
    strictEqual(upstream.refusal(), "full");
    const fault = await faultOf(ask(upstream));
    deepStrictEqual([fault.kind, fault.details.retryAfterSeconds], ["overloaded", 1]);
    await server.request(1);
    controller.abort();
    await Promise.all(asked);
    strictEqual(upstream.refusal(), undefined);
    server.plays(HELLO);
    strictEqual(await ask(upstream), "hello");
  });
});

Deno.test("five failures to reach an upstream open its breaker; whatever a request can be to blame for does not", async () => {
  const changes: string[] = [];
  const timeouts = { firstByteTimeoutMs: 50, betweenBytesTimeoutMs: 50, wholeTimeoutMs: 150 };
  await withUpstream(timeouts, async ({ server, upstream }) => {
    const blameless: readonly Script[] = [
      answerStatus(400),
      answerBusy(429),
      answerStatus(401),
      answerStatus(404),
      answerStatus(408),
      answerStatus(500),
      answerStatus(501),
      answerHtml(),
      answerJson({ other: 1 }),
      answerBytes("x".repeat(1_000_001), "application/json"),
      sendRaw("SSH-2.0-OpenSSH_9.9\r\n\r\n"),
      hangBeforeHead(),
      hangMidBody('{"text":'),
      drip(" ".repeat(1_000), "application/json", 20),
    ];
    for (const script of blameless) {
      server.plays(script);
      for (let count = 0; count < 6; count++) await faultOf(ask(upstream));
      strictEqual(upstream.refusal(), undefined);
    }
    server.plays(hangBeforeHead());
    for (let count = 0; count < 6; count++) await faultOf(ask(upstream, within(20)));
    strictEqual(upstream.refusal(), undefined);
    server.plays(answerStatus(502));
    for (let count = 0; count < 5; count++) await faultOf(ask(upstream));
    strictEqual(upstream.refusal(), "resting");
    const count = server.requests.length;
    strictEqual((await faultOf(ask(upstream))).kind, "unavailable");
    strictEqual(server.requests.length, count);
    deepStrictEqual(changes, ["gpu1 open"]);
  }, { events: { breakerChanged: (name, state) => changes.push(`${name} ${state}`) } });
});

for (
  const [name, script] of [
    ["a status 502", answerStatus(502)],
    ["a status 504", answerStatus(504)],
    ["a connection that is closed without an answer", sendRaw("")],
    ["a connection that is reset", sendRaw("", "reset")],
    [
      "an answer that is dropped midway",
      sendRaw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"te'),
    ],
  ] as const
) {
  Deno.test(`${name} counts as a failure to reach the upstream`, async () => {
    await withUpstream({}, async ({ server, upstream }) => {
      server.plays(script);
      for (let count = 0; count < 5; count++) {
        strictEqual(upstream.refusal(), undefined);
        await faultOf(ask(upstream));
      }
      strictEqual(upstream.refusal(), "resting");
    });
  });
}

Deno.test("a stream that ends in good order but without its mark is no failure to reach the upstream", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(streamEvents([": hello\n\n"]));
    for (let count = 0; count < 6; count++) {
      const call = upstream.wire.stream<"chat">(chatOf("hi"), options);
      strictEqual((await faultOf(upstream.stream<"chat">(call, within()))).kind, "upstream_unreachable");
    }
    strictEqual(upstream.refusal(), undefined);
  });
});

Deno.test("a call may bound its answer further than the settings do, never less", async () => {
  await withUpstream({ answerBytesMax: 100_000 }, async ({ server, upstream }) => {
    for (
      const [answerBytesMax, characters, good] of [[80_000, 70_000, true], [80_000, 90_000, false], [
        1_000_000,
        110_000,
        false,
      ], [1_000_000, 90_000, true]] as const
    ) {
      for (const chunked of [false, true]) {
        const body = JSON.stringify({ text: "x".repeat(characters) });
        server.plays(
          chunked
            ? async (reply) => {
              await reply.head(200, { "content-type": "application/json" });
              await reply.chunk(body);
              await reply.endChunks();
            }
            : answerBytes(body, "application/json"),
        );
        const asked = ask(upstream, { ...within(), answerBytesMax });
        if (good) strictEqual((await asked)?.length, characters);
        else strictEqual((await faultOf(asked)).kind, "upstream_answer_invalid");
      }
    }
  });
});

Deno.test("a body in pieces goes up as it comes, and its own Fault ends the call", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    const send = (bytes: ReadableStream<Uint8Array>, bounds = within()) =>
      upstream.whole<"transcription">(
        upstream.wire.whole<"transcription">(transcriptionOf(bytes), options),
        bounds,
      );
    server.plays(HELLO);
    await send(ReadableStream.from([new TextEncoder().encode("RIFF"), new TextEncoder().encode("data")]));
    strictEqual(server.requests[0]?.text(), "RIFFdata");
    strictEqual(server.requests[0]?.headers.get("content-type"), "audio/wav");

    const tooLarge = new Fault("body_too_large", "Cannot read a body: it is too large");
    const failing = new ReadableStream<Uint8Array>({
      async pull(controller) {
        await server.request(1);
        controller.error(tooLarge);
      },
    }, { highWaterMark: 0 });
    strictEqual(await faultOf(send(failing)), tooLarge);
    await (await server.request(1)).closed;

    let cancelled = false;
    let pulling = false;
    const controller = new AbortController();
    const endless = new ReadableStream<Uint8Array>({
      async pull(stream) {
        pulling = true;
        await new Promise((resolve) => setTimeout(resolve, 5));
        pulling = false;
        if (!cancelled) stream.enqueue(new Uint8Array(10));
      },
      cancel: () => {
        cancelled = true;
      },
    });
    const sent = faultOf(send(endless, within(60_000, controller.signal)));
    await until(() => (server.requests[2]?.body().length ?? 0) > 50);
    controller.abort();
    strictEqual((await sent).kind, "client_left");
    await (await server.request(2)).closed;
    await until(() => cancelled && !pulling);
  });
});

Deno.test("closing an upstream ends what is under way, and refuses what comes later", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(hangBeforeHead(), hangMidBody("{"));
    const asked = [faultOf(ask(upstream)), faultOf(ask(upstream))];
    await server.request(1);
    await upstream.close();
    deepStrictEqual((await Promise.all(asked)).map(({ kind }) => kind), ["stopping", "stopping"]);
    strictEqual(upstream.refusal(), "closed");
    await rejects(ask(upstream), isFault("unavailable"));
  });
});

Deno.test("an upstream is taken to be well before the first check, unwell after two failures, well after one success", async () => {
  const changes: string[] = [];
  const heard = (name: string, healthy: boolean, reason: string | undefined) =>
    changes.push(`${name} ${healthy} ${reason}`);
  await withUpstream({ healthSeconds: 0.02, key: "sk-1" }, async ({ server, upstream }) => {
    strictEqual(upstream.refusal(), undefined);
    await until(() => server.healthChecks.length === 1);
    strictEqual(upstream.refusal(), undefined, "one failure may be chance");
    await until(() => upstream.refusal() === "unhealthy");
    match(upstream.unhealthyReason() ?? "", /503/);
    server.playsHealth(answerStatus(404));
    await until(() => upstream.refusal() === undefined);
    server.playsHealth(sendRaw(""));
    await until(() => upstream.refusal() === "unhealthy");
    const [check] = server.healthChecks;
    strictEqual(
      `${check?.method} ${check?.target} ${check?.headers.get("authorization")}`,
      "GET /health Bearer sk-1",
    );
    deepStrictEqual(changes.map((change) => change.split(" ", 2).join(" ")), [
      "gpu1 false",
      "gpu1 true",
      "gpu1 false",
    ]);
  }, { events: { healthChanged: heard }, prepare: (server) => server.playsHealth(answerStatus(503)) });
});

Deno.test("a key that is refused makes an upstream unwell at once", async () => {
  await withUpstream({ healthPath: "/models" }, async ({ server, upstream }) => {
    await until(() => upstream.refusal() === "unhealthy");
    strictEqual(server.healthChecks.length, 1);
    strictEqual(server.healthChecks[0]?.target, "/models");
    match(upstream.unhealthyReason() ?? "", /key/);
  }, { prepare: (server) => server.playsHealth(answerStatus(401)) });
});

Deno.test("a health check that hangs is a failure, and closing does not wait for it", async () => {
  await withUpstream({ healthSeconds: 0.01, firstByteTimeoutMs: 50 }, async ({ upstream }) => {
    await until(() => upstream.refusal() === "unhealthy");
  }, { prepare: (server) => server.playsHealth(hangBeforeHead()) });
  await withUpstream({}, async ({ server }) => {
    await until(() => server.healthChecks.length === 1);
  }, { prepare: (server) => server.playsHealth(hangBeforeHead()) });
});

Deno.test("a health check's body is not read on and on", async () => {
  await withUpstream({}, async ({ server }) => {
    await until(() => server.healthChecks.length === 1);
    await server.healthChecks[0]?.closed;
    ok(server.healthChecks[0]?.closedByPeer());
  }, { prepare: (server) => server.playsHealth(streamEndlessly("x".repeat(1_000))) });
});

Deno.test("a certificate that nobody vouches for is refused; one that the settings name is trusted", async () => {
  const certificate = await makeSelfSignedCertificate();
  const server = await startScriptedUpstream({ certificate });
  server.plays(HELLO);
  const stranger = openUpstream(settingsOf(server.url), createTestWire(), systemClock);
  const fault = await faultOf(ask(stranger));
  strictEqual(fault.kind, "upstream_unreachable");
  match(fault.message, /certificate/);
  strictEqual(server.requests.length, 0);
  await stranger.close();

  const trusting = openUpstream(
    settingsOf(server.url, { caCertificates: certificate.certificatePem }),
    createTestWire(),
    systemClock,
  );
  strictEqual(await ask(trusting), "hello");
  await trusting.close();

  // The name counts as well: the certificate is for localhost.
  const otherName = openUpstream(
    settingsOf(server.url.replace("localhost", "127.0.0.1"), { caCertificates: certificate.certificatePem }),
    createTestWire(),
    systemClock,
  );
  strictEqual((await faultOf(ask(otherName))).kind, "upstream_unreachable");
  await otherName.close();
  await server.close();
});

Deno.test("an address that is none is told at the start", () => {
  throws(() => openUpstream(settingsOf("no address"), createTestWire(), systemClock), TypeError);
});
