// Tests of the event stream parser: the examples of the standard, every split, and what it refuses.
import { deepStrictEqual, ok, throws } from "node:assert/strict";
import fc from "fast-check";
import { createEventStreamParser } from "../../../src/engines/upstream/event_stream_parser.ts";
import type { WireEvent } from "../../../src/engines/upstream/wire.ts";
import { Fault } from "../../../src/faults/fault.ts";

const encoder = new TextEncoder();
const isInvalid = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "upstream_answer_invalid";

/** The events of pieces, in order. */
function parse(...pieces: readonly (string | Uint8Array)[]): WireEvent[] {
  const parser = createEventStreamParser();
  return pieces.flatMap((piece) => parser.push(typeof piece === "string" ? encoder.encode(piece) : piece));
}
const message = (data: string): WireEvent => ({ event: "message", data });

/** Pieces of bytes, cut at the given places. */
function cutAt(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((left, right) =>
    left - right
  );
  return [0, ...places].map((start, index) => bytes.subarray(start, places[index] ?? bytes.length));
}

Deno.test("the examples of WHATWG HTML §9.2.6 give the events that the standard says", () => {
  deepStrictEqual(parse("data: YHOO\ndata: +2\ndata: 10\n\n"), [message("YHOO\n+2\n10")]);
  deepStrictEqual(
    parse(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"),
    [message("first event"), message("second event"), message(" third event")],
  );
  // The last block is no event: its empty line never comes.
  deepStrictEqual(parse("data\n\ndata\ndata\n\ndata:"), [message(""), message("\n")]);
  deepStrictEqual(parse("data:test\n\ndata: test\n\n"), [message("test"), message("test")]);
  deepStrictEqual(
    parse("event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n"),
    [{ event: "add", data: "73857293" }, { event: "remove", data: "2153" }, { event: "add", data: "113411" }],
  );
});

Deno.test("lines end with LF, CR or CRLF, also mixed and also cut within CRLF", () => {
  for (const end of ["\n", "\r", "\r\n"]) {
    deepStrictEqual(parse(`data: a${end}data: b${end}${end}data: c${end}${end}`), [
      message("a\nb"),
      message("c"),
    ]);
  }
  deepStrictEqual(parse("data: a\r\n\rdata: b\n\r\n"), [message("a"), message("b")]);
  deepStrictEqual(parse("data: a\r", "\n\r", "\n", "data: b\r\n\r\n"), [message("a"), message("b")]);
  deepStrictEqual(parse("data: a\r", "", "\ndata: b\n\n"), [message("a\nb")]);
});

Deno.test("an event that a CR ends is there at once, and not only with the next piece", () => {
  deepStrictEqual(parse("data: a\r\r"), [message("a")]);
});

Deno.test("one byte order mark at the beginning is no part of the stream, a second one is", () => {
  deepStrictEqual(parse("\u{feff}data: a\n\n"), [message("a")]);
  deepStrictEqual(parse("\u{feff}\u{feff}data: a\n\ndata: b\n\n"), [message("b")]);
  deepStrictEqual(parse("data: \u{feff}a\n\n"), [message("\u{feff}a")]);
});

Deno.test("fields with other names, comments, ids and retry times change nothing", () => {
  deepStrictEqual(
    parse("id: 7\nretry: 10\n:data: x\ndatax: 1\ndat: 2\nDATA: 3\n data: 4\neventy: y\ndata: a\n\n"),
    [message("a")],
  );
});

Deno.test("an event type without data is dropped and does not stick to the next event", () => {
  deepStrictEqual(parse("event: ping\n\ndata: a\n\n"), [message("a")]);
  deepStrictEqual(parse("event: one\nevent\ndata: a\n\n"), [message("a")]);
});

Deno.test("any split of any stream gives the same events", () => {
  const line = fc.oneof(
    fc.constant(""),
    fc.constantFrom("data", "data:", "event: ping", ": note", "id: 1", "event", "data:\u{feff}"),
    fc.string({ unit: "binary", maxLength: 8 }).map((text) => `data: ${text.replace(/[\r\n]/g, "")}`),
    fc.constantFrom("data: grüße 🦊", "event: ü", "data:\t漢字"),
  );
  const end = fc.constantFrom("\n", "\r", "\r\n");
  const stream = fc.array(fc.tuple(line, end), { maxLength: 30, size: "max" })
    .map((lines) => encoder.encode(lines.map(([text, ending]) => text + ending).join("")));
  let events = 0;
  fc.assert(fc.property(stream, fc.array(fc.nat(600), { maxLength: 20 }), (bytes, cuts) => {
    const whole = parse(bytes);
    events += whole.length;
    deepStrictEqual(parse(...cutAt(bytes, cuts)), whole);
    deepStrictEqual(parse(...Array.from(bytes, (byte) => Uint8Array.of(byte))), whole);
  }));
  ok(events > 100, "the streams hold events");
});

Deno.test("whatever the data are, an event that is written line by line comes back", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 80 }), (text) => {
    const lines = text.toWellFormed().split(/\r\n|\r|\n/);
    deepStrictEqual(parse(`${lines.map((line) => `data: ${line}\n`).join("")}\n`), [
      message(lines.join("\n")),
    ]);
  }));
});

Deno.test("bytes that are no UTF-8 are refused, wherever they are cut", () => {
  const bytes = Uint8Array.of(...encoder.encode("data: "), 0xe2, 0x28, 0xa1, 0x0a, 0x0a);
  throws(() => parse(bytes), isInvalid);
  throws(() => parse(bytes.subarray(0, 7), bytes.subarray(7)), isInvalid);
  throws(() => parse(Uint8Array.of(0xff)), isInvalid);
});

Deno.test("an event that is larger than the bound is refused: in one line, in many, whole and in pieces", () => {
  const push = (...pieces: readonly string[]) => {
    const parser = createEventStreamParser(100);
    return pieces.flatMap((piece) => parser.push(encoder.encode(piece)));
  };
  deepStrictEqual(push(`data: ${"x".repeat(90)}\n\n`), [message("x".repeat(90))]);
  throws(() => push(`data: ${"x".repeat(101)}\n\n`), isInvalid);
  throws(() => push(`data: ${"x".repeat(50)}\n`, `data: ${"x".repeat(51)}\n`), isInvalid);
  throws(() => push(...Array<string>(101).fill("x")), isInvalid);
  throws(() => push("data: x\n\n", "y".repeat(101)), isInvalid);
  throws(() => push(`data: x\n\n${"y".repeat(101)}`), isInvalid);
  throws(() => push("y".repeat(60), `${"y".repeat(60)}\n`), isInvalid);
  deepStrictEqual(push(...Array<string>(50).fill("data: xyz\n\n")).length, 50);
});

Deno.test("a line that drips in byte by byte costs about as much as one that comes whole", () => {
  // A parser that searched all that waits at each piece would look at 10^11 characters here.
  const parser = createEventStreamParser();
  const byte = encoder.encode("x");
  parser.push(encoder.encode("data: "));
  for (let count = 0; count < 500_000; count++) parser.push(byte);
  deepStrictEqual(parser.push(encoder.encode("\n\n")).map(({ data }) => data.length), [500_000]);
});
