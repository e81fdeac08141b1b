// Tests of patterns with wildcards: what they match, and that no pattern takes for ever.
import { ok as isTrue, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { matchesPattern } from "../../src/encoding/wildcard.ts";

/** The pattern as a regular expression: plain to see, and slow with many stars. */
function asExpression(pattern: string): RegExp {
  const parts = pattern.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"));
  return new RegExp(`^${parts.join("[^]*")}$`);
}

Deno.test("property: a pattern matches what its regular expression matches", () => {
  const letters = (extra: string[]) =>
    fc.string({ unit: fc.constantFrom("a", "b", ".", ...extra), maxLength: 8 });
  const matched = { true: 0, false: 0 };
  fc.assert(
    fc.property(letters(["*", "*"]), letters(["\n"]), (pattern, text) => {
      const expected = asExpression(pattern).test(text);
      matched[`${expected}`]++;
      strictEqual(matchesPattern(pattern, text), expected, `${pattern} ${JSON.stringify(text)}`);
    }),
    { numRuns: 5000 },
  );
  isTrue(matched.true > 300 && matched.false > 300, JSON.stringify(matched));
});

Deno.test("property: a pattern matches whatever stands in the place of its stars", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "/"), maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(letters, { minLength: 1, maxLength: 6 }),
      fc.infiniteStream(letters),
      (parts, fill) => {
        const text = parts.reduce((before, part) => `${before}${fill.next().value}${part}`);
        strictEqual(matchesPattern(parts.join("*"), text), true, `${parts.join("*")} ${text}`);
      },
    ),
  );
});

Deno.test("a pattern matches the whole text, and nothing but a star is special", () => {
  for (
    const [pattern, text] of [["a", "ab"], ["a", "ba"], ["a*", "ba"], ["*a", "ab"], ["a.c", "abc"], [
      "A",
      "a",
    ]]
  ) {
    strictEqual(matchesPattern(pattern ?? "", text ?? ""), false, `${pattern} ${text}`);
  }
  strictEqual(matchesPattern("*", ""), true);
  strictEqual(matchesPattern("", ""), true);
  strictEqual(matchesPattern("", "a"), false);
});

Deno.test("ASVS V1.3.12: no pattern makes matching explode: with backtracking these would not come to an end", () => {
  // The grammar lets four stars through; tried one within the other they would take 10^20 steps here.
  strictEqual(matchesPattern("*a*a*a*ab", "a".repeat(100_000)), false);
  // And without the grammar: more ways than there are atoms.
  strictEqual(matchesPattern(`${"*a".repeat(60)}b`, "a".repeat(3000)), false);
  strictEqual(matchesPattern("*".repeat(3000), "a".repeat(3000)), true);
  strictEqual(matchesPattern(`${"*".repeat(3000)}b`, "a".repeat(3000)), false);
});
