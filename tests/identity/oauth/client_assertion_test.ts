// Tests of client assertions: RFC 7523 §3 row by row, each known way around a verifier (RFC 8725), and a real client.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import * as oauth from "oauth4webapi";
import { Fault } from "../../../src/faults/fault.ts";
import { openMemoryReplayStore } from "../../../src/identity/memory_replay_store.ts";
import {
  type AssertionRefusal,
  verifyClientAssertion,
} from "../../../src/identity/oauth/client_assertion.ts";
import { ALGORITHMS } from "../../../src/identity/public_key.ts";
import { parseJws, type UntrustedObject } from "../../../src/identity/strict_jws.ts";
import { manualClock } from "../../support/manual_clock.ts";
import { encodePart, forgeToken, hmacSigner, type Signer, type TokenPart } from "../forge_token.ts";
import { makeForeignKey, makeForeignKeys } from "../foreign_key.ts";

const ISSUER = "https://ai.example.com";
const ENDPOINT = `${ISSUER}/oauth/token`;
const NOW_SECONDS = 1_750_000_000;
const CLIENT = "cli_1";

const KEYS = makeForeignKeys();
const key = KEYS.ES256;
const stranger = makeForeignKey("ES256");
const weak = makeForeignKey("RS256", 2048);

const HEADER = { alg: "ES256", kid: "k1" };
const CLAIMS = {
  iss: CLIENT,
  sub: CLIENT,
  aud: ISSUER,
  jti: "jti-1",
  iat: NOW_SECONDS,
  nbf: NOW_SECONDS,
  exp: NOW_SECONDS + 60,
};
/** What clients have registered. */
const CLIENTS: Readonly<Record<string, readonly UntrustedObject[]>> = {
  cli_1: [
    { ...KEYS.EdDSA.publicJwk, kid: "k0" },
    { ...key.publicJwk, kid: "k1", use: "sig", alg: "ES256" },
    { ...weak.publicJwk, kid: "k2" },
    { kty: "oct", k: encodePart("secret"), kid: "k3" },
  ],
  cli_2: [{ ...stranger.publicJwk, kid: "k1" }],
  cli_none: [],
};

function openVerifier(
  { entriesMax = 1000, nowSeconds = NOW_SECONDS, clients = CLIENTS }: {
    entriesMax?: number;
    nowSeconds?: number;
    clients?: Readonly<Record<string, readonly UntrustedObject[]>>;
  } = {},
) {
  const asked: string[] = [];
  const replays = openMemoryReplayStore(manualClock(NOW_SECONDS * 1000), entriesMax);
  const verify = (assertion: string, clientIdHint?: string) =>
    verifyClientAssertion(assertion, {
      ...(clientIdHint === undefined ? {} : { clientIdHint }),
      keysOf: (clientId) => {
        asked.push(clientId);
        return Promise.resolve(Object.hasOwn(clients, clientId) ? clients[clientId] : undefined);
      },
      audiences: [ISSUER, ENDPOINT],
      nowSeconds,
      replays,
    });
  return { verify, asked };
}

const forge = (header: TokenPart, claims: TokenPart = CLAIMS, by: Signer = key.signer) =>
  forgeToken(header, claims, by);
const header = (members: Record<string, unknown>) => forge({ ...HEADER, ...members });
const claim = (members: Record<string, unknown>) => forge(HEADER, { ...CLAIMS, ...members });
const without = (part: Readonly<Record<string, unknown>>, ...names: string[]): Record<string, unknown> =>
  Object.fromEntries(Object.entries(part).filter(([name]) => !names.includes(name)));
/** A part's JSON with one member written by hand. */
const withRaw = (part: Readonly<Record<string, unknown>>, name: string, raw: string): string =>
  JSON.stringify(without(part, name)).replace(/\}$/, `,"${name}":${raw}}`);
const rawClaim = (name: string, raw: string) => forge(HEADER, withRaw(CLAIMS, name, raw));

const ACCEPTED = { ok: true, value: { clientId: CLIENT } };

/** Each assertion is refused for the reason. */
function refused(
  criterion: string,
  reason: AssertionRefusal,
  assertions: Readonly<Record<string, string>>,
): void {
  Deno.test(`${criterion}: ${reason}`, async () => {
    const { verify } = openVerifier();
    for (const [name, assertion] of Object.entries(assertions)) {
      deepStrictEqual(await verify(assertion), { ok: false, reason }, name);
    }
  });
}

Deno.test("the assertion that all others are made from is accepted, once", async () => {
  const { verify, asked } = openVerifier();
  deepStrictEqual(await verify(forge(HEADER)), ACCEPTED);
  deepStrictEqual(await verify(forge(HEADER)), { ok: false, reason: "assertion_replayed" });
  deepStrictEqual(asked, [CLIENT, CLIENT]);
});

for (const algorithm of ALGORITHMS) {
  Deno.test(`an ${algorithm} assertion is accepted under the key that its kid names, and without a kid`, async () => {
    const clients = {
      [CLIENT]: Object.values(KEYS).map(({ publicJwk }, index) => ({ ...publicJwk, kid: `${index}` })),
    };
    const { verify } = openVerifier({ clients });
    const { signer } = KEYS[algorithm];
    const kid = `${ALGORITHMS.indexOf(algorithm)}`;
    deepStrictEqual(await verify(forge({ alg: algorithm, kid }, CLAIMS, signer)), ACCEPTED);
    deepStrictEqual(await verify(forge({ alg: algorithm }, { ...CLAIMS, jti: "2" }, signer)), ACCEPTED);
  });
}

const [head = "", payload = "", signature = ""] = forge(HEADER).split(".");

refused("what is not one well-formed JWT is refused", "assertion_malformed", {
  "empty": "",
  "two segments": `${head}.${payload}`,
  "five segments": `${head}.${payload}.${signature}.${head}.${payload}`,
  "a line end": `${head}.${payload}.${signature}\n`,
  "padded": `${head}.${payload}.${signature}=`,
  "oversized": claim({ x: "x".repeat(8192) }),
  "header an array": forge(JSON.stringify([HEADER])),
  "alg twice": forge(withRaw(HEADER, "alg", '"ES256","alg":"ES256"')),
  "claims an array": forge(HEADER, JSON.stringify([CLAIMS])),
  "claims nested beyond measure": rawClaim("x", "[".repeat(9) + "]".repeat(9)),
  ...Object.fromEntries(
    Object.entries(CLAIMS).map(([name, value]) => [
      `${name} twice`,
      rawClaim(name, `${JSON.stringify(value)},"${name}":${JSON.stringify(value)}`),
    ]),
  ),
});

refused(
  "RFC 8725 §3.1, §3.2: an algorithm that is none, symmetric or unknown is refused",
  "assertion_header_refused",
  {
    "missing": forge(without(HEADER, "alg")),
    "none": forge({ ...HEADER, alg: "none" }, CLAIMS, () => new Uint8Array()),
    "none in another case": forge({ ...HEADER, alg: "nOnE" }, CLAIMS, () => new Uint8Array()),
    "HS256 with the public key": forge({ ...HEADER, alg: "HS256" }, CLAIMS, hmacSigner(key.publicPem)),
    "HS256 with the JWK": forge(
      { ...HEADER, alg: "HS256" },
      CLAIMS,
      hmacSigner(JSON.stringify(key.publicJwk)),
    ),
    "HS256 with a registered secret": forge({ alg: "HS256", kid: "k3" }, CLAIMS, hmacSigner("secret")),
    "ES512": header({ alg: "ES512" }),
    "lower case": header({ alg: "es256" }),
    "null": header({ alg: null }),
    "array": header({ alg: ["ES256"] }),
  },
);

refused(
  "RFC 8725 §3.10, §3.11: another type, a key of its own or any further header member is refused",
  "assertion_header_refused",
  {
    ...Object.fromEntries(
      ["", "at+jwt", "dpop+jwt", "JWS", "JWT ", "application/JWT", null, ["JWT"]].map((typ) => [
        `typ ${typ}`,
        header({ typ }),
      ]),
    ),
    ...Object.fromEntries(
      ["", "a b", "é", "x".repeat(256), null, 1, ["k1"]].map((kid) => [`kid ${kid}`, header({ kid })]),
    ),
    "jwk": header({ jwk: key.publicJwk }),
    "jwk of a stranger": forge({ ...HEADER, jwk: stranger.publicJwk }, CLAIMS, stranger.signer),
    "jku": header({ jku: "https://evil.example/keys" }),
    "x5u": header({ x5u: "https://evil.example/cert" }),
    "x5c": header({ x5c: ["AAAA"] }),
    "x5t": header({ x5t: "AAAA" }),
    "cty": header({ cty: "JWT" }),
    "crit": header({ crit: ["exp"] }),
    "crit empty": header({ crit: [] }),
    "b64": header({ b64: false }),
  },
);

Deno.test("RFC 7523: the type may be absent, JWT, or the one of client authentication, in any case", async () => {
  const { verify } = openVerifier();
  for (const typ of ["JWT", "jwt", "client-authentication+jwt", "Client-Authentication+JWT"]) {
    const assertion = forge({ ...HEADER, typ }, { ...CLAIMS, jti: `jti-${typ}` });
    deepStrictEqual(await verify(assertion), ACCEPTED, typ);
  }
});

refused("RFC 7523 §3: iss and sub are both the client's id, else", "assertion_claims_wrong", {
  "iss missing": forge(HEADER, without(CLAIMS, "iss")),
  "sub missing": forge(HEADER, without(CLAIMS, "sub")),
  "both missing": forge(HEADER, without(CLAIMS, "iss", "sub")),
  "sub of another": claim({ sub: "cli_2" }),
  "iss of another": claim({ iss: "cli_2" }),
  "both null": claim({ iss: null, sub: null }),
  "both empty": claim({ iss: "", sub: "" }),
  "both with a space": claim({ iss: "cli 1", sub: "cli 1" }),
  "both an array": claim({ iss: [CLIENT], sub: [CLIENT] }),
  "both too long": claim({ iss: "x".repeat(256), sub: "x".repeat(256) }),
  "sub in another case": claim({ sub: CLIENT.toUpperCase() }),
});

Deno.test("RFC 7521 §4.2: a client_id beside the assertion must be the assertion's, and no keys are asked for before", async () => {
  const { verify, asked } = openVerifier();
  for (const hint of ["cli_2", "", "CLI_1", "cli_1 "]) {
    deepStrictEqual(await verify(forge(HEADER), hint), { ok: false, reason: "assertion_for_other_client" });
  }
  deepStrictEqual(asked, []);
  deepStrictEqual(await verify(forge(HEADER), CLIENT), ACCEPTED);
});

refused("a client that is not known is refused", "assertion_client_unknown", {
  "unknown": claim({ iss: "cli_9", sub: "cli_9" }),
  "a name of Object's": claim({ iss: "constructor", sub: "constructor" }),
});

refused("an assertion that no registered key fits is refused", "assertion_key_unknown", {
  "a kid that is not the client's": header({ kid: "k9" }),
  "the kid of another kind of key": header({ kid: "k0" }),
  "the kid of a weak key": forge({ alg: "RS256", kid: "k2" }, CLAIMS, weak.signer),
  "a weak key without kid": forge({ alg: "RS256" }, CLAIMS, weak.signer),
  "the kid of a secret": forge({ alg: "ES256", kid: "k3" }, CLAIMS, hmacSigner("secret")),
  "an algorithm that no key has": forge({ alg: "ES384" }, CLAIMS, KEYS.ES384.signer),
  "an algorithm that its key is not for": forge({ alg: "ES384", kid: "k1" }),
  "a client without keys": claim({ iss: "cli_none", sub: "cli_none" }),
});

refused("RFC 7523 §3: a signature that is not of the client's key is refused", "assertion_signature_wrong", {
  "none": `${head}.${payload}.`,
  "zero": `${head}.${payload}.${encodePart(new Uint8Array(64))}`,
  "another key's under our kid": forge(HEADER, CLAIMS, stranger.signer),
  "another key's without kid": forge({ alg: "ES256" }, CLAIMS, stranger.signer),
  "another client's under its own kid": claim({ iss: "cli_2", sub: "cli_2" }),
  "of another assertion": `${head}.${payload}.${claim({ jti: "other" }).split(".")[2]}`,
  "other claims put in": `${head}.${encodePart({ ...CLAIMS, jti: "2" })}.${signature}`,
  "HMAC with the public key under ES256": forge(HEADER, CLAIMS, hmacSigner(key.publicPem)),
});

refused("a claim that is missing or of a wrong form is refused", "assertion_claims_wrong", {
  "jti missing": forge(HEADER, without(CLAIMS, "jti")),
  "exp missing": forge(HEADER, without(CLAIMS, "exp")),
  ...Object.fromEntries(
    ["null", "1", '""', '"a b"', '["jti-1"]', "{}", `"${"x".repeat(256)}"`].map((raw) => [
      `jti ${raw.slice(0, 10)}`,
      rawClaim("jti", raw),
    ]),
  ),
  ...Object.fromEntries(
    ["exp", "iat", "nbf"].flatMap((name) =>
      ["null", `"${NOW_SECONDS}"`, `${NOW_SECONDS}.5`, "1e999", "-1", "true", "[]", "8640000000001"]
        .map((raw) => [`${name} ${raw}`, rawClaim(name, raw)])
    ),
  ),
});

refused("RFC 7523 §3: an assertion for another server is refused", "assertion_audience_wrong", {
  "missing": forge(HEADER, without(CLAIMS, "aud")),
  ...Object.fromEntries(
    [
      "https://other.example",
      `${ISSUER}/`,
      ISSUER.slice(0, -1),
      ISSUER.toUpperCase(),
      `${ISSUER} ${ENDPOINT}`,
      "",
      [],
      ["https://other.example", `${ISSUER}/`],
      [[ISSUER]],
      [ISSUER, 1],
      [ISSUER, null],
      { [ISSUER]: true },
      null,
      true,
    ].map((aud) => [`aud ${JSON.stringify(aud)}`, claim({ aud })]),
  ),
});

Deno.test("RFC 7519 §4.1.3: the audience may be the issuer or the token endpoint, alone or among others", async () => {
  const { verify } = openVerifier();
  const audiences = [ISSUER, ENDPOINT, [ISSUER], [ENDPOINT, ISSUER], ["https://other.example", ENDPOINT]];
  for (const [index, aud] of audiences.entries()) {
    deepStrictEqual(await verify(claim({ aud, jti: `jti-${index}` })), ACCEPTED);
  }
});

refused(
  "RFC 7523 §3: an assertion that is over, not begun or good for too long is refused",
  "assertion_time_wrong",
  {
    "over now": claim({ exp: NOW_SECONDS }),
    "over long ago": claim({ exp: 0 }),
    "good for 301 s": claim({ exp: NOW_SECONDS + 301 }),
    "good for ever": claim({ exp: 8_640_000_000_000 }),
    "in milliseconds": claim({ exp: (NOW_SECONDS + 60) * 1000 }),
    "issued in 6 s": claim({ iat: NOW_SECONDS + 6 }),
    "valid in 6 s": claim({ nbf: NOW_SECONDS + 6 }),
  },
);

Deno.test("an assertion of any time within 300 s is accepted; iat and nbf may be missing, old, or 5 s ahead", async () => {
  const { verify } = openVerifier();
  const times: Record<string, unknown>[] = [
    { exp: NOW_SECONDS + 1 },
    { exp: NOW_SECONDS + 300 },
    { iat: NOW_SECONDS + 5, nbf: NOW_SECONDS + 5 },
    { iat: 0, nbf: 0 },
  ];
  for (const [index, members] of times.entries()) {
    deepStrictEqual(
      await verify(claim({ ...members, jti: `jti-${index}` })),
      ACCEPTED,
      JSON.stringify(members),
    );
  }
  deepStrictEqual(
    await verify(forge(HEADER, { ...without(CLAIMS, "iat", "nbf"), jti: "neither" })),
    ACCEPTED,
  );
});

Deno.test("RFC 7523 §3: of ten at the same moment one is accepted, and no other form of it afterwards", async () => {
  const { verify } = openVerifier();
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => verify(forge(HEADER))));
  strictEqual(outcomes.filter((outcome) => outcome.ok).length, 1);
  for (
    const assertion of [forge({ alg: "ES256" }), claim({ exp: NOW_SECONDS + 300 }), claim({ aud: ENDPOINT })]
  ) {
    deepStrictEqual(await verify(assertion), { ok: false, reason: "assertion_replayed" });
  }
});

Deno.test("the same jti of another client is another assertion", async () => {
  const { verify } = openVerifier();
  deepStrictEqual(await verify(forge(HEADER)), ACCEPTED);
  const other = forge(HEADER, { ...CLAIMS, iss: "cli_2", sub: "cli_2" }, stranger.signer);
  deepStrictEqual(await verify(other), { ok: true, value: { clientId: "cli_2" } });
});

Deno.test("only genuine assertions take memory; when it is full, the next is Fault overloaded and not accepted", async () => {
  const { verify } = openVerifier({ entriesMax: 1 });
  for (const bad of [claim({ aud: "x" }), claim({ exp: 0 }), forge(HEADER, CLAIMS, stranger.signer)]) {
    strictEqual((await verify(bad)).ok, false);
  }
  deepStrictEqual(await verify(forge(HEADER)), ACCEPTED);
  await rejects(
    verify(claim({ jti: "jti-2" })),
    (thrown) => thrown instanceof Fault && thrown.kind === "overloaded",
  );
});

Deno.test("of two keys under one kid either may have signed, and no more than eight are tried", async () => {
  const others = Array.from({ length: 8 }, () => ({ ...makeForeignKey("ES256").publicJwk, kid: "k1" }));
  const own = { ...key.publicJwk, kid: "k1" };
  const eighth = openVerifier({ clients: { [CLIENT]: [...others.slice(1), own] } });
  deepStrictEqual(await eighth.verify(forge(HEADER)), ACCEPTED);
  const ninth = openVerifier({ clients: { [CLIENT]: [...others, own] } });
  deepStrictEqual(await ninth.verify(forge(HEADER)), { ok: false, reason: "assertion_signature_wrong" });
  // A kid finds its key wherever it stands.
  const named = openVerifier({ clients: { [CLIENT]: [...others, { ...own, kid: "own" }] } });
  deepStrictEqual(await named.verify(header({ kid: "own" })), ACCEPTED);
});

Deno.test("what the registry of clients throws goes through: no key, no answer", async () => {
  const fault = new Fault("unavailable", "Cannot read clients: the store is closed");
  await rejects(
    verifyClientAssertion(forge(HEADER), {
      keysOf: () => Promise.reject(fault),
      audiences: [ISSUER],
      nowSeconds: NOW_SECONDS,
      replays: openMemoryReplayStore(manualClock(0)),
    }),
    (thrown) => thrown === fault,
  );
});

for (const algorithm of ["ES256", "RS256"] as const) {
  Deno.test(`oauth4webapi's private_key_jwt with ${algorithm} is accepted`, async () => {
    const { privateKey, publicKey } = await oauth.generateKeyPair(algorithm, {
      modulusLength: 3072,
      extractable: true,
    });
    const jwk = { ...await crypto.subtle.exportKey("jwk", publicKey), kid: "own" };
    const { verify } = openVerifier({
      clients: { [CLIENT]: [JSON.parse(JSON.stringify(jwk))] },
      nowSeconds: Date.now() / 1000,
    });
    for (const clientKey of [privateKey, { key: privateKey, kid: "own" }]) {
      const body = new URLSearchParams();
      await oauth.PrivateKeyJwt(clientKey)({ issuer: ISSUER }, { client_id: CLIENT }, body, new Headers());
      const assertion = body.get("client_assertion") ?? "";
      deepStrictEqual(await verify(assertion, body.get("client_id") ?? ""), ACCEPTED);
    }
  });
}

Deno.test("property: an assertion with any one character altered, left out or put in is refused, and nothing throws", async () => {
  const { verify } = openVerifier();
  const assertion = forge(HEADER);
  const characters = fc.constantFrom(
    ..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\u0000é",
  );
  const mutation = fc.record({
    at: fc.nat(assertion.length - 1),
    leave: fc.nat(1),
    put: fc.oneof(characters, fc.constant("")),
  });
  await fc.assert(
    fc.asyncProperty(mutation, async ({ at, leave, put }) => {
      const mutated = assertion.slice(0, at) + put + assertion.slice(at + leave);
      if (mutated === assertion) return;
      strictEqual((await verify(mutated)).ok, false, mutated);
    }),
    { numRuns: 500 },
  );
});

Deno.test("property: nothing but a right assertion is accepted, whatever is signed, and nothing throws", async () => {
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(...Object.values(CLAIMS), "cli_2", "ES384"),
  );
  const text = fc.oneof(
    fc.string(),
    fc.tuple(fc.jsonValue(), fc.jsonValue()).map(([one, two]) =>
      forge(JSON.stringify(one), JSON.stringify(two))
    ),
    fc.tuple(fc.constantFrom("typ", "alg", "kid", "jwk", "crit"), value).map(([name, member]) =>
      header({ [name]: member })
    ),
    fc.tuple(fc.constantFrom(...Object.keys(CLAIMS)), value).map(([name, member]) =>
      claim({ [name]: member })
    ),
  );
  await fc.assert(
    fc.asyncProperty(text, async (assertion) => {
      const { verify } = openVerifier();
      const outcome = await verify(assertion);
      if (!outcome.ok) return;
      const jws = parseJws(assertion);
      ok(jws.ok);
      const { iss, sub, aud } = jws.value.claims;
      deepStrictEqual([outcome.value.clientId, iss, sub, aud], [CLIENT, CLIENT, CLIENT, ISSUER]);
    }),
    { numRuns: 300 },
  );
});
