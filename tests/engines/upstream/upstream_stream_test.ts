// Tests of answers in pieces: when they come, how they end, what breaks them, and that nothing is read ahead.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { AnswerStream } from "../../../src/engines/answer_stream.ts";
import type { ChatEvent } from "../../../src/engines/chat.ts";
import type { Upstream } from "../../../src/engines/upstream/upstream.ts";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import {
  answerBytes,
  answerHtml,
  answerJson,
  answerStatus,
  eventOf,
  hangBeforeHead,
  type Script,
  sendRaw,
  streamEndlessly,
  streamEvents,
} from "../../support/scripted_upstream.ts";
import { chatOf, SPEECH } from "./test_wire.ts";
import { faultOf, until, within, withUpstream } from "./upstream_under_test.ts";

const options = { model: "m", usageInStreams: true };
const DONE = eventOf("[DONE]");
const text = (word: string) => eventOf({ text: word });

function chat(upstream: Upstream, bounds = within()): Promise<AnswerStream<ChatEvent>> {
  return upstream.stream<"chat">(upstream.wire.stream<"chat">(chatOf("hi"), options), bounds);
}
function speak(upstream: Upstream, bounds = within()): Promise<AnswerStream<Uint8Array>> {
  return upstream.stream<"speech">(upstream.wire.stream<"speech">(SPEECH, options), bounds);
}
const wordsOf = (items: readonly ChatEvent[] | undefined) =>
  items?.map((item) => item.type === "text" ? item.text : item.type);

/** The words of all batches to the end. */
async function readAll(stream: AnswerStream<ChatEvent>): Promise<string[]> {
  const words: string[] = [];
  for (let items = await stream.next(); items !== undefined; items = await stream.next()) {
    ok(items.length > 0);
    words.push(...wordsOf(items) ?? []);
  }
  return words;
}

Deno.test("a stream gives the items of each piece together, as soon as they are there, to its end mark", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    let sendNext: () => void = () => undefined;
    const asked = (): Promise<void> => new Promise((resolve) => sendNext = resolve);
    server.plays(async (reply) => {
      await reply.head(200, { "content-type": "text/event-stream" });
      await reply.chunk(": hello\n\n");
      await reply.chunk(text("a") + text("b"));
      await asked();
      await reply.chunk(text("c"));
      await asked();
      await reply.chunk(text("d") + DONE);
      await reply.endChunks();
    });
    const stream = await chat(upstream);
    strictEqual(upstream.inFlight, 1);
    deepStrictEqual(wordsOf(await stream.next()), ["a", "b"]);
    sendNext();
    deepStrictEqual(wordsOf(await stream.next()), ["c"]);
    sendNext();
    deepStrictEqual(wordsOf(await stream.next()), ["d"]);
    strictEqual(upstream.inFlight, 0, "the end mark ends it, and not the next look");
    strictEqual(await stream.next(), undefined);
    strictEqual(await stream.next(), undefined);
    stream.cancel();
  });
});

Deno.test("a stream that is cut within events and characters gives the same items", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    const bytes = new TextEncoder().encode(text("grüße 🦊") + text("漢字") + DONE);
    server.plays(streamEvents(Array.from(bytes, (byte) => Uint8Array.of(byte))));
    deepStrictEqual(await readAll(await chat(upstream)), ["grüße 🦊", "漢字"]);
  });
});

Deno.test("an end mark is enough: a connection that stays open is not waited for, and is closed", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(streamEvents([text("a"), DONE], { then: "hang" }));
    deepStrictEqual(await readAll(await chat(upstream)), ["a"]);
    await (await server.request(0)).closed;
    ok(server.requests[0]?.closedByPeer());
    server.plays(streamEndlessly(text("a") + DONE + text("b")));
    deepStrictEqual(await readAll(await chat(upstream)), ["a"]);
    await (await server.request(1)).closed;
    ok(server.requests[1]?.closedByPeer());
  });
});

Deno.test("streams one after the other share a connection", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    // The end of the body comes a little after the end mark.
    server.plays(streamEvents([text("a"), DONE, ""], { pauseMs: 10 }));
    for (let count = 0; count < 5; count++) {
      await readAll(await chat(upstream));
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    ok(server.connections <= 2, "one, and perhaps one of the health check");
  });
});

Deno.test("a stream of nothing but its end mark is an empty one", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(streamEvents([DONE]));
    deepStrictEqual(await readAll(await chat(upstream)), []);
    strictEqual(upstream.inFlight, 0);
  });
});

const garbage = Uint8Array.of(0x64, 0xff, 0xfe, 0x0a, 0x0a);

/** What can happen to a stream, before its first piece and after it. */
const BROKEN: readonly [string, FaultKind, (pieces: readonly string[]) => Script][] = [
  ["ends without its mark", "upstream_unreachable", (pieces) => streamEvents(pieces)],
  ["is dropped", "upstream_unreachable", (pieces) => streamEvents(pieces, { then: "drop" })],
  ["is reset", "upstream_unreachable", (pieces) => streamEvents(pieces, { then: "reset" })],
  [
    "turns into bytes that are no UTF-8",
    "upstream_answer_invalid",
    (pieces) => streamEvents([...pieces, garbage]),
  ],
  [
    "turns into malformed JSON",
    "upstream_answer_invalid",
    (pieces) => streamEvents([...pieces, eventOf("{")]),
  ],
  [
    "turns into JSON of another shape",
    "upstream_answer_invalid",
    (pieces) => streamEvents([...pieces, eventOf({})]),
  ],
  [
    "tells an error",
    "upstream_failed",
    (pieces) => streamEvents([...pieces, eventOf({ message: "no" }, "error")]),
  ],
  [
    "holds an event without end",
    "upstream_answer_invalid",
    (pieces) => async (reply) => {
      await reply.head(200, { "content-type": "text/event-stream" });
      for (const piece of pieces) await reply.chunk(piece);
      while (!reply.isClosed()) await reply.chunk("data: ".padEnd(60_000, "x"));
    },
  ],
];

for (const [what, kind, script] of BROKEN) {
  Deno.test(`a stream that ${what} is a fault ${kind}, before the first piece and after it`, async () => {
    await withUpstream({ answerBytesMax: 10_000_000 }, async ({ server, upstream }) => {
      server.plays(script([]));
      strictEqual((await faultOf(chat(upstream))).kind, kind);
      strictEqual(upstream.inFlight, 0);
      server.plays(script([text("a")]));
      const stream = await chat(upstream);
      // The system may hand over two pieces as one; what was good of them is then lost with what was not.
      strictEqual((await faultOf(readAll(stream))).kind, kind);
      strictEqual(upstream.inFlight, 0);
      strictEqual((await faultOf(stream.next())).kind, kind);
      stream.cancel();
    });
  });
}

Deno.test("answers that are no stream are faults", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    const rows: readonly [FaultKind, Script][] = [
      ["upstream_answer_invalid", answerHtml()],
      ["upstream_answer_invalid", answerJson({ text: "whole" })],
      ["upstream_failed", answerStatus(500)],
      ["upstream_unreachable", sendRaw("")],
    ];
    for (const [kind, script] of rows) {
      server.plays(script);
      strictEqual((await faultOf(chat(upstream))).kind, kind);
    }
    strictEqual(upstream.inFlight, 0);
  });
});

Deno.test("a stream that falls silent is a time-out; one that only drips is none", async () => {
  await withUpstream({ betweenBytesTimeoutMs: 400 }, async ({ server, upstream }) => {
    server.plays(streamEvents([text("a")], { then: "hang" }));
    strictEqual((await faultOf(readAll(await chat(upstream)))).kind, "upstream_timeout");
    await (await server.request(0)).closed;
    server.plays(streamEvents([...Array(12).fill(text("a")), DONE], { pauseMs: 50 }));
    strictEqual((await readAll(await chat(upstream))).length, 12);
    server.plays(streamEvents([": still there\n\n", ": still there\n\n", text("a"), DONE], { pauseMs: 160 }));
    deepStrictEqual(await readAll(await chat(upstream)), ["a"], "comments are signs of life");
  });
});

Deno.test("silence is the upstream's fault only while somebody listens", async () => {
  await withUpstream({ betweenBytesTimeoutMs: 60 }, async ({ server, upstream }) => {
    server.plays(streamEvents([text("a"), text("b") + DONE], { pauseMs: 30 }));
    const stream = await chat(upstream);
    await new Promise((resolve) => setTimeout(resolve, 300));
    deepStrictEqual(await readAll(stream), ["a", "b"]);
  });
});

Deno.test("an endless stream ends at the answer's size, at the upstream's time, or at the caller's deadline", async () => {
  await withUpstream({ answerBytesMax: 50_000, wholeTimeoutMs: 60_000 }, async ({ server, upstream }) => {
    server.plays(streamEndlessly(text("on and on")));
    strictEqual((await faultOf(readAll(await chat(upstream)))).kind, "upstream_answer_invalid");
    await (await server.request(0)).closed;
    ok(server.requests[0]?.closedByPeer());
  });
  const dripping = streamEvents(Array(1_000).fill(text("a")), { pauseMs: 10 });
  await withUpstream({ wholeTimeoutMs: 150 }, async ({ server, upstream }) => {
    server.plays(dripping);
    strictEqual((await faultOf(chat(upstream).then(readAll))).kind, "upstream_timeout");
    strictEqual((await faultOf(chat(upstream, within(80)).then(readAll))).kind, "deadline_exceeded");
    strictEqual(upstream.inFlight, 0);
  });
});

Deno.test("a stream that nobody reads any more still ends at its deadline and gives its place back", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(streamEvents([text("a")], { then: "hang" }));
    const stream = await chat(upstream, within(500));
    await until(() => upstream.inFlight === 0);
    await (await server.request(0)).closed;
    deepStrictEqual(wordsOf(await stream.next()), ["a"]);
    strictEqual((await faultOf(stream.next())).kind, "deadline_exceeded");
  });
});

Deno.test("nothing is read ahead: a reader that stops stops the upstream", async () => {
  await withUpstream({ answerBytesMax: 1_000_000_000 }, async ({ server, upstream }) => {
    let sent = 0;
    server.plays(streamEndlessly(text("x".repeat(10_000)), (bytes) => sent = bytes));
    const stream = await chat(upstream);
    // What the two systems hold between them fills up, and then no more is taken.
    let before = -1;
    while (sent !== before) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    ok(sent < 50_000_000, `${sent} bytes went out while nobody read`);
    await stream.next();
    let read = 0;
    while (read < before + 1_000_000) {
      for (const word of wordsOf(await stream.next()) ?? []) read += word.length;
    }
    ok(sent > before, "and it goes on when the reader does");
    stream.cancel();
    await (await server.request(0)).closed;
  });
});

Deno.test("cancelling a stream closes the upstream's connection at once, also while a piece is awaited", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    for (const whileAwaited of [false, true]) {
      server.plays(streamEvents([text("a")], { then: "hang" }));
      const count = server.requests.length;
      const stream = await chat(upstream);
      await stream.next();
      const next = whileAwaited ? faultOf(stream.next()) : undefined;
      stream.cancel();
      stream.cancel();
      strictEqual(upstream.inFlight, 0);
      await server.requests[count]?.closed;
      ok(server.requests[count]?.closedByPeer());
      if (next !== undefined) strictEqual((await next).kind, "client_left");
    }
  });
});

Deno.test("a caller who leaves ends a stream: before its head, before its first piece, within it", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    for (
      const script of [
        hangBeforeHead(),
        streamEvents([], { then: "hang" }),
        streamEvents([": a\n\n"], { then: "hang" }),
      ]
    ) {
      server.plays(script);
      const count = server.requests.length;
      const controller = new AbortController();
      const asked = faultOf(chat(upstream, within(60_000, controller.signal)));
      const request = await server.request(count);
      await new Promise((resolve) => setTimeout(resolve, 50));
      controller.abort();
      strictEqual((await asked).kind, "client_left");
      await request.closed;
      ok(request.closedByPeer());
    }
    server.plays(streamEvents([text("a")], { then: "hang" }));
    const controller = new AbortController();
    const stream = await chat(upstream, within(60_000, controller.signal));
    await stream.next();
    const next = faultOf(stream.next());
    const stopping = new Fault("stopping", "Cannot go on: the server stops");
    controller.abort(stopping);
    strictEqual(await next, stopping);
    await server.requests.at(-1)?.closed;
    ok(server.requests.at(-1)?.closedByPeer());
    strictEqual(upstream.inFlight, 0);
  });
});

Deno.test("streams that break off open the breaker, though each of them began well", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(streamEvents([text("a")], { then: "drop" }));
    for (let count = 0; count < 5; count++) {
      strictEqual(upstream.refusal(), undefined);
      strictEqual((await faultOf(readAll(await chat(upstream)))).kind, "upstream_unreachable");
    }
    strictEqual(upstream.refusal(), "resting");
  });
});

Deno.test("bytes pass as they come, with their media type", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(async (reply) => {
      await reply.head(200, { "content-type": "Audio/MPEG; rate=44100" });
      await reply.chunk(Uint8Array.of(1, 2, 3));
      await reply.pause(30);
      await reply.chunk(Uint8Array.of(255, 0));
      await reply.endChunks();
    });
    const stream = await speak(upstream);
    strictEqual(stream.mediaType, "audio/mpeg");
    strictEqual(server.requests[0]?.headers.get("accept"), "audio/*");
    const bytes: number[] = [];
    for (let items = await stream.next(); items !== undefined; items = await stream.next()) {
      for (const item of items) bytes.push(...item);
    }
    deepStrictEqual(bytes, [1, 2, 3, 255, 0]);
    strictEqual(upstream.inFlight, 0);
  });
});

Deno.test("bytes that break off, that are of another kind, or that are none, are faults", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    const rows: readonly [FaultKind, Script][] = [
      ["upstream_answer_invalid", answerHtml()],
      ["upstream_answer_invalid", answerBytes("x", "audiobook/x")],
      ["upstream_answer_invalid", answerBytes("", "audio/mpeg")],
    ];
    for (const [kind, script] of rows) {
      server.plays(script);
      strictEqual((await faultOf(speak(upstream))).kind, kind);
    }
    server.plays(
      sendRaw("HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 10\r\n\r\nabc", "reset"),
    );
    const stream = await speak(upstream);
    await stream.next();
    strictEqual((await faultOf(stream.next())).kind, "upstream_unreachable");
    strictEqual(upstream.inFlight, 0);
  });
});
