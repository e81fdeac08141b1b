// Tests of ids: they sort by birth, never repeat, and hold nothing that needs escaping.
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { newId } from "../../src/encoding/ids.ts";

const TIME_MS_MAX = 2 ** 48 - 1;

Deno.test("an id is its prefix and 26 letters of Crockford's alphabet", () => {
  for (const nowMs of [0, 1, 1_750_000_000_000.7, TIME_MS_MAX]) {
    match(newId("req", nowMs), /^req_[0-9a-hjkmnp-tv-z]{26}$/);
  }
});

Deno.test("property: ids of two moments sort as their moments do", () => {
  const moment = fc.integer({ min: 0, max: TIME_MS_MAX });
  fc.assert(fc.property(moment, moment, (one, two) => {
    const [first, second] = [Math.min(one, two), Math.max(one, two)];
    strictEqual(first === second || newId("tok", first) < newId("tok", second), true);
  }));
});

Deno.test("the ids of one moment share its ten letters and never repeat", () => {
  const ids = Array.from({ length: 20_000 }, () => newId("tok", 1_750_000_000_000));
  strictEqual(new Set(ids).size, ids.length);
  deepStrictEqual(new Set(ids.map((id) => id.slice(0, 14))).size, 1);
});

Deno.test("each of the sixteen random letters takes all 32 values", () => {
  const seen = Array.from({ length: 16 }, () => new Set<string>());
  for (let round = 0; round < 2000; round++) {
    const id = newId("key", 0);
    seen.forEach((letters, position) => letters.add(id.charAt(14 + position)));
  }
  deepStrictEqual(seen.map((letters) => letters.size), Array(16).fill(32));
});
