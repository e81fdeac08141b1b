// Tests of access tokens: what we issue is RFC 9068's form, and every known way around a verifier is refused for its own reason.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { createPrivateKey, createPublicKey, generateKeyPairSync, hash, sign } from "node:crypto";
import fc from "fast-check";
import { jwtVerify } from "jose";
import type { Outcome } from "../../src/faults/outcome.ts";
import {
  type AccessTokenClaims,
  type AccessTokens,
  openAccessTokens,
  type TokenRefusal,
} from "../../src/identity/access_token.ts";
import { openRevocations } from "../../src/identity/revocation.ts";
import type { SigningKeys } from "../../src/identity/signing_keys.ts";
import { parseJws } from "../../src/identity/strict_jws.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import {
  ed25519Signer,
  encodePart,
  forgeToken,
  hmacSigner,
  type Signer,
  type TokenPart,
} from "./forge_token.ts";
import { makeSigningKeys } from "./open_identity.ts";

const ISSUER = "https://ai.example.com";
const NOW_SECONDS = 1_750_000_000;

const { pem, keys } = await makeSigningKeys();

/** As the entrance does it: what is known by its hash, else from the start. */
async function verifyText(
  tokens: AccessTokens,
  token: string,
): Promise<Outcome<AccessTokenClaims, TokenRefusal>> {
  const sha256 = hash("sha256", token, "base64");
  const jws = parseJws(token);
  const verified = tokens.cached(sha256) ?? (jws.ok ? await tokens.verify(jws.value, sha256) : jws);
  return verified.ok ? verified : { ok: false, reason: verified.reason };
}

const signer = ed25519Signer(pem);

async function openTokens(signingKeys: SigningKeys = keys) {
  const clock = manualClock(NOW_SECONDS * 1000);
  const store = openMemoryRecordStore(clock);
  const revocations = await openRevocations(store, clock, NO_OTHERS);
  const open = (): AccessTokens =>
    openAccessTokens({ issuer: ISSUER, ttlSeconds: 900, keys: signingKeys, revocations, clock });
  return { clock, store, revocations, tokens: open(), open };
}

const HEADER = { alg: "EdDSA", typ: "at+jwt", kid: keys.active().keyId };
const CLAIMS = {
  iss: ISSUER,
  aud: ISSUER,
  sub: "usr_1",
  jti: "tok_1",
  client_id: "portcullis",
  iat: NOW_SECONDS,
  exp: NOW_SECONDS + 900,
  sid: "ses_1",
  scope: "model:infer/use-* key:read/own",
};
/** What those claims say. */
const MEANT: AccessTokenClaims = {
  subject: "usr_1",
  clientId: "portcullis",
  tokenId: "tok_1",
  session: "ses_1",
  scope: [
    { action: "model:infer", on: "use-*", cardRole: null },
    { action: "key:read", on: "own", cardRole: null },
  ],
  boundTo: null,
  issuedAtSeconds: NOW_SECONDS,
  expiresAtSeconds: NOW_SECONDS + 900,
};
/** An order for a token of a user's session. */
const ORDER = { subject: "usr_1", session: "ses_1", scope: null, boundTo: null };
const THUMBPRINT = encodePart(new Uint8Array(32));

const forge = (header: TokenPart, claims: TokenPart = CLAIMS, by: Signer = signer) =>
  forgeToken(header, claims, by);

/** A part without some of its members. */
function without(part: Readonly<Record<string, unknown>>, ...names: string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(part).filter(([name]) => !names.includes(name)));
}

/** A part's JSON with one member written by hand. */
function withRaw(part: Readonly<Record<string, unknown>>, name: string, raw: string): string {
  return JSON.stringify(without(part, name)).replace(/\}$/, `,"${name}":${raw}}`);
}

/** Each token is refused for the reason, and no principal comes of it. */
function refused(criterion: string, reason: TokenRefusal, tokens: Readonly<Record<string, string>>): void {
  Deno.test(`${criterion}: ${reason}`, async () => {
    const { tokens: verifier } = await openTokens();
    for (const [name, token] of Object.entries(tokens)) {
      deepStrictEqual(await verifyText(verifier, token), { ok: false, reason }, name);
    }
  });
}

Deno.test("the forged token that all others are made from is accepted: what is refused is refused for its difference", async () => {
  const { tokens } = await openTokens();
  deepStrictEqual(await verifyText(tokens, forge(HEADER)), { ok: true, value: MEANT });
});

Deno.test("RFC 9068 §2: an issued token has the profile's header and claims, and verifies to its user", async () => {
  const { tokens, clock } = await openTokens();
  clock.advance(999);
  const { token, id, expiresAtSeconds } = await tokens.issue({ ...ORDER, subject: "usr_7" });
  strictEqual(expiresAtSeconds, NOW_SECONDS + 900);
  match(id, /^tok_[0-9a-z]{26}$/);
  // Another implementation of the verifier, over the published key.
  const { payload, protectedHeader } = await jwtVerify(token, keys.jwks().keys[0] ?? {}, {
    currentDate: new Date(NOW_SECONDS * 1000),
  });
  deepStrictEqual(protectedHeader, HEADER);
  deepStrictEqual(payload, without({ ...CLAIMS, sub: "usr_7", jti: id }, "scope"));
  deepStrictEqual(await verifyText(tokens, token), {
    ok: true,
    value: { ...MEANT, subject: "usr_7", tokenId: id, scope: null },
  });
});

Deno.test("RFC 9068 §2.2.3, RFC 9449 §6.1: a client's narrowed and bound token says so, and belongs to no session", async () => {
  const { tokens } = await openTokens();
  const order = {
    subject: "cli_1",
    clientId: "cli_1",
    session: null,
    scope: MEANT.scope,
    boundTo: THUMBPRINT,
  };
  const { token, id } = await tokens.issue(order);
  const claims = JSON.parse(
    new TextDecoder().decode(Uint8Array.fromBase64(token.split(".")[1] ?? "", { alphabet: "base64url" })),
  );
  deepStrictEqual(claims, {
    ...without(CLAIMS, "sid"),
    sub: "cli_1",
    client_id: "cli_1",
    jti: id,
    cnf: { jkt: THUMBPRINT },
  });
  deepStrictEqual(await verifyText(tokens, token), {
    ok: true,
    value: { ...MEANT, subject: "cli_1", clientId: "cli_1", tokenId: id, session: null, boundTo: THUMBPRINT },
  });
});

Deno.test("every issued token has an id of its own", async () => {
  const { tokens } = await openTokens();
  const issued = await Promise.all(
    Array.from({ length: 100 }, () => tokens.issue(ORDER)),
  );
  strictEqual(new Set(issued.map(({ id }) => id)).size, 100);
});

const [head = "", payload = "", signature = ""] = forge(HEADER).split(".");
/** The text with its last character's unused bits set: the same bytes for a loose decoder. */
const loose = (text: string): string => {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return text.slice(0, -1) + alphabet.charAt(alphabet.indexOf(text.slice(-1)) + 1);
};
// A header and payload whose length leaves unused bits.
const padded = (part: Record<string, unknown>, name: string): string => {
  for (let filler = "x";; filler += "x") {
    const text = encodePart({ ...part, [name]: filler });
    if (text.length % 4 !== 0) return text;
  }
};

refused("RFC 7515 §7.1: what is no compact JWS in canonical base64url is refused", "malformed", {
  "empty": "",
  "no segments": "abc",
  "one segment": `${head}`,
  "two segments": `${head}.${payload}`,
  "four segments": `${head}.${payload}.${signature}.`,
  "five segments, as a JWE has": `${head}.${payload}.${signature}.${head}.${payload}`,
  "empty header": `.${payload}.${signature}`,
  "empty segments": "..",
  "dots only": ".".repeat(4000),
  "white space before": ` ${forge(HEADER)}`,
  "white space after": `${forge(HEADER)} `,
  "line end after": `${forge(HEADER)}\n`,
  "white space within the header": `${head.slice(0, 9)} ${head.slice(9)}.${payload}.${signature}`,
  "line end within the payload": `${head}.${payload.slice(0, 9)}\n${payload.slice(9)}.${signature}`,
  "tab within the signature": `${head}.${payload}.${signature.slice(0, 9)}\t${signature.slice(9)}`,
  "padded header": `${head}=.${payload}.${signature}`,
  "padded signature": `${head}.${payload}.${signature}==`,
  "standard alphabet": `${head}.${payload}.${signature.slice(0, -3)}+/A`,
  "loose signature": `${head}.${payload}.${loose(signature)}`,
  "loose payload": `${head}.${loose(padded(CLAIMS, "x"))}.${signature}`,
  "loose header": `${loose(padded(HEADER, "x"))}.${payload}.${signature}`,
  "impossible length": `${head}.${payload}.${signature.slice(0, -1)}`,
  "over-long": `${head}.${"A".repeat(8192)}.${signature}`,
  "over-long but well signed": forge(HEADER, { ...CLAIMS, filler: "x".repeat(8000) }),
  "JSON serialization": JSON.stringify({ payload, protected: head, signature }),
});

refused("RFC 7515 §4: a header that is no strict JSON object is refused", "malformed", {
  "empty": forge(""),
  "text": forge('"EdDSA"'),
  "array": forge(JSON.stringify([HEADER])),
  "null": forge("null"),
  "broken": forge("{"),
  "byte order mark": forge(`\ufeff${JSON.stringify(HEADER)}`),
  "not UTF-8": forge(Uint8Array.of(0xff, 0xfe)),
  "trailing garbage": forge(`${JSON.stringify(HEADER)}x`),
  "alg twice": forge(withRaw(HEADER, "typ", '"at+jwt","alg":"none"')),
  "alg twice, escaped": forge(withRaw(HEADER, "typ", String.raw`"at+jwt","\u0061lg":"none"`)),
  "typ twice": forge(withRaw(HEADER, "alg", '"EdDSA","typ":"JWT"')),
  "__proto__": forge(withRaw(HEADER, "typ", '"at+jwt","__proto__":{}')),
  "lone surrogate": forge(withRaw(HEADER, "kid", String.raw`"\ud800"`)),
  "nested beyond measure": forge(withRaw(HEADER, "kid", "[".repeat(20) + "]".repeat(20))),
});

const jwk = createPublicKey(createPrivateKey(pem)).export({ format: "jwk" });
const header = (members: Record<string, unknown>) => forge({ ...HEADER, ...members });
refused(
  "RFC 8725 §3.10, RFC 7515 §4.1.11, RFC 7797 §7: a header that brings a key, a rule or anything else is refused",
  "header_refused",
  {
    "jku": header({ jku: "https://evil.example/jwks.json" }),
    "jwk": header({ jwk }),
    "x5u": header({ x5u: "https://evil.example/cert.pem" }),
    "x5c": header({ x5c: ["MIIB"] }),
    "x5t": header({ x5t: "AAAA" }),
    "x5t#S256": header({ "x5t#S256": "AAAA" }),
    "crit": header({ crit: ["exp"], exp: 1 }),
    "empty crit": header({ crit: [] }),
    "unknown crit": header({ crit: ["http://example.com/extension"] }),
    "b64 false": header({ b64: false, crit: ["b64"] }),
    "b64 true": header({ b64: true }),
    "zip": header({ zip: "DEF" }),
    "enc": header({ enc: "A256GCM" }),
    "cty": header({ cty: "JWT" }),
    "any other": header({ x: 1 }),
    "a member of another case": header({ KID: keys.active().keyId }),
    "jwk of an attacker who signs with it": (() => {
      const pair = generateKeyPairSync("ed25519");
      return forge(
        { ...HEADER, jwk: pair.publicKey.export({ format: "jwk" }) },
        CLAIMS,
        (text) => sign(null, new TextEncoder().encode(text), pair.privateKey),
      );
    })(),
  },
);

const spki = createPublicKey(createPrivateKey(pem)).export({ format: "pem", type: "spki" });
const algorithm = (alg: unknown, by: Signer = signer) => forge({ ...HEADER, alg }, CLAIMS, by);
refused("RFC 8725 §3.1, RFC 8725 §2.1: a token of any other algorithm is refused", "algorithm_refused", {
  "none, unsigned": algorithm("none", () => new Uint8Array()),
  "None": algorithm("None", () => new Uint8Array()),
  "NONE, signed": algorithm("NONE"),
  "HS256 with the public key's PEM": algorithm("HS256", hmacSigner(String(spki))),
  "HS256 with the public key's bytes": algorithm(
    "HS256",
    hmacSigner(Uint8Array.fromBase64(String(jwk.x), { alphabet: "base64url" })),
  ),
  "HS256 with the public key's text": algorithm("HS256", hmacSigner(String(jwk.x))),
  "HS256 with the JWK set": algorithm("HS256", hmacSigner(JSON.stringify(keys.jwks()))),
  "HS256 with nothing": algorithm("HS256", hmacSigner("")),
  "RS256": algorithm("RS256"),
  "PS256": algorithm("PS256"),
  "ES256": algorithm("ES256"),
  "ES256 with r and s of zero": algorithm("ES256", () => new Uint8Array(64)),
  "Ed448": algorithm("Ed448"),
  "Ed25519, the name of RFC 9864 that we do not issue": algorithm("Ed25519"),
  "lower case": algorithm("eddsa"),
  "upper case": algorithm("EDDSA"),
  "with a space": algorithm("EdDSA "),
  "in an array": algorithm(["EdDSA"]),
  "null": algorithm(null),
  "number": algorithm(0),
  "missing": forge(without(HEADER, "alg")),
});

refused("RFC 9068 §4, RFC 8725 §3.11: a token of another type is refused", "type_refused", {
  "missing": forge(without(HEADER, "typ")),
  "JWT": header({ typ: "JWT" }),
  "ID token": header({ typ: "id+jwt" }),
  "refresh token": header({ typ: "rt+jwt" }),
  "logout token": header({ typ: "logout+jwt" }),
  "DPoP proof": header({ typ: "dpop+jwt" }),
  "another media type": header({ typ: "application/jwt" }),
  "longer": header({ typ: "at+jwt2" }),
  "with a space": header({ typ: "at+jwt " }),
  "text/at+jwt": header({ typ: "text/at+jwt" }),
  "empty": header({ typ: "" }),
  "array": header({ typ: ["at+jwt"] }),
  "null": header({ typ: null }),
});

Deno.test("RFC 9068 §4, RFC 7515 §4.1.9: the type's long form and any case are accepted", async () => {
  const { tokens } = await openTokens();
  for (const typ of ["at+jwt", "application/at+jwt", "AT+JWT", "Application/At+Jwt"]) {
    strictEqual((await verifyText(tokens, header({ typ }))).ok, true, typ);
  }
});

const keyed = (kid: unknown) => header({ kid });
refused(
  "RFC 8725 §3.10, ASVS V9.1.3: a token of an unknown key is refused, whatever its name would do elsewhere",
  "key_unknown",
  {
    "missing": forge(without(HEADER, "kid")),
    "unknown": keyed("other"),
    "empty": keyed(""),
    "path": keyed("../../../../dev/null"),
    "SQL": keyed(`' UNION SELECT 'secret' --`),
    "command": keyed("; sleep 10 #"),
    "URL": keyed("https://evil.example/key"),
    "NUL": keyed(`${keys.active().keyId}\u0000`),
    "longer": keyed(`${keys.active().keyId}x`),
    "upper case": keyed(keys.active().keyId.toUpperCase()),
    "__proto__": keyed("__proto__"),
    "constructor": keyed("constructor"),
    "array": keyed([keys.active().keyId]),
    "number": keyed(0),
    "null": keyed(null),
    "object": keyed({ toString: keys.active().keyId }),
  },
);

refused(
  "ASVS V9.1.1, RFC 8725 §3.3: a token whose signature is not ours over just this text is refused",
  "signature_wrong",
  {
    "no signature": `${head}.${payload}.`,
    "zeros": `${head}.${payload}.${encodePart(new Uint8Array(64))}`,
    "half": `${head}.${payload}.${
      encodePart(Uint8Array.fromBase64(signature, { alphabet: "base64url" }).subarray(0, 32))
    }`,
    "longer": `${head}.${payload}.${
      encodePart(new Uint8Array([...Uint8Array.fromBase64(signature, { alphabet: "base64url" }), 0]))
    }`,
    "another payload": `${head}.${encodePart({ ...CLAIMS, sub: "usr_2" })}.${signature}`,
    "another payload form": `${head}.${encodePart(JSON.stringify(CLAIMS, null, 1))}.${signature}`,
    "another header form": `${encodePart(JSON.stringify(HEADER, null, 1))}.${payload}.${signature}`,
    "another key under our key's id": forge(HEADER, CLAIMS, ed25519Signer((await makeSigningKeys()).pem)),
    "HMAC with the public key under EdDSA": forge(HEADER, CLAIMS, hmacSigner(String(spki))),
    "signature of the payload alone": `${head}.${payload}.${encodePart(signer(payload))}`,
    // RFC 8032 §5.1.7: S is not reduced, so that the signature would have a twin.
    "unreduced S": `${head}.${payload}.${
      encodePart(unreduced(Uint8Array.fromBase64(signature, { alphabet: "base64url" })))
    }`,
  },
);

/** The signature with the group's order added to S. */
function unreduced(original: Uint8Array): Uint8Array {
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  const s = original.slice(32).reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n) + order;
  const twin = original.slice();
  for (let index = 0; index < 32; index++) twin[32 + index] = Number(s >> BigInt(8 * index) & 255n);
  return twin;
}

Deno.test("a token with any one of its bytes altered is refused", async () => {
  const { tokens } = await openTokens();
  for (const [part, text] of [head, payload, signature].entries()) {
    const bytes = Uint8Array.fromBase64(text, { alphabet: "base64url" });
    for (let index = 0; index < bytes.length; index++) {
      const altered = bytes.slice();
      altered[index] = (altered[index] ?? 0) ^ (1 << index % 8);
      const segments = [head, payload, signature];
      segments[part] = encodePart(altered);
      strictEqual((await verifyText(tokens, segments.join("."))).ok, false, `part ${part} byte ${index}`);
    }
  }
});

const claim = (members: Record<string, unknown>) => forge(HEADER, { ...CLAIMS, ...members });
const rawClaim = (name: string, raw: string) => forge(HEADER, withRaw(CLAIMS, name, raw));
refused(
  "RFC 7519 §7.2, RFC 8725 §2.4: claims that are no strict JSON object are refused unverified",
  "malformed",
  {
    "an empty payload": `${head}..${signature}`,
    "empty": forge(HEADER, ""),
    "text": forge(HEADER, '"admin"'),
    "array": forge(HEADER, JSON.stringify([CLAIMS])),
    "broken": forge(HEADER, "{"),
    "byte order mark": forge(HEADER, `\ufeff${JSON.stringify(CLAIMS)}`),
    "not UTF-8": forge(HEADER, Uint8Array.of(0x7b, 0xff, 0x7d)),
    "a claim twice": rawClaim("sub", '"usr_1","scope":"model:infer"'),
    "a claim twice, escaped": rawClaim("sub", String.raw`"usr_1","scop\u0065":"model:infer"`),
    "exp twice": rawClaim("sub", `"usr_1","exp":${NOW_SECONDS + 901}`),
    "__proto__": rawClaim("sub", '"usr_1","__proto__":{"sub":"usr_2"}'),
    "nested beyond measure": rawClaim("x", "[".repeat(20) + "]".repeat(20)),
  },
);

refused(
  "RFC 7519 §4, RFC 9068 §2.2: claims in a wrong form are refused although the signature is good",
  "claims_malformed",
  {
    ...Object.fromEntries(
      ["sub", "jti", "client_id", "iat", "exp"].map((
        name,
      ) => [`${name} missing`, forge(HEADER, without(CLAIMS, name))]),
    ),
    ...Object.fromEntries(
      ["iat", "exp", "nbf"].flatMap((name) =>
        [
          "null",
          `"${NOW_SECONDS}"`,
          "1e999",
          "-1e999",
          "-1",
          "1750000000.5",
          "true",
          "[1750000000]",
          "{}",
          "9007199254740992",
          "8640000000001",
        ]
          .map((raw) => [`${name} ${raw}`, rawClaim(name, raw)])
      ),
    ),
    ...Object.fromEntries(
      ["sub", "jti", "client_id", "sid"].flatMap((name) =>
        ["null", "1", '""', '["usr_1"]', '{"a":1}', '"a b"', '"a\\nb"', '"é"', `"${"x".repeat(256)}"`]
          .map((raw) => [`${name} ${raw.slice(0, 20)}`, rawClaim(name, raw)])
      ),
    ),
    "scope as an array (ASVS V15.3.5)": claim({ scope: ["model:infer"] }),
    "scope null": claim({ scope: null }),
    "scope empty": claim({ scope: "" }),
    "scope of what is no action": claim({ scope: "model:infer admin" }),
    "scope with two spaces": claim({ scope: "model:infer  model:read" }),
    "scope of a reach that is none": claim({ scope: "user:write/everybody" }),
    "scope over-long": claim({ scope: Array(200).fill("model:infer").join(" ") }),
  },
);

refused(
  "RFC 9449 §6.1, RFC 7800 §3.1, ASVS V10.3.5: a token that is confirmed in a way not known here is refused",
  "confirmation_refused",
  {
    "a thumbprint that is none": claim({ cnf: { jkt: "AAAA" } }),
    "a certificate (RFC 8705)": claim({ cnf: { "x5t#S256": THUMBPRINT } }),
    "both": claim({ cnf: { jkt: THUMBPRINT, "x5t#S256": THUMBPRINT } }),
    "a key": claim({ cnf: { jwk } }),
    "nothing": claim({ cnf: {} }),
    "null": claim({ cnf: null }),
    "text": claim({ cnf: THUMBPRINT }),
    "array": claim({ cnf: [{ jkt: THUMBPRINT }] }),
  },
);

refused("RFC 8725 §3.8: a token of another issuer is refused", "issuer_wrong", {
  "missing": forge(HEADER, without(CLAIMS, "iss")),
  "other": claim({ iss: "https://evil.example" }),
  "with a slash": claim({ iss: `${ISSUER}/` }),
  "upper case": claim({ iss: ISSUER.toUpperCase() }),
  "array": claim({ iss: [ISSUER] }),
  "null": claim({ iss: null }),
});

refused("RFC 9068 §4, ASVS V9.2.3: a token for another audience is refused", "audience_wrong", {
  "missing": forge(HEADER, without(CLAIMS, "aud")),
  "other": claim({ aud: "https://other.example" }),
  "others": claim({ aud: ["https://other.example", `${ISSUER}/`] }),
  "empty": claim({ aud: "" }),
  "none": claim({ aud: [] }),
  "nested": claim({ aud: [[ISSUER]] }),
  "a prefix": claim({ aud: ISSUER.slice(0, -1) }),
  "longer": claim({ aud: `${ISSUER}.evil.example` }),
  "two in one": claim({ aud: `${ISSUER} https://other.example` }),
  "object": claim({ aud: { [ISSUER]: true } }),
  "true": claim({ aud: true }),
  "null": claim({ aud: null }),
});

Deno.test("RFC 7519 §4.1.3: an audience that names us among others is accepted", async () => {
  const { tokens } = await openTokens();
  for (const aud of [ISSUER, [ISSUER], ["https://other.example", ISSUER]]) {
    strictEqual((await verifyText(tokens, claim({ aud }))).ok, true);
  }
});

refused(
  "ASVS V9.2.1: a token whose time has not come is refused beyond five seconds of leeway",
  "not_yet_valid",
  {
    "nbf": claim({ nbf: NOW_SECONDS + 6 }),
    "iat": claim({ iat: NOW_SECONDS + 6 }),
    "iat far ahead": claim({ iat: NOW_SECONDS + 1_000_000, exp: NOW_SECONDS + 1_000_900 }),
  },
);

Deno.test("ASVS V9.2.1: iat and nbf up to five seconds ahead are accepted", async () => {
  const { tokens } = await openTokens();
  for (const ahead of [-1, 0, 5]) {
    strictEqual(
      (await verifyText(tokens, claim({ iat: NOW_SECONDS + ahead, nbf: NOW_SECONDS + ahead }))).ok,
      true,
    );
  }
});

refused("ASVS V9.2.1: a token whose time is over is refused, to the second", "expired", {
  "now": claim({ iat: NOW_SECONDS - 900, exp: NOW_SECONDS }),
  "a second ago": claim({ iat: NOW_SECONDS - 900, exp: NOW_SECONDS - 1 }),
  "never begun": claim({ iat: 0, exp: 0 }),
  "before it was issued": claim({ exp: NOW_SECONDS - 1 }),
});

refused(
  "a token that would live for more than an hour is refused although we might have signed it",
  "lifetime_too_long",
  {
    "a second too long": claim({ exp: NOW_SECONDS + 3601 }),
    "issued long ago": claim({ iat: NOW_SECONDS - 3000, exp: NOW_SECONDS + 601 }),
    "for ever": claim({ exp: 8_640_000_000_000 }),
  },
);

Deno.test("a token that lives for an hour exactly is accepted", async () => {
  const { tokens } = await openTokens();
  strictEqual((await verifyText(tokens, claim({ exp: NOW_SECONDS + 3600 }))).ok, true);
});

Deno.test("claims that are not ours to know are ignored, as RFC 7519 §4 says, and grant nothing", async () => {
  const { tokens } = await openTokens();
  const verified = await verifyText(
    tokens,
    claim({ role: "admin", roles: ["admin"], admin: true, team: "other", groups: ["admin"] }),
  );
  deepStrictEqual(verified, { ok: true, value: MEANT });
});

Deno.test("ASVS V7.4.1, V9.2.1: a token that was verified before is refused once it has expired or is revoked", async () => {
  const { tokens, clock, revocations } = await openTokens();
  const one = await tokens.issue(ORDER);
  const two = await tokens.issue(ORDER);
  for (const { token } of [one, two, one, two]) strictEqual((await verifyText(tokens, token)).ok, true);
  await revocations.revoke(one.id, one.expiresAtSeconds * 1000);
  for (let again = 0; again < 2; again++) {
    deepStrictEqual(await verifyText(tokens, one.token), { ok: false, reason: "revoked" });
  }
  strictEqual((await verifyText(tokens, two.token)).ok, true);
  clock.advance(900_000 - 1);
  strictEqual((await verifyText(tokens, two.token)).ok, true);
  clock.advance(1);
  for (let again = 0; again < 2; again++) {
    deepStrictEqual(await verifyText(tokens, two.token), { ok: false, reason: "expired" });
  }
});

Deno.test("ASVS V7.4.1: a token that was revoked before it was ever shown is refused, also after a restart", async () => {
  const { tokens, revocations, store, clock } = await openTokens();
  const { token, id, expiresAtSeconds } = await tokens.issue(ORDER);
  await revocations.revoke(id, expiresAtSeconds * 1000);
  deepStrictEqual(await verifyText(tokens, token), { ok: false, reason: "revoked" });
  const restarted = openAccessTokens({
    issuer: ISSUER,
    ttlSeconds: 900,
    keys,
    revocations: await openRevocations(store, clock, NO_OTHERS),
    clock,
  });
  deepStrictEqual(await verifyText(restarted, token), { ok: false, reason: "revoked" });
});

Deno.test("ASVS V7.4.1: the end of a session ends all its tokens, and no other's", async () => {
  const { tokens, revocations } = await openTokens();
  const one = await tokens.issue(ORDER);
  const two = await tokens.issue(ORDER);
  const other = await tokens.issue({ ...ORDER, session: "ses_2" });
  strictEqual((await verifyText(tokens, one.token)).ok, true);
  await revocations.revoke("ses_1", (NOW_SECONDS + 3600) * 1000);
  for (const { token } of [one, two, one]) {
    deepStrictEqual(await verifyText(tokens, token), { ok: false, reason: "revoked" });
  }
  strictEqual((await verifyText(tokens, other.token)).ok, true);
});

Deno.test("ASVS V16.2.1: a genuine token that is over still says whose it was, and a forged one says nothing", async () => {
  const { tokens, revocations } = await openTokens();
  await revocations.revoke("tok_1", (NOW_SECONDS + 900) * 1000);
  const verify = async (token: string) => {
    const jws = parseJws(token);
    ok(jws.ok);
    return await tokens.verify(jws.value, token);
  };
  deepStrictEqual(await verify(forge(HEADER)), { ok: false, reason: "revoked", claims: MEANT });
  const forged = forge(HEADER, CLAIMS, ed25519Signer((await makeSigningKeys()).pem));
  deepStrictEqual(await verify(forged), { ok: false, reason: "signature_wrong" });
});

Deno.test("a revocation ends every token text of that id: it goes by jti, not by the text", async () => {
  const { tokens, revocations } = await openTokens();
  await revocations.revoke("tok_1", (NOW_SECONDS + 900) * 1000);
  for (const token of [forge(HEADER), claim({ x: 1 }), header({ typ: "application/at+jwt" })]) {
    deepStrictEqual(await verifyText(tokens, token), { ok: false, reason: "revoked" });
  }
});

/** Signing keys that count how often a key is looked up: once for each token that is verified from the start. */
function countedKeys(): { signingKeys: SigningKeys; lookups: () => number } {
  let lookups = 0;
  return {
    signingKeys: {
      ...keys,
      publicKey(keyId) {
        lookups++;
        return keys.publicKey(keyId);
      },
    },
    lookups: () => lookups,
  };
}

Deno.test("a token is verified from the start once, and a refused one each time", async () => {
  const { signingKeys, lookups } = countedKeys();
  const { tokens, open, clock } = await openTokens(signingKeys);
  const good = forge(HEADER);
  for (let again = 0; again < 5; again++) strictEqual((await verifyText(tokens, good)).ok, true);
  strictEqual(lookups(), 1);
  for (let again = 0; again < 5; again++) {
    strictEqual((await verifyText(tokens, `${head}.${payload}.`)).ok, false);
  }
  strictEqual(lookups(), 6);
  strictEqual((await verifyText(open(), good)).ok, true); // another verifier knows nothing of it
  strictEqual(lookups(), 7);
  clock.advance(900_000);
  for (let again = 0; again < 3; again++) strictEqual((await verifyText(tokens, good)).ok, false);
  strictEqual(lookups(), 9); // the first look still knew it, and forgot it
});

Deno.test("ASVS V15.2.2: no more than 10,000 verified tokens are kept in mind; the oldest goes first", async () => {
  const { signingKeys, lookups } = countedKeys();
  const { tokens } = await openTokens(signingKeys);
  const made = Array.from({ length: 10_001 }, (_, index) => claim({ jti: `tok_${index}` }));
  for (const token of made) strictEqual((await verifyText(tokens, token)).ok, true);
  strictEqual(lookups(), 10_001);
  const wasKept = async (token = "") => {
    const before = lookups();
    strictEqual((await verifyText(tokens, token)).ok, true);
    return lookups() === before;
  };
  strictEqual(await wasKept(made.at(-1)), true);
  strictEqual(await wasKept(made[1]), true);
  strictEqual(await wasKept(made[0]), false);
});

Deno.test("property: nothing that is not our token is accepted, and nothing throws", async () => {
  const { tokens } = await openTokens();
  const part = fc.oneof(
    fc.string(),
    fc.jsonValue().map((value) => encodePart(JSON.stringify(value))),
    fc.constantFrom(head, payload, signature, ""),
  );
  const token = fc.oneof(
    fc.string(),
    fc.array(part, { maxLength: 5 }).map((parts) => parts.join(".")),
    // Well signed headers and claims of any form.
    fc.tuple(fc.jsonValue(), fc.jsonValue()).map(([one, two]) =>
      forge(JSON.stringify(one), JSON.stringify(two))
    ),
    fc.tuple(fc.constantFrom(...Object.keys(CLAIMS)), fc.jsonValue({ maxDepth: 2 }))
      .map(([name, value]) => forge(HEADER, { ...CLAIMS, [name]: value }))
      .filter((forged) => forged !== forge(HEADER)),
  );
  await fc.assert(
    fc.asyncProperty(token, async (text) => {
      const outcome = await verifyText(tokens, text);
      if (!outcome.ok) return;
      // By chance a well signed claim may be a good one; it must then say what its token says.
      const claims = JSON.parse(
        new TextDecoder().decode(Uint8Array.fromBase64(text.split(".")[1] ?? "", { alphabet: "base64url" })),
      );
      deepStrictEqual([outcome.value.subject, outcome.value.tokenId], [claims.sub, claims.jti]);
      ok(text.startsWith(head));
    }),
    { numRuns: 500 },
  );
});
