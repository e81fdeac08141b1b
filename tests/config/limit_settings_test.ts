// Tests of the settings of limits and bans: what they allow, and what they say of what they refuse.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type Config, type ConfigMistake, parseConfig } from "../../src/config/config.ts";

const FREE = { name: "free", subject: "user", requestsPerDay: 100 };
const KEY_ID = `pck_${"0".repeat(26)}`;

function parse(file: unknown, variables: Record<string, string> = {}) {
  return parseConfig({ variables, file, cores: 2, storeExists: () => true });
}

function configOf(file: unknown, variables: Record<string, string> = {}): Config {
  const outcome = parse(file, variables);
  ok(outcome.ok, JSON.stringify(outcome));
  return outcome.config;
}

function mistakeOf(file: unknown): ConfigMistake {
  const outcome = parse(file);
  ok(!outcome.ok, `${JSON.stringify(file)} was accepted`);
  strictEqual(outcome.mistakes.length, 1, JSON.stringify(outcome.mistakes));
  return outcome.mistakes[0] ?? { where: "", what: "" };
}

function refused(policies: readonly unknown[], words: RegExp): void {
  match(mistakeOf({ limits: policies }).what, words, JSON.stringify(policies));
}

Deno.test("without settings there are no policies, and bans are as the documents have them", () => {
  const { limits, bans } = configOf({});
  deepStrictEqual(limits, []);
  deepStrictEqual(bans, {
    enabled: true,
    credentials: { count: 20, seconds: 300 },
    validation: { count: 50, seconds: 600 },
    probes: { count: 3, seconds: 600 },
    firstSeconds: 86_400,
    secondSeconds: 604_800,
  });
});

Deno.test("three members make a policy, which is about everybody; conditions and quotas can all be there", () => {
  deepStrictEqual(configOf({ limits: [FREE] }).limits, [{ ...FREE, for: {} }]);
  const full = {
    name: "a-policy-of-all-that-there-is-32c",
    subject: "key",
    for: {
      roles: ["user", "team-admin"],
      teams: ["red"],
      keys: [KEY_ID],
      models: ["llama3.2:3b", "*", "org/m*"],
    },
    requestsPerMinute: 1,
    tokensPerMinute: 1_000_000_000,
    requestsAtOnce: 1_000_000,
    whenStoreFails: "degraded",
  };
  const name = full.name.slice(0, 32);
  deepStrictEqual(configOf({ limits: [{ ...full, name }] }).limits, [{ ...full, name }]);
  const budgets = {
    name: "b",
    subject: "team",
    for: {},
    requestsPerDay: 1_000_000_000,
    requestsPerMonth: 1,
    tokensPerDay: 1,
    tokensPerMonth: 1_000_000_000_000,
    costPerDay: 0.000001,
    costPerMonth: 1_000_000,
    whenStoreFails: "closed",
  };
  deepStrictEqual(configOf({ limits: [budgets] }).limits, [budgets]);
});

Deno.test("the examples of docs/limits.md are settings that are accepted", () => {
  const text = Deno.readTextFileSync(`${import.meta.dirname}/../../docs/limits.md`);
  const examples = [...text.matchAll(/```json\n([\s\S]*?)```/g)].map(([, json = ""]) => JSON.parse(json));
  strictEqual(examples.length, 2);
  strictEqual(configOf(examples[0]).limits.length, examples[0].limits.length);
  deepStrictEqual(configOf(examples[1]).upstreamModels[0]?.prices, {
    inputPerMillion: 0.15,
    outputPerMillion: 0.6,
  });
});

Deno.test("policies can come from a variable as JSON text", () => {
  const variables = { PORTCULLIS_LIMITS: JSON.stringify([FREE]) };
  deepStrictEqual(configOf(undefined, variables).limits, [{ ...FREE, for: {} }]);
});

Deno.test("a name stands once, in lower case, and is none of those that the server itself uses", () => {
  for (const name of ["", "Free", "-free", "free-", "free tier", "free:tier", "a".repeat(33), "fré"]) {
    refused([{ ...FREE, name }], /^limits|^\[0\]\.name: is no name \(lower-case letters, digits and -\)/);
  }
  refused([FREE, { ...FREE, name: "paid" }, FREE], /\[2\]\.name: "free" stands twice/);
  for (const name of ["address", "sign-in", "token", "user", "at-once"]) {
    refused([{ ...FREE, name }], new RegExp(`"${name}" is the name of a limit with a setting of its own`));
  }
});

Deno.test("a policy that limits nothing is refused, and told so", () => {
  refused(
    [{ name: "free", subject: "user" }],
    /limits nothing: name at least one quota, such as requestsPerMinute/,
  );
});

Deno.test("the subject, the conditions and their members are of a closed form", () => {
  for (const subject of [undefined, "User", "role", "ip", null]) {
    refused([{ ...FREE, subject }], /\[0\]\.subject: /);
  }
  refused([{ ...FREE, for: { roles: ["Admin"] } }], /\[0\]\.for\.roles\[0\]: is no role/);
  refused([{ ...FREE, for: { teams: ["-"] } }], /\[0\]\.for\.teams\[0\]: is no team/);
  refused([{ ...FREE, for: { keys: ["pck_1"] } }], /\[0\]\.for\.keys\[0\]: is no id of an API key/);
  refused([{ ...FREE, for: { models: ["/m"] } }], /\[0\]\.for\.models\[0\]: is no model or pattern/);
  refused([{ ...FREE, for: { models: ["m".repeat(129)] } }], /is no model or pattern/);
  for (const empty of ["roles", "teams", "keys", "models"]) {
    refused([{ ...FREE, for: { [empty]: [] } }], new RegExp(`\\[0\\]\\.for\\.${empty}: `));
  }
  refused([{ ...FREE, for: { users: ["usr_1"] } }], /users/);
  refused([{ ...FREE, requestsPerHour: 5 }], /requestsPerHour/);
  refused([{ ...FREE, whenStoreFails: "open" }], /\[0\]\.whenStoreFails: /);
});

Deno.test("quotas are whole and more than 0, money is more than 0, and none is larger than what can be counted exactly", () => {
  const wholes = [
    "requestsPerMinute",
    "tokensPerMinute",
    "requestsAtOnce",
    "requestsPerDay",
    "requestsPerMonth",
    "tokensPerDay",
    "tokensPerMonth",
  ];
  for (const quota of wholes) {
    for (const value of [0, -1, 1.5, "5", null, 1e13]) {
      refused([{ name: "x", subject: "user", [quota]: value }], new RegExp(`\\[0\\]\\.${quota}: `));
    }
  }
  for (const quota of ["costPerDay", "costPerMonth"]) {
    for (const value of [0, -1, 1_000_001, "5", null]) {
      refused([{ name: "x", subject: "user", [quota]: value }], new RegExp(`\\[0\\]\\.${quota}: `));
    }
  }
});

Deno.test("a budget cannot be degraded: what a part of a month is on one instance, nobody can say", () => {
  for (
    const quota of [
      "requestsPerDay",
      "requestsPerMonth",
      "tokensPerDay",
      "tokensPerMonth",
      "costPerDay",
      "costPerMonth",
    ]
  ) {
    const policy = {
      name: "x",
      subject: "user",
      requestsPerMinute: 5,
      [quota]: 5,
      whenStoreFails: "degraded",
    };
    refused([policy], /\[0\]\.name: has a quota of a day or month, which cannot be "degraded"/);
    ok(parse({ limits: [{ ...policy, whenStoreFails: "closed" }] }).ok, quota);
  }
  ok(
    parse({ limits: [{ name: "x", subject: "user", requestsPerMinute: 5, whenStoreFails: "degraded" }] }).ok,
  );
});

Deno.test("256 policies are allowed, and one more is not", () => {
  const policies = Array.from({ length: 257 }, (_, index) => ({ ...FREE, name: `p-${index}` }));
  strictEqual(configOf({ limits: policies.slice(1) }).limits.length, 256);
  strictEqual(mistakeOf({ limits: policies }).where, "portcullis.json: limits");
});

Deno.test("of bans each trigger can be set by itself; what is not named keeps its default", () => {
  const { bans } = configOf({ bans: { probes: { count: 1 }, secondSeconds: 60 } });
  deepStrictEqual([bans.probes, bans.credentials, bans.firstSeconds, bans.secondSeconds, bans.enabled], [
    { count: 1, seconds: 600 },
    { count: 20, seconds: 300 },
    86_400,
    60,
    true,
  ]);
  strictEqual(configOf({ bans: { enabled: false } }).bans.enabled, false);
});

Deno.test("thresholds of bans are whole, more than 0 and bounded; unknown triggers are refused", () => {
  const cases: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ probes: { count: 0 } }, /probes\.count: /],
    [{ probes: { count: 1001 } }, /probes\.count: /],
    [{ validation: { seconds: 1.5 } }, /validation\.seconds: /],
    [{ credentials: { seconds: 86_401 } }, /credentials\.seconds: /],
    [{ firstSeconds: 0 }, /firstSeconds: /],
    [{ secondSeconds: -1 }, /secondSeconds: /],
    [{ enabled: "yes" }, /enabled: /],
    [{ floods: { count: 1 } }, /floods/],
    [{ probes: { count: 1, minutes: 1 } }, /minutes/],
  ];
  for (const [bans, words] of cases) match(mistakeOf({ bans }).what, words, JSON.stringify(bans));
});
