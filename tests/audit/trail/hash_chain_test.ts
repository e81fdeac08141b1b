import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { eventText } from "../../../src/audit/trail/event_text.ts";
import {
  CHAIN_START,
  type ChainHead,
  checkLink,
  extendChain,
  parseEntry,
} from "../../../src/audit/trail/hash_chain.ts";
import { encodeUtf8 } from "../../../src/encoding/utf8.ts";

// Computed with Python's json and hashlib: SHA-256 over a zero byte and the entry without its hash.
const VECTOR = [
  String
    .raw`{"event":{"reason":"signal","type":"server.stopped"},"hash":"44417b5be7c11d97375dc9963ae395dca7408f4d8dc3d9cc80ec187943dc485c","previous":"0000000000000000000000000000000000000000000000000000000000000000","seq":1,"time":"2026-01-02T03:04:05.006Z"}`,
  String
    .raw`{"event":{"model":"use-lite","serial":null,"sha256":"abababababababababababababababababababababababababababababababab","signer":null,"type":"model.accepted"},"hash":"8b6516a4dee7ec7717e7922706ce8374646810bed9848013c1a3988028ba7808","previous":"44417b5be7c11d97375dc9963ae395dca7408f4d8dc3d9cc80ec187943dc485c","seq":2,"time":"2026-01-02T03:04:05.007Z"}`,
  // The third event holds U+2028, é and 🔒 as they are, and U+0001 escaped.
  String.raw`{"event":{"reason":"quote \" line\nfeed ` + "\u2028 \u00e9 \u{1F512}" +
  String
    .raw` back\\slash \u0001","type":"server.stopped"},"hash":"ffbb856f363cfc114cb7b74dc4ff9f482ee19e573fa8cca39d2977748058cd1f","previous":"8b6516a4dee7ec7717e7922706ce8374646810bed9848013c1a3988028ba7808","seq":3,"time":"2026-01-02T03:04:06.000Z"}`,
];

Deno.test("extendChain writes the lines that were computed independently", () => {
  const first = extendChain(
    CHAIN_START,
    "2026-01-02T03:04:05.006Z",
    eventText({ type: "server.stopped", reason: "signal" }),
  );
  const second = extendChain(
    first.head,
    "2026-01-02T03:04:05.007Z",
    eventText({
      type: "model.accepted",
      model: "use-lite",
      sha256: "ab".repeat(32),
      signer: null,
      serial: null,
    }),
  );
  const third = extendChain(
    second.head,
    "2026-01-02T03:04:06.000Z",
    eventText({
      type: "server.stopped",
      reason: 'quote " line\nfeed \u2028 \u00e9 \u{1F512} back\\slash \u0001',
    }),
  );
  deepStrictEqual([first.line, second.line, third.line], VECTOR.map((line) => `${line}\n`));
  strictEqual(third.head.seq, 3);
});

Deno.test("parseEntry and checkLink accept the lines that were computed independently", () => {
  let head = CHAIN_START;
  for (const line of VECTOR) {
    const entry = parseEntry(encodeUtf8(line));
    if (!entry.ok) throw new Error(entry.reason);
    const link = checkLink(entry.value, head);
    if (!link.ok) throw new Error(link.reason);
    head = link.value;
  }
  strictEqual(head.hash, "ffbb856f363cfc114cb7b74dc4ff9f482ee19e573fa8cca39d2977748058cd1f");
});

Deno.test("parseEntry names what is wrong with a line", () => {
  const [line = ""] = VECTOR;
  const reasonFor = (bytes: Uint8Array) => {
    const entry = parseEntry(bytes);
    return entry.ok ? "no mistake" : entry.reason;
  };
  const cases: [string, string][] = [
    ["", "not_json"],
    ["{", "not_json"],
    [`\uFEFF${line}`, "not_json"],
    ["[]", "not_an_entry"],
    ["null", "not_an_entry"],
    [line.replace('"seq":1', '"seq":0'), "not_an_entry"],
    [line.replace('"seq":1', '"seq":1.5'), "not_an_entry"],
    [line.replace('"seq":1', '"seq":"1"'), "not_an_entry"],
    [line.replace('"seq":1', '"extra":0,"seq":1'), "not_an_entry"],
    [line.replace("44417b", "44417B"), "not_an_entry"],
    [line.replace("05.006Z", "05Z"), "not_an_entry"],
    [line.replace(/"event":\{[^}]*\}/, '"event":[]'), "not_an_entry"],
    [` ${line}`, "not_canonical"],
    [`${line}\r`, "not_canonical"],
    [line.replace("signal", "\\u0073ignal"), "not_canonical"],
    [line.replace("signal", "\\ud800"), "not_canonical"],
    [line.replace('"seq":1', '"seq":1.0'), "not_canonical"],
    [line.replace('"seq":1', '"seq":9,"seq":1'), "not_canonical"],
    [line.replace('{"reason"', '{"reason":"other","reason"'), "not_canonical"],
    [
      line.replace(/"reason":"signal","type":"server.stopped"/, '"type":"server.stopped","reason":"signal"'),
      "not_canonical",
    ],
    [line.replace('"signal"', "[".repeat(100_000) + "]".repeat(100_000)), "not_canonical"],
    [line.replace("signal", "Signal"), "hash_wrong"],
    [line.replace('"seq":1', '"seq":2'), "hash_wrong"],
    [line.replace("05.006Z", "05.007Z"), "hash_wrong"],
    [line.replace("4441", "4442"), "hash_wrong"],
    [line.replace('"previous":"0', '"previous":"1'), "hash_wrong"],
  ];
  deepStrictEqual(cases.map(([text]) => reasonFor(encodeUtf8(text))), cases.map(([, reason]) => reason));
  strictEqual(reasonFor(Uint8Array.of(0x7b, 0xff, 0x7d)), "not_utf8");
});

Deno.test("checkLink names how an entry does not continue the chain", () => {
  const entryAfter = (head: ChainHead) => {
    const entry = parseEntry(encodeUtf8(extendChain(head, "2026-01-02T03:04:05.006Z", "{}").line.trimEnd()));
    if (!entry.ok) throw new Error(entry.reason);
    return entry.value;
  };
  const head = { seq: 7, hash: "a".repeat(64) };
  const reasonFor = (before: ChainHead) => {
    const link = checkLink(entryAfter(before), head);
    return link.ok ? "no mistake" : link.reason;
  };
  strictEqual(reasonFor(head), "no mistake");
  strictEqual(reasonFor(CHAIN_START), "restarted");
  strictEqual(reasonFor({ ...head, seq: 8 }), "seq_ahead");
  strictEqual(reasonFor({ ...head, seq: 6 }), "seq_behind");
  strictEqual(reasonFor({ ...head, hash: "b".repeat(64) }), "previous_wrong");
});

Deno.test("any event, whatever its strings hold, becomes one line that parses back to it", () => {
  const hostile = fc.string({ unit: "binary" }).map((text) => `${text}\ud800"\n\u2028`);
  fc.assert(fc.property(hostile, hostile, fc.array(hostile), (subject, actor, roles) => {
    const { line } = extendChain(
      CHAIN_START,
      "2026-01-02T03:04:05.006Z",
      eventText({ type: "user.created", subject, actor, roles }),
    );
    strictEqual(line.indexOf("\n"), line.length - 1);
    const entry = parseEntry(encodeUtf8(line.slice(0, -1)));
    if (!entry.ok) throw new Error(entry.reason);
    deepStrictEqual({ ...entry.value.event }, {
      type: "user.created",
      subject: subject.toWellFormed(),
      actor: actor.toWellFormed(),
      roles: roles.map((role) => role.toWellFormed()),
    });
  }));
});
