// Tests of signed notes, with the example key and note of the specification's reference implementation.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  formatVerifierKey,
  noteSigner,
  type NoteVerifier,
  openNote,
  parseNote,
  parseVerifierKey,
  signNote,
} from "../../../src/audit/trail/signed_note.ts";
import { formatTreeHead, parseTreeHead } from "../../../src/audit/trail/tree_head.ts";
import { EMPTY_ROOT } from "../../../src/audit/trail/merkle_tree.ts";
import { signingKeyOf } from "../trail_folder.ts";

const VERIFIER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
/** What follows the algorithm's byte in the example's private key. */
const SEED = Uint8Array.fromBase64("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").subarray(1);
const TEXT =
  "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const SIGNATURE =
  "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const NOTE = `${TEXT}\n${SIGNATURE}`;

const peter = noteSigner(
  "PeterNeumann",
  Uint8Array.fromHex(`302e020100300506032b657004220420${SEED.toHex()}`),
);
const other = noteSigner("other.example/log", signingKeyOf(2).pkcs8);

function verifier(text: string): NoteVerifier {
  const key = parseVerifierKey(text);
  if (!key.ok) throw new Error(key.reason);
  return key.value;
}

function reasonFor(note: string, ...trusted: NoteVerifier[]): string {
  const opened = openNote(note, trusted);
  return opened.ok ? "opened" : opened.reason;
}

Deno.test("the example note comes out byte by byte and opens under the example key", () => {
  strictEqual(signNote(TEXT, [peter]), NOTE);
  strictEqual(formatVerifierKey(peter), VERIFIER_KEY);
  const key = verifier(VERIFIER_KEY);
  deepStrictEqual(openNote(NOTE, [key]), { ok: true, value: { text: TEXT, signedBy: [key] } });
});

Deno.test("a verifier key with any character changed, left out or cut off is refused", () => {
  for (let at = 0; at < VERIFIER_KEY.length; at++) {
    const changed = String.fromCharCode(VERIFIER_KEY.charCodeAt(at) + 1);
    ok(!parseVerifierKey(VERIFIER_KEY.slice(0, at) + changed + VERIFIER_KEY.slice(at + 1)).ok);
    ok(!parseVerifierKey(VERIFIER_KEY.slice(0, at)).ok);
    ok(!parseVerifierKey(VERIFIER_KEY.slice(at + 1)).ok);
  }
});

Deno.test("a note with any byte of its text changed is forged", () => {
  const text = `${TEXT}a`.length;
  fc.assert(fc.property(fc.nat({ max: text - 3 }), fc.integer({ min: 33, max: 126 }), (at, code) => {
    const changed = NOTE.slice(0, at) + String.fromCharCode(code) + NOTE.slice(at + 1);
    if (changed !== NOTE) strictEqual(reasonFor(changed, peter), "forged");
  }));
});

Deno.test("a note opens by the trusted keys alone, and one forged signature of theirs spoils it", () => {
  const both = signNote(TEXT, [other, peter]);
  deepStrictEqual(openNote(both, [peter, other]), {
    ok: true,
    value: { text: TEXT, signedBy: [other, peter] },
  });
  deepStrictEqual(openNote(both, [peter]), { ok: true, value: { text: TEXT, signedBy: [peter] } });
  strictEqual(reasonFor(NOTE, other), "unknown_key");
  strictEqual(reasonFor(NOTE), "unknown_key");
  const forged = both.replace(/(other\.example\/log \S{20})./, (_, before) => `${before}!`).replace("!", "A");
  strictEqual(reasonFor(forged, peter, other), "forged");
  strictEqual(reasonFor(forged, peter), "opened");
});

Deno.test("a key of the same name that did not sign counts as unknown", () => {
  strictEqual(reasonFor(NOTE, { ...other, name: "PeterNeumann" }), "unknown_key");
});

Deno.test("what is no note is refused as malformed", () => {
  const malformed = [
    "",
    TEXT,
    `${TEXT}\n`,
    `${TEXT}${SIGNATURE}`,
    `\n\n${SIGNATURE}`,
    NOTE.slice(0, -1),
    NOTE.replace("— ", "- "),
    NOTE.replace("— ", "—  "),
    `${NOTE}more\n`,
    NOTE.replace("cryptography", "crypto\x01graphy"),
    NOTE.replace("cryptography", "crypto\rgraphy"),
    NOTE.replace(/Neumann x.*/, "Neumann x08g"),
    NOTE.replace("nAM=", "nAM"),
    TEXT + "\n" + SIGNATURE.repeat(101),
  ];
  for (const note of malformed) strictEqual(parseNote(note).ok, false, JSON.stringify(note));
  strictEqual(parseNote(TEXT + "\n" + SIGNATURE.repeat(100)).ok, true);
});

Deno.test("a text that would not read back is not signed", () => {
  for (const text of ["", "\n", "no end", "control \x07\n", "\ud800\n"]) {
    throws(() => signNote(text, [peter]), RangeError);
  }
});

Deno.test("a tree head reads back as it was written, with vouchers or without", () => {
  for (const size of [0, 1, Number.MAX_SAFE_INTEGER]) {
    for (const more of [{}, { vouchers: [NOTE] }, { vouchers: [NOTE, "x"] }]) {
      const head = {
        origin: "portcullis.0123456789abcdef/0011223344556677",
        size,
        root: EMPTY_ROOT,
        ...more,
      };
      deepStrictEqual(parseTreeHead(formatTreeHead(head)), { ok: true, value: head });
    }
  }
});

Deno.test("a text that is no tree head of ours is refused", () => {
  const text = formatTreeHead({ origin: "a/b", size: 12, root: EMPTY_ROOT });
  const [origin, size, root] = text.split("\n");
  const refused = [
    "",
    `${origin}\n${size}\n`,
    `\n${size}\n${root}\n`,
    `${origin}\n012\n${root}\n`,
    `${origin}\n-1\n${root}\n`,
    `${origin}\n9007199254740993\n${root}\n`,
    `${origin}\n${size}\n${root?.slice(4)}\n`,
    `${origin}\n${size}\n${root?.replace("=", "")}\n`,
    `${text}extension\n`,
    `${text}voucher A\n`,
    `${text}voucher /w==\n`,
    `${text}voucher QUJD\nmore\n`,
    text.slice(0, -1),
  ];
  for (const each of refused) deepStrictEqual(parseTreeHead(each), { ok: false, reason: "not_a_tree_head" });
});
