// Tests of kept secrets: 256 random bits given out, hashes kept, rotation with grace, comparison in constant time.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { decodeBase64url } from "../../src/encoding/base64url.ts";
import {
  keepSecret,
  makeSecret,
  matchesSecret,
  parseSecret,
  replaceSecret,
  SECRET_PATTERN,
  secretRecord,
} from "../../src/identity/kept_secret.ts";

const NOW_MS = 1_750_000_000_000;
const hashOf = (fill: number) => new Uint8Array(32).fill(fill);

Deno.test("ASVS V7.2.3: a secret is 32 random bytes in 43 characters, of which every bit differs from one to the next", () => {
  const secrets = Array.from({ length: 2000 }, makeSecret);
  strictEqual(new Set(secrets).size, secrets.length);
  const ones = new Array<number>(256).fill(0);
  for (const secret of secrets) {
    match(secret, new RegExp(`^${SECRET_PATTERN}$`));
    const bytes = decodeBase64url(secret);
    ok(bytes.ok);
    strictEqual(bytes.value.length, 32);
    for (let bit = 0; bit < 256; bit++) {
      ones[bit] = (ones[bit] ?? 0) + (((bytes.value[bit >> 3] ?? 0) >> (bit & 7)) & 1);
    }
  }
  // Eleven standard deviations around the half: a bit that stands still, or that leans, is outside.
  for (const [bit, count] of ones.entries()) ok(Math.abs(count - 1000) < 250, `bit ${bit}: ${count} of 2000`);
});

Deno.test("a first secret matches its hash alone, for ever", () => {
  const kept = keepSecret(hashOf(1));
  strictEqual(matchesSecret(kept, hashOf(1), NOW_MS), true);
  strictEqual(matchesSecret(kept, hashOf(1), Number.MAX_SAFE_INTEGER), true);
  strictEqual(matchesSecret(kept, hashOf(2), NOW_MS), false);
});

Deno.test("property: a hash that differs in one bit, or in its length, does not match", () => {
  const hash = fc.uint8Array({ minLength: 32, maxLength: 32 });
  fc.assert(fc.property(hash, fc.nat(255), (bytes, bit) => {
    const kept = keepSecret(new Uint8Array(bytes));
    strictEqual(matchesSecret(kept, new Uint8Array(bytes), NOW_MS), true);
    const other = new Uint8Array(bytes);
    other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    strictEqual(matchesSecret(kept, other, NOW_MS), false);
    strictEqual(matchesSecret(kept, new Uint8Array(bytes.subarray(0, 31)), NOW_MS), false);
    strictEqual(matchesSecret(kept, new Uint8Array(), NOW_MS), false);
  }));
});

Deno.test("within its grace the secret before matches too, to the millisecond; afterwards the new one alone", () => {
  const kept = replaceSecret(keepSecret(hashOf(1)), hashOf(2), NOW_MS, 60);
  strictEqual(kept.rotatedAtMs, NOW_MS);
  strictEqual(kept.previousUntilMs, NOW_MS + 60_000);
  for (
    const [nowMs, matches] of [[NOW_MS, true], [NOW_MS + 59_999, true], [NOW_MS + 60_000, false]] as const
  ) {
    strictEqual(matchesSecret(kept, hashOf(1), nowMs), matches);
    strictEqual(matchesSecret(kept, hashOf(2), nowMs), true);
  }
});

Deno.test("without a grace nothing is kept of the secret before", () => {
  const kept = replaceSecret(keepSecret(hashOf(1)), hashOf(2), NOW_MS, 0);
  deepStrictEqual(kept, { hash: hashOf(2), previousHash: null, previousUntilMs: null, rotatedAtMs: NOW_MS });
  strictEqual(matchesSecret(kept, hashOf(1), NOW_MS), false);
  strictEqual(matchesSecret(kept, hashOf(2), NOW_MS), true);
});

Deno.test("a second rotation within the grace ends the oldest secret", () => {
  const first = replaceSecret(keepSecret(hashOf(1)), hashOf(2), NOW_MS, 3600);
  const second = replaceSecret(first, hashOf(3), NOW_MS + 1, 3600);
  deepStrictEqual([1, 2, 3].map((fill) => matchesSecret(second, hashOf(fill), NOW_MS + 2)), [
    false,
    true,
    true,
  ]);
  const third = replaceSecret(second, hashOf(4), NOW_MS + 2, 0);
  deepStrictEqual([1, 2, 3, 4].map((fill) => matchesSecret(third, hashOf(fill), NOW_MS + 2)), [
    false,
    false,
    false,
    true,
  ]);
});

Deno.test("a record gives back what was kept", () => {
  const first = keepSecret(hashOf(1));
  for (
    const kept of [
      first,
      replaceSecret(first, hashOf(2), NOW_MS, 60),
      replaceSecret(first, hashOf(2), NOW_MS, 0),
    ]
  ) {
    deepStrictEqual(parseSecret(JSON.parse(JSON.stringify(secretRecord(kept)))), kept);
  }
});

Deno.test("a record of another form is refused: no hash, a short one, none of text, times that are none", () => {
  const good = secretRecord(replaceSecret(keepSecret(hashOf(1)), hashOf(2), NOW_MS, 60)) as Record<
    string,
    JsonValue
  >;
  ok(parseSecret(good));
  const short = "AAAA";
  const broken: (JsonValue | undefined)[] = [undefined, null, 1, "text", [], {}];
  for (const hash of [null, 1, "", short, `${good.hash}=`, [good.hash ?? null]]) {
    broken.push({ ...good, hash });
  }
  for (const previousHash of [1, "", short, false]) broken.push({ ...good, previousHash });
  for (const time of ["1", true, {}]) {
    broken.push({ ...good, previousUntilMs: time }, { ...good, rotatedAtMs: time });
  }
  for (const name of Object.keys(good)) {
    broken.push(Object.fromEntries(Object.entries(good).filter(([member]) => member !== name)));
  }
  for (const value of broken) strictEqual(parseSecret(value), undefined, JSON.stringify(value));
});

Deno.test("ASVS V11.2.4: hashes of secrets are compared by the constant-time comparison and by nothing else", async () => {
  for (const name of ["kept_secret", "api_keys", "clients"]) {
    const source = await Deno.readTextFile(new URL(`../../src/identity/${name}.ts`, import.meta.url));
    // A hash beside an operator or in a search would be a comparison that tells by its time where it stopped.
    const comparisons = source.match(/\w*[hH]ash\w*\)?\s*(?:[=!]==|[<>]=?\s)\s*(?!null|undefined)\S+/g);
    deepStrictEqual(comparisons, null, name);
  }
  const source = await Deno.readTextFile(new URL("../../src/identity/kept_secret.ts", import.meta.url));
  strictEqual(source.match(/constantTimeEqual\((?:kept\.hash|previousHash), hash\)/g)?.length, 2);
});
