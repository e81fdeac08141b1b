// Tests of grants: their grammar, their patterns, and how far one reaches beside another.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { ACTIONS } from "../../src/access/action.ts";
import {
  coversGrant,
  formatGrant,
  GRANT_GRAMMAR,
  type GrantMistake,
  parseGrant,
} from "../../src/access/grant.ts";
import { matchesPattern } from "../../src/encoding/wildcard.ts";
import { anyText } from "../support/any_text.ts";
import { ALL_ACTIONS, anyGrant } from "./any_access.ts";
import { grantsOf } from "./principal_of.ts";

Deno.test("a grant is an action, or an action and what it is on", () => {
  const cases = {
    "model:infer": ["model:infer", "*"],
    "model:infer/*": ["model:infer", "*"],
    "model:infer/llama3.2:3b": ["model:infer", "llama3.2:3b"],
    "model:read/use-*": ["model:read", "use-*"],
    "model:read/org/model_v1": ["model:read", "org/model_v1"],
    "model:read/*/*:*.*": ["model:read", "*/*:*.*"],
    // On models these are patterns as well, for a model may be called so.
    "model:read/own": ["model:read", "own"],
    "user:write": ["user:write", "*"],
    "user:write/*": ["user:write", "*"],
    "user:write/team": ["user:write", "team"],
    "key:read/own": ["key:read", "own"],
    "upstream:read": ["upstream:read", "*"],
    "upstream:read/*": ["upstream:read", "*"],
  };
  for (const [text, [action, on]] of Object.entries(cases)) {
    deepStrictEqual(parseGrant(text), { ok: true, value: { action, on, cardRole: null } }, text);
  }
  for (const action of ALL_ACTIONS) strictEqual(parseGrant(action).ok, true, action);
});

Deno.test("what is malformed is no grant, and says what is wrong with it", () => {
  const cases: Readonly<Record<GrantMistake, readonly string[]>> = {
    action_unknown: [
      "",
      "/",
      "*",
      "*/*",
      "own",
      "model",
      "model:",
      ":infer",
      "model:*",
      "model:delete",
      "Model:infer",
      "model:infer ",
      " model:infer",
      "model:infer\n",
      "model :infer",
      "model:infer,model:read",
      "model:infer model:read",
      "model:infer*",
      "model.infer",
      "model:infer?/a",
      "\ufeffmodel:infer",
      "m\u043edel:infer",
      "__proto__",
      "constructor/own",
      "/model:infer",
      "openid",
    ],
    pattern_malformed: [
      "model:infer/",
      "model:infer/ ",
      "model:infer//a",
      "model:infer/-a",
      "model:infer/.a",
      "model:infer/a b",
      "model:infer/a,b",
      "model:infer/a\n",
      "model:infer/a\0",
      "model:infer/a?",
      "model:infer/[a]",
      "model:infer/a|b",
      "model:infer/^a$",
      "model:infer/a\\*",
      "model:infer/\u00e4",
      "model:infer/a\u200b",
      'model:infer/"a"',
      "model:infer/a%2Fb",
      "model:infer/*****",
      "model:infer/*a*a*a*a*",
      `model:infer/${"a".repeat(129)}`,
      `model:infer/${"a".repeat(200_000)}`,
    ],
    reach_unknown: [
      "user:write/",
      "user:write/Own",
      "user:write/own ",
      "user:write/own/team",
      "user:write/own,team",
      "user:write/**",
      "user:write/usr_1",
      "user:write/te*",
      "user:write/__proto__",
      "upstream:read/own",
      "upstream:read/team",
      "signing_key:rotate/own",
    ],
  };
  for (const [reason, texts] of Object.entries(cases)) {
    for (const text of texts) deepStrictEqual(parseGrant(text), { ok: false, reason }, text.slice(0, 50));
  }
});

Deno.test("a pattern has at most 128 characters and four stars", () => {
  strictEqual(parseGrant(`model:infer/${"a".repeat(128)}`).ok, true);
  strictEqual(parseGrant(`model:infer/${"*".repeat(4)}${"a".repeat(124)}`).ok, true);
  strictEqual(parseGrant(`model:infer/${"a".repeat(123)}${"*".repeat(5)}`).ok, false);
});

Deno.test("property: a grant is the same after it was written and read, and its text is the shortest", () => {
  fc.assert(fc.property(anyGrant, (grant) => {
    const text = formatGrant(grant);
    deepStrictEqual(parseGrant(text), { ok: true, value: grant });
    strictEqual(text.endsWith("/*") && grant.on === "*", false);
  }));
});

Deno.test("property: whatever is read is written as it was, or without a star that says nothing; nothing throws", () => {
  const anyOn = fc.oneof(
    anyText,
    fc.constantFrom("*", "own", "team", "**", "a*"),
    fc.string({ unit: fc.constantFrom("a", "*", "/", ".", ":", "-", " "), maxLength: 6 }),
  );
  const anyTexts = fc.oneof(
    anyText,
    fc.tuple(fc.constantFrom(...ALL_ACTIONS), anyOn).map(([action, on]) => `${action}/${on}`),
  );
  let read = 0;
  fc.assert(
    fc.property(anyTexts, (text) => {
      const grant = parseGrant(text);
      if (!grant.ok) return;
      read++;
      isTrue([text, text.replace(/\/\*$/, "")].includes(formatGrant(grant.value)));
      // It can stand in a scope, which separates by spaces, and in a quoted string (RFC 6749 §3.3).
      isTrue(/^[\x21\x23-\x5b\x5d-\x7e]+$/.test(text));
    }),
    { numRuns: 2000 },
  );
  isTrue(read > 50, `only ${read} were grants`);
});

Deno.test("the grammar that people are told has examples that are grants", () => {
  const examples = GRANT_GRAMMAR.match(/[a-z]+:[a-z]+\/\S+?(?=[,;])/g) ?? [];
  strictEqual(examples.length, 3);
  for (const example of examples) strictEqual(parseGrant(example).ok, true, example);
});

Deno.test("of reaches, everything holds the team and the team holds one's own", () => {
  const reaches = ["own", "team", "*"];
  reaches.forEach((wide, one) => {
    reaches.forEach((narrow, other) => {
      const [left, right] = grantsOf(`user:read/${wide}`, `user:read/${narrow}`);
      isTrue(left && right);
      strictEqual(coversGrant(left, right), one >= other, `${wide} ${narrow}`);
    });
  });
});

Deno.test("no action holds another one", () => {
  for (const one of ALL_ACTIONS) {
    for (const other of ALL_ACTIONS) {
      const [left, right] = grantsOf(one, other);
      isTrue(left && right);
      strictEqual(coversGrant(left, right), one === other, `${one} ${other}`);
    }
  }
});

Deno.test("property: a pattern that holds another one matches all that the other matches", () => {
  const pattern = fc.string({ unit: fc.constantFrom("a", "b", "*"), minLength: 1, maxLength: 4 });
  const id = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 6 });
  let held = 0;
  fc.assert(
    fc.property(pattern, pattern, id, (wide, narrow, text) => {
      const [left, right] = grantsOf(`model:infer/${wide}`, `model:infer/${narrow}`);
      isTrue(left && right);
      if (!coversGrant(left, right)) return;
      held++;
      if (matchesPattern(narrow, text)) strictEqual(matchesPattern(wide, text), true);
    }),
    { numRuns: 5000 },
  );
  isTrue(held > 200, `only ${held} were held`);
});

Deno.test("every action says what it is done to", () => {
  for (const on of Object.values(ACTIONS)) isTrue(["model", "object", "system"].includes(on));
});
