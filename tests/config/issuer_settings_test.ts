// Tests of the issuer settings: whose tokens are accepted, where their keys are fetched, what that needs of the process.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { permissionFlags } from "../../src/cli/permission_flags.ts";
import { type ConfigMistake, outgoingHosts, parseConfig } from "../../src/config/config.ts";
import { ALGORITHMS } from "../../src/identity/public_key.ts";

const LOGIN = { issuer: "https://login.example.com/tenant", discovery: true };
const KEYS = { issuer: "https://id.example.com/", jwksUrl: "https://keys.example.com:8443/jwks?tenant=1" };

function parse(file: unknown, variables: Record<string, string> = {}) {
  return parseConfig({ variables, file, cores: 2, storeExists: () => true });
}

function mistakesOf(file: unknown, variables: Record<string, string> = {}): readonly ConfigMistake[] {
  const outcome = parse(file, variables);
  return outcome.ok ? [] : outcome.mistakes;
}

function issuerOf(fields: Record<string, unknown>) {
  const outcome = parse({ issuers: [{ ...LOGIN, ...fields }] });
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.mistakes));
  return outcome.config.issuers[0];
}

function refused(fields: Record<string, unknown>, words: RegExp): void {
  const mistakes = mistakesOf({ issuers: [{ ...LOGIN, ...fields }] });
  strictEqual(mistakes.length, 1, JSON.stringify([fields, mistakes]));
  match(mistakes[0]?.what ?? "", words);
}

Deno.test("two fields name an issuer; everything else has a default, and no default gives a role", () => {
  deepStrictEqual(issuerOf({}), {
    ...LOGIN,
    algorithms: [...ALGORITHMS],
    leewaySeconds: 5,
    lifetimeSecondsMax: 3600,
    tokenType: "at+jwt",
    rolesClaim: "/roles",
    roles: {},
    team: "default",
    plainHttp: false,
  });
});

Deno.test("issuers can come from a variable as JSON text", () => {
  const outcome = parse(undefined, { PORTCULLIS_ISSUERS: JSON.stringify([LOGIN, KEYS]) });
  ok(outcome.ok, JSON.stringify(outcome));
  deepStrictEqual(outcome.config.issuers.map(({ issuer }) => issuer), [LOGIN.issuer, KEYS.issuer]);
});

Deno.test("an issuer stays as it is written, for tokens are compared with it letter by letter", () => {
  for (
    const issuer of [
      "https://login.example.com",
      "https://login.example.com/",
      "https://Login.Example.com:443/a/../b//",
      "http://127.0.0.1:9000",
      "http://[::1]:9000/x",
      "http://localhost/x",
    ]
  ) strictEqual(issuerOf({ issuer })?.issuer, issuer);
});

Deno.test("what is no address of an issuer is refused with its place", () => {
  for (
    const issuer of [
      "",
      "login.example.com",
      "ftp://login.example.com",
      "file:///etc/passwd",
      "https://",
      "https://user@login.example.com",
      "https://user:pass@login.example.com",
      "https://login.example.com?x",
      "https://login.example.com/#",
      "https://login.example.com/a b",
      "https://login.exämple.com",
      `https://login.example.com/${"x".repeat(255)}`,
      1,
      null,
    ]
  ) refused({ issuer }, /^\[0\]\.issuer: /);
});

Deno.test("keys come from exactly one place: an address, or discovery", () => {
  refused({ discovery: false }, /jwksUrl: is needed, or "discovery": true; not both/);
  refused({ discovery: undefined }, /jwksUrl: is needed/);
  refused({ jwksUrl: "https://keys.example.com/jwks" }, /not both/);
  refused({ discovery: "true" }, /^\[0\]\.discovery: /);
  for (
    const jwksUrl of [
      "",
      "keys",
      "data:application/json,{}",
      "https://a@keys.example.com/",
      "https://keys.example.com/#x",
    ]
  ) refused({ discovery: false, jwksUrl }, /^\[0\]\.jwksUrl: /);
  strictEqual(issuerOf({ ...KEYS, discovery: false })?.jwksUrl, KEYS.jwksUrl);
});

Deno.test("plain HTTP to another machine is refused unless the settings say that the network is trusted", () => {
  refused({ issuer: "http://login.example.com" }, /issuer: is plain HTTP to another machine/);
  refused({ issuer: "http://127.0.0.1.example.com" }, /plain HTTP/);
  refused({ ...KEYS, discovery: false, jwksUrl: "http://keys.example.com/" }, /jwksUrl: is plain HTTP/);
  strictEqual(issuerOf({ issuer: "http://login.example.com", plainHttp: true })?.plainHttp, true);
});

Deno.test("no two issuers are one, and none is this server itself, with or without a slash", () => {
  match(mistakesOf({ issuers: [LOGIN, KEYS, LOGIN] })[0]?.what ?? "", /^\[2\]\.issuer: .* stands twice/);
  for (const issuer of ["https://ai.example.com", "https://ai.example.com/", "https://AI.example.com:443"]) {
    const file = { publicUrl: "https://ai.example.com", issuers: [{ ...LOGIN, issuer }] };
    const [mistake, ...more] = mistakesOf(file);
    deepStrictEqual([mistake?.where, more], ["PORTCULLIS_ISSUERS", []]);
    match(mistake?.what ?? "", /is this server itself/);
  }
});

Deno.test("algorithms are asymmetric ones, and the settings know just those that can be verified", () => {
  for (const algorithm of ALGORITHMS) {
    deepStrictEqual(issuerOf({ algorithms: [algorithm] })?.algorithms, [algorithm]);
  }
  for (
    const wrong of [[], ["none"], ["HS256"], ["ES256", "HS512"], ["RS1"], ["ES512"], "ES256", ["es256"]]
  ) {
    refused({ algorithms: wrong }, /^\[0\]\.algorithms/);
  }
});

Deno.test("every bound of a field holds, and an unknown field is a mistake", () => {
  const wrong: Readonly<Record<string, readonly unknown[]>> = {
    audience: ["", "two words", "ä", "x".repeat(256), 1],
    leewaySeconds: [-1, 61, 0.5, "5"],
    lifetimeSecondsMax: [59, 86_401, "3600"],
    tokenType: ["", "jwt", "id+jwt"],
    rolesClaim: ["", "roles", "/a~2b", "/a~", `/${"x".repeat(500)}`],
    roles: [[], "user", { staff: "user" }, { staff: ["User"] }, { staff: [""] }, { staff: ["-a"] }, {
      ["x".repeat(256)]: [],
    }, { staff: Array(33).fill("user") }],
    team: ["", "Default", "a b", "a-", "a".repeat(33)],
    caFile: ["", "a b", "a,b", "-x"],
    plainHttp: ["true", 1],
  };
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) refused({ [field]: value }, new RegExp(`^\\[0\\]\\.${field}`));
  }
  refused({ clientSecret: "x" }, /"clientSecret"/);
  for (
    const [field, values] of Object.entries({
      leewaySeconds: [0, 60],
      lifetimeSecondsMax: [60, 86_400],
      rolesClaim: ["/a/b", "/https:~1~1example.com~1roles", "/~0", "/"],
      roles: [{ "": [] }, { "Domain Admins": ["admin", "user"] }],
    })
  ) for (const value of values) issuerOf({ [field]: value });
});

Deno.test("the permission flags name the host and port that each issuer's keys come from, and the certificates to be read", () => {
  const outcome = parse({
    upstreams: [{ name: "a", kind: "openai", url: "https://login.example.com/v1" }],
    issuers: [{ ...LOGIN, caFile: "login-ca.pem" }, KEYS, {
      issuer: "http://[::1]:9/x",
      discovery: true,
    }],
  });
  ok(outcome.ok, JSON.stringify(outcome));
  deepStrictEqual(outgoingHosts(outcome.config), [
    "login.example.com:443",
    "keys.example.com:8443",
    "[::1]:9",
  ]);
  const flags = permissionFlags(outcome.config, []);
  ok(
    flags.includes("--allow-net=127.0.0.1:8000,login.example.com:443,keys.example.com:8443,[::1]:9"),
    flags.join(" "),
  );
  ok(flags.some((flag) => flag.startsWith("--allow-read=") && flag.endsWith(",login-ca.pem")));
});
