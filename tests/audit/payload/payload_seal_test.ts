// Tests of the payload seal: what comes back is what was sealed, a piece opens in its place only, and fits into an event.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { EVENT_CHARACTERS_MAX, eventText } from "../../../src/audit/trail/event_text.ts";
import {
  openPayload,
  PAYLOAD_BYTES_MAX,
  type PayloadPlace,
  sealPayload,
} from "../../../src/audit/payload/payload_seal.ts";
import { sealEvent } from "../../../src/audit/trail/sealed_event.ts";
import { decodeBase64url, encodeBase64url } from "../../../src/encoding/base64url.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { anyText } from "../../support/any_text.ts";

const KEY = { id: "someone.pay_1", raw: new Uint8Array(32).fill(7) };
const PLACE = { request: "req_1", part: "input", model: "m" } as const;
const unavailable = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "unavailable";

Deno.test("property: what opens is what was sealed, whatever its characters and its length", () => {
  fc.assert(
    fc.property(anyText, fc.integer({ min: 1, max: 4000 }), fc.boolean(), (text, times, cut) => {
      const whole = text.repeat(times);
      const sealed = sealPayload(KEY, PLACE, whole, cut);
      deepStrictEqual([sealed.part, sealed.model, sealed.key], ["input", "m", KEY.id]);
      const opened = openPayload(KEY, PLACE, sealed);
      ok(whole.startsWith(opened));
      strictEqual(sealed.cut, cut || opened.length < whole.length);
      const isTooLong = new TextEncoder().encode(whole).length > PAYLOAD_BYTES_MAX;
      if (!isTooLong) strictEqual(opened, whole);
    }),
    { numRuns: 60 },
  );
});

Deno.test("what is too long is cut between two characters, at most three bytes before the bound", () => {
  for (const start of ["", "a", "ab", "abc"]) {
    const sealed = sealPayload(KEY, PLACE, start + "𝄞".repeat(PAYLOAD_BYTES_MAX / 4));
    const bytes = new TextEncoder().encode(openPayload(KEY, PLACE, sealed)).length;
    ok(bytes <= PAYLOAD_BYTES_MAX && bytes > PAYLOAD_BYTES_MAX - 4);
    strictEqual(sealed.cut, start !== "");
  }
});

Deno.test("no piece opens where anything of it, its key or its place is another", () => {
  const text = "x".repeat(100_000);
  const sealed = sealPayload(KEY, PLACE, text);
  strictEqual(sealed.pieces.length, 4);
  const { pieces } = sealed;
  const open = (changes: Partial<typeof sealed>, key = KEY, place: PayloadPlace = PLACE) => () =>
    openPayload(key, place, { ...sealed, ...changes });
  strictEqual(open({})(), text);
  for (const [index, piece] of pieces.entries()) {
    const bytes = decodeBase64url(piece);
    ok(bytes.ok);
    for (const at of [0, 15, 16, bytes.value.length - 17, bytes.value.length - 16, bytes.value.length - 1]) {
      const flipped = bytes.value.with(at, (bytes.value[at] ?? 0) ^ 1);
      throws(open({ pieces: pieces.with(index, encodeBase64url(flipped)) }), unavailable, `${index} ${at}`);
    }
    throws(open({ pieces: pieces.toSpliced(index, 1) }), unavailable, `without ${index}`);
    throws(open({ pieces: pieces.toSpliced(index, 0, piece) }), unavailable, `${index} twice`);
    throws(open({ pieces: pieces.with(index, "") }), unavailable);
    throws(open({ pieces: pieces.with(index, "*") }), unavailable);
  }
  throws(open({ pieces: pieces.toReversed() }), unavailable);
  throws(open({ cut: true }), unavailable);
  throws(open({}, { ...KEY, raw: KEY.raw.with(0, 8) }), unavailable);
  throws(open({}, { ...KEY, id: "someone.pay_2" }), unavailable);
  throws(open({}, KEY, { ...PLACE, request: "req_2" }), unavailable);
  throws(open({}, KEY, { ...PLACE, part: "output" }), unavailable);
});

Deno.test("the same text is sealed under another derived key each time: no two pieces are alike", () => {
  const text = "y".repeat(32 * 1024 * 2);
  const sealed = Array.from({ length: 50 }, () => sealPayload(KEY, PLACE, text).pieces).flat();
  strictEqual(new Set(sealed).size, 100);
  // The salt stands first: one a payload.
  strictEqual(new Set(sealed.map((piece) => piece.slice(0, 20))).size, 50);
});

Deno.test("a piece fits into an event with long ids around it, also where the trail is sealed as a whole", () => {
  const { pieces } = sealPayload({ ...KEY, id: "k".repeat(60) }, PLACE, "z".repeat(40_000));
  const long = "i".repeat(1000);
  const text = eventText({
    type: "inference.payload",
    request: long,
    issuer: long,
    subject: long,
    team: long,
    credential: long,
    address: long,
    route: long,
    model: long,
    part: "input",
    piece: 0,
    pieces: 2,
    cut: false,
    key: long,
    sealed: pieces[0] ?? "",
  });
  ok(text.length < EVENT_CHARACTERS_MAX);
  const sealed = sealEvent({ id: "akey_1", raw: KEY.raw }, 1, "activity", text);
  ok(sealed.length < 2 * EVENT_CHARACTERS_MAX);
});
