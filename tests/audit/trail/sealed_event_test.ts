// Tests of sealed events.
import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { canonicalJson, type JsonValue } from "../../../src/encoding/canonical_json.ts";
import { eventText } from "../../../src/audit/trail/event_text.ts";
import { isSealed, openEvent, type SealedEvent, sealEvent } from "../../../src/audit/trail/sealed_event.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { numbered } from "../trail_folder.ts";

const KEY = { id: "akey_1", raw: new Uint8Array(32).fill(7) };
const KEYS = new Map([[KEY.id, KEY.raw]]);

function sealed(seq: number, text: string): SealedEvent {
  return JSON.parse(sealEvent(KEY, seq, "security", text));
}

function isUnavailable(thrown: unknown): boolean {
  return thrown instanceof Fault && thrown.kind === "unavailable";
}

Deno.test("a sealed event is canonical JSON, and opens to what it was whatever it holds", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), fc.integer({ min: 1, max: 2 ** 50 }), (reason, seq) => {
      const text = eventText({ type: "server.stopped", reason });
      const line = sealEvent(KEY, seq, "activity", text);
      strictEqual(line, canonicalJson(JSON.parse(line)));
      const event = JSON.parse(line);
      ok(isSealed(event));
      strictEqual(event.class, "activity");
      strictEqual(event.key, KEY.id);
      deepStrictEqual(openEvent(KEYS, seq, event), JSON.parse(text));
    }),
  );
});

Deno.test("a plain event is its own plain form", () => {
  const event: { readonly [name: string]: JsonValue } = JSON.parse(eventText(numbered(1)));
  strictEqual(isSealed(event), false);
  strictEqual(openEvent(new Map(), 1, event), event);
});

Deno.test("an event opens neither in another entry, nor without its key, nor under another one", () => {
  const event = sealed(5, eventText(numbered(1)));
  throws(() => openEvent(KEYS, 6, event), isUnavailable);
  throws(() => openEvent(new Map(), 5, event), isUnavailable);
  throws(() => openEvent(new Map([[KEY.id, new Uint8Array(32)]]), 5, event), isUnavailable);
  throws(() => openEvent(new Map([["akey_2", KEY.raw]]), 5, { ...event, key: "akey_2" }), isUnavailable);
});

Deno.test("an event with any byte changed or cut off does not open", () => {
  const event = sealed(5, eventText(numbered(1)));
  const bytes = Uint8Array.fromBase64(event.sealed, { alphabet: "base64url" });
  const opened = (changed: Uint8Array) =>
    openEvent(KEYS, 5, {
      ...event,
      sealed: changed.toBase64({ alphabet: "base64url", omitPadding: true }),
    });
  deepStrictEqual(opened(bytes), JSON.parse(eventText(numbered(1))));
  for (let at = 0; at < bytes.length; at++) {
    throws(() => opened(bytes.with(at, (bytes[at] ?? 0) ^ 1)), isUnavailable);
    throws(() => opened(bytes.subarray(0, at)), isUnavailable);
  }
  throws(() => openEvent(KEYS, 5, { ...event, sealed: `${event.sealed}=` }), isUnavailable);
});

Deno.test("no nonce comes twice, also over many draws", () => {
  const nonces = new Set<string>();
  for (let seq = 1; seq <= 2_000; seq++) nonces.add(sealed(seq, "{}").sealed.slice(0, 16));
  strictEqual(nonces.size, 2_000);
});

Deno.test("nothing of the event shows in the sealed form", () => {
  const line = sealEvent(KEY, 1, "security", eventText({ type: "server.stopped", reason: "confidential" }));
  match(line, /^\{"class":"security","key":"akey_1","sealed":"[A-Za-z0-9_-]+"\}$/);
});
