// Tests of external tokens: an issuer's own rules hold, and every known way around a verifier is refused for its own reason.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import fc from "fast-check";
import type { Outcome } from "../../../src/faults/outcome.ts";
import {
  type ExternalIdentity,
  type ExternalIssuerSettings,
  type ExternalRefusal,
  type ExternalTokens,
  openExternalTokens,
} from "../../../src/identity/oidc/external_tokens.ts";
import { ALGORITHMS } from "../../../src/identity/public_key.ts";
import { parseJws } from "../../../src/identity/strict_jws.ts";
import { answerStatus } from "../../support/scripted_upstream.ts";
import { encodePart, forgeToken, hmacSigner, type Signer, type TokenPart } from "../forge_token.ts";
import { answerKeys, clockAndLog, makeKey, NOW_SECONDS, startKeyServer } from "./issuer_under_test.ts";

const ISSUER = "https://login.example.com/tenant";
const AUDIENCE = "https://ai.example.com";
const KEY = makeKey("key-1", "ES256");
const RSA = makeKey("rsa-1", "RS256");
const OTHERS = [makeKey("ed-1", "EdDSA"), makeKey("es384-1", "ES384"), makeKey("ps-1", "PS256")];
const STRANGER = makeKey("key-1", "ES256");

const HEADER = { alg: "ES256", typ: "at+jwt", kid: "key-1" };
const CLAIMS = {
  iss: ISSUER,
  aud: AUDIENCE,
  sub: "00u-1",
  jti: "jti-1",
  client_id: "app-1",
  iat: NOW_SECONDS,
  exp: NOW_SECONDS + 900,
  roles: ["staff"],
};
const IDENTITY: ExternalIdentity = {
  issuer: ISSUER,
  subject: "00u-1",
  team: "research",
  roles: ["user"],
  tokenId: "jti-1",
  clientId: "app-1",
  scope: null,
  expiresAtSeconds: NOW_SECONDS + 900,
  boundTo: null,
};

type Checked = Outcome<ExternalIdentity, ExternalRefusal | "malformed">;

/** As the entrance does it: what is known, else the form, else the whole. */
async function check(tokens: ExternalTokens, text: string): Promise<Checked> {
  const sha256 = hash("sha256", text, "base64");
  const known = tokens.cached(sha256);
  if (known !== undefined) return known;
  const jws = parseJws(text);
  return jws.ok ? await tokens.verify(jws.value, sha256) : jws;
}

async function open(settings: Partial<ExternalIssuerSettings> = {}) {
  const server = await startKeyServer();
  server.plays(answerKeys(KEY, RSA, ...OTHERS));
  const { clock, log } = clockAndLog();
  const tokens = openExternalTokens(
    {
      issuer: ISSUER,
      jwksUrl: `${server.url}/jwks`,
      audience: AUDIENCE,
      algorithms: ALGORITHMS,
      leewaySeconds: 5,
      lifetimeSecondsMax: 3600,
      tokenType: "at+jwt",
      rolesClaim: "/roles",
      roles: { staff: ["user"], boss: ["user", "admin"] },
      team: "research",
      ...settings,
    },
    clock,
    log,
  );
  return {
    server,
    clock,
    tokens,
    close: async () => {
      await tokens.close();
      await server.close();
      await log.flush();
    },
  };
}

const forge = (header: TokenPart, claims: TokenPart = CLAIMS, by: Signer = KEY.sign) =>
  forgeToken(header, claims, by);
const header = (members: Record<string, unknown>) => forge({ ...HEADER, ...members });
const claim = (members: Record<string, unknown>) => forge(HEADER, { ...CLAIMS, ...members });
const without = (part: Readonly<Record<string, unknown>>, ...names: string[]): Record<string, unknown> =>
  Object.fromEntries(Object.entries(part).filter(([name]) => !names.includes(name)));
/** A part's JSON with one member written by hand. */
const withRaw = (part: Readonly<Record<string, unknown>>, name: string, raw: string): string =>
  JSON.stringify(without(part, name)).replace(/\}$/, `,"${name}":${raw}}`);
const rawClaim = (name: string, raw: string) => forge(HEADER, withRaw(CLAIMS, name, raw));

/** Each token is refused for the reason under these settings, twice, for a refusal is not remembered as anything else. */
function refused(
  criterion: string,
  reason: ExternalRefusal | "malformed",
  texts: Readonly<Record<string, string>>,
  settings: Partial<ExternalIssuerSettings> = {},
): void {
  Deno.test(`${criterion}: ${reason}`, async () => {
    const { tokens, close } = await open(settings);
    for (const [name, text] of Object.entries(texts)) {
      for (let again = 0; again < 2; again++) {
        deepStrictEqual(await check(tokens, text), { ok: false, reason }, name);
      }
    }
    await close();
  });
}

/** Each token is accepted, and says what of the identity is expected. */
function accepted(
  criterion: string,
  texts: Readonly<Record<string, readonly [text: string, expected?: Partial<ExternalIdentity>]>>,
  settings: Partial<ExternalIssuerSettings> = {},
): void {
  Deno.test(criterion, async () => {
    const { tokens, close } = await open(settings);
    for (const [name, [text, expected]] of Object.entries(texts)) {
      deepStrictEqual(await check(tokens, text), { ok: true, value: { ...IDENTITY, ...expected } }, name);
    }
    await close();
  });
}

accepted("the forged token that all others are made from is accepted, by keys of every algorithm", {
  "ES256": [forge(HEADER)],
  ...Object.fromEntries(
    [RSA, ...OTHERS].map(({ kid, alg, sign }) => [alg, [forge({ ...HEADER, kid, alg }, CLAIMS, sign)]]),
  ),
});

accepted("RFC 7515 §4.1.9, §4.1.7: a type's long form and case, and digests of certificates, are accepted", {
  "long": [header({ typ: "application/at+jwt" })],
  "upper case": [header({ typ: "AT+JWT" })],
  "x5t": [header({ x5t: "AAAA", "x5t#S256": ["whatever"] })],
});

const [head = "", payload = "", signature = ""] = forge(HEADER).split(".");
const loose = (text: string): string => {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return text.slice(0, -1) + alphabet.charAt(alphabet.indexOf(text.slice(-1)) + 1);
};
refused("RFC 7515 §7.1, RFC 8725 §2.4: what is no compact JWS of strict parts is refused", "malformed", {
  "empty": "",
  "unsigned form of two segments": `${head}.${payload}`,
  "five segments, as a JWE has": `${head}.${payload}.${signature}.${head}.${payload}`,
  "white space": `${head}.${payload}.${signature} `,
  "padded": `${head}.${payload}.${signature}==`,
  "loose signature": `${head}.${payload}.${loose(signature)}`,
  "header with alg twice": forge(withRaw(HEADER, "typ", '"at+jwt","alg":"none"')),
  "a claim twice": rawClaim("sub", '"00u-1","roles":["boss"]'),
  "a claim twice, escaped": rawClaim("sub", String.raw`"00u-1","role\u0073":["boss"]`),
  "exp twice": rawClaim("sub", `"00u-1","exp":${NOW_SECONDS + 901}`),
  "__proto__": rawClaim("sub", '"00u-1","__proto__":{"roles":["boss"]}'),
  "claims in an array": forge(HEADER, JSON.stringify([CLAIMS])),
  "claims no JSON": forge(HEADER, "{"),
  "byte order mark": forge(HEADER, `\ufeff${JSON.stringify(CLAIMS)}`),
  "not UTF-8": forge(HEADER, Uint8Array.of(0x7b, 0xff, 0x7d)),
  "nested beyond measure": rawClaim("x", "[".repeat(20) + "]".repeat(20)),
});

refused(
  "RFC 8725 §3.10, RFC 7515 §4.1.11, RFC 7797 §7, ASVS V9.1.3: a header that brings a key, a rule or anything else is refused",
  "header_refused",
  {
    "jku": header({ jku: "https://evil.example/jwks.json" }),
    "jwk": header({ jwk: KEY.jwk }),
    "jwk of an attacker who signs with it": forge({ ...HEADER, jwk: STRANGER.jwk }, CLAIMS, STRANGER.sign),
    "x5u": header({ x5u: "https://evil.example/cert.pem" }),
    "x5c": header({ x5c: ["MIIB"] }),
    "crit": header({ crit: ["exp"], exp: 1 }),
    "empty crit": header({ crit: [] }),
    "unknown crit": header({ crit: ["http://example.com/extension"] }),
    "b64 false": header({ b64: false, crit: ["b64"] }),
    "b64 true": header({ b64: true }),
    "zip": header({ zip: "DEF" }),
    "enc": header({ enc: "A256GCM" }),
    "cty": header({ cty: "JWT" }),
    "any other": header({ x: 1 }),
    "a member of another case": header({ KID: "key-1" }),
    "crit in a token without a signature": forge(
      { ...HEADER, alg: "none", crit: [] },
      CLAIMS,
      () => new Uint8Array(),
    ),
  },
);

const rsaPem = String(RSA.publicKey.export({ format: "pem", type: "spki" }));
const algorithm = (alg: unknown, by: Signer = KEY.sign, kid = "key-1") =>
  forge({ ...HEADER, alg, kid }, CLAIMS, by);
refused(
  "RFC 8725 §3.1, §3.2, ASVS V9.1.2: a token of an algorithm that is not this key's is refused",
  "algorithm_refused",
  {
    "none, unsigned": algorithm("none", () => new Uint8Array()),
    "None": algorithm("None", () => new Uint8Array()),
    "nOnE, signed": algorithm("nOnE"),
    "HS256 with the RSA key's PEM": algorithm("HS256", hmacSigner(rsaPem), "rsa-1"),
    "HS256 with the RSA key's PEM, trimmed": algorithm("HS256", hmacSigner(rsaPem.trim()), "rsa-1"),
    "HS256 with the RSA key's bytes": algorithm(
      "HS256",
      hmacSigner(RSA.publicKey.export({ format: "der", type: "spki" })),
      "rsa-1",
    ),
    "HS256 with the RSA key's PKCS #1": algorithm(
      "HS256",
      hmacSigner(String(RSA.publicKey.export({ format: "pem", type: "pkcs1" }))),
      "rsa-1",
    ),
    "HS256 with the RSA key's JWK": algorithm("HS256", hmacSigner(JSON.stringify(RSA.jwk)), "rsa-1"),
    "HS256 with the RSA modulus": algorithm("HS256", hmacSigner(String(RSA.jwk.n)), "rsa-1"),
    "HS256 with nothing": algorithm("HS256", hmacSigner("")),
    "HS512": algorithm("HS512"),
    "RS256 by an EC key": algorithm("RS256"),
    "ES256 by an RSA key": algorithm("ES256", RSA.sign, "rsa-1"),
    "ES384 by a P-256 key": algorithm("ES384"),
    "EdDSA by an EC key": algorithm("EdDSA"),
    "PS256 by a key for RS256": algorithm("PS256", RSA.sign, "rsa-1"),
    "RS256 by a key for PS256": algorithm("RS256", OTHERS[2]?.sign, "ps-1"),
    "RS512": algorithm("RS512", RSA.sign, "rsa-1"),
    "ES512": algorithm("ES512"),
    "ES256K": algorithm("ES256K"),
    "lower case": algorithm("es256"),
    "with a space": algorithm("ES256 "),
    "in an array": algorithm(["ES256"]),
    "null": algorithm(null),
    "number": algorithm(0),
    "missing": forge(without(HEADER, "alg")),
    "an object's own words": algorithm("constructor"),
  },
);
refused(
  "RFC 8725 §3.1: an algorithm that the settings leave out is refused, though a key of it is published",
  "algorithm_refused",
  { "RS256": algorithm("RS256", RSA.sign, "rsa-1"), "EdDSA": algorithm("EdDSA", OTHERS[0]?.sign, "ed-1") },
  { algorithms: ["ES256", "PS256"] },
);

const typed = (typ: unknown) => header({ typ });
const WRONG_TYPES = {
  "ID token": typed("id+jwt"),
  "refresh token": typed("rt+jwt"),
  "logout token": typed("logout+jwt"),
  "DPoP proof": typed("dpop+jwt"),
  "security event": typed("secevent+jwt"),
  "longer": typed("at+jwt2"),
  "with a space": typed("at+jwt "),
  "text/at+jwt": typed("text/at+jwt"),
  "empty": typed(""),
  "array": typed(["at+jwt"]),
  "null": typed(null),
  "number": typed(1),
};
refused("RFC 9068 §4, RFC 8725 §3.11, ASVS V9.2.2: a token of another type is refused", "type_refused", {
  ...WRONG_TYPES,
  "missing": forge(without(HEADER, "typ")),
  "JWT": typed("JWT"),
  "application/jwt": typed("application/jwt"),
});
refused(
  "RFC 8725 §3.12: an issuer of plain JWTs has no other types, and its ID tokens and events are no access tokens",
  "type_refused",
  {
    ...WRONG_TYPES,
    "at+jwt": typed("at+jwt"),
    "ID token by its claims": forge({ ...HEADER, typ: "JWT" }, { ...CLAIMS, at_hash: "x" }),
    "ID token of the hybrid flow": forge({ ...HEADER, typ: "JWT" }, { ...CLAIMS, c_hash: "x" }),
    "logout token by its claims": forge(without(HEADER, "typ"), {
      ...CLAIMS,
      events: { "http://schemas.openid.net/event/backchannel-logout": {} },
    }),
  },
  { tokenType: "JWT" },
);
accepted("an issuer of plain JWTs may name that type or none", {
  "JWT": [typed("JWT")],
  "long": [typed("application/JWT")],
  "missing": [forge(without(HEADER, "typ"))],
}, { tokenType: "JWT" });
refused(
  "ASVS V9.2.2: an ID token, typed JWT and made for the client, is refused by its type",
  "type_refused",
  {
    "ID token": forge({ ...HEADER, typ: "JWT" }, { ...CLAIMS, aud: "app-1", nonce: "n" }),
  },
);
refused("ASVS V9.2.2: and where plain JWTs are allowed, by its audience", "audience_wrong", {
  "ID token": forge({ ...HEADER, typ: "JWT" }, { ...CLAIMS, aud: "app-1", nonce: "n" }),
}, { tokenType: "JWT" });

const keyed = (kid: unknown) => header({ kid });
refused("RFC 8725 §3.10: a token of a key that the issuer does not list is refused", "key_unknown", {
  "missing": forge(without(HEADER, "kid")),
  "unknown": keyed("other"),
  "empty": keyed(""),
  "path": keyed("../../../../dev/null"),
  "SQL": keyed("' UNION SELECT 'secret' --"),
  "URL": keyed("https://evil.example/key"),
  "NUL": keyed("key-1\u0000"),
  "upper case": keyed("KEY-1"),
  "__proto__": keyed("__proto__"),
  "constructor": keyed("constructor"),
  "array": keyed(["key-1"]),
  "number": keyed(1),
  "null": keyed(null),
});

const raw = Uint8Array.fromBase64(signature, { alphabet: "base64url" });
refused(
  "ASVS V9.1.1, V6.8.2, RFC 8725 §3.3: a token whose signature is not the issuer's over just this text is refused",
  "signature_wrong",
  {
    "no signature": `${head}.${payload}.`,
    "r and s of zero (CVE-2022-21449)": `${head}.${payload}.${encodePart(new Uint8Array(64))}`,
    "half": `${head}.${payload}.${encodePart(raw.subarray(0, 32))}`,
    "longer": `${head}.${payload}.${encodePart(new Uint8Array([...raw, 0]))}`,
    "in DER": `${head}.${payload}.${
      encodePart(Uint8Array.of(0x30, 0x44, 2, 32, ...raw.slice(0, 32), 2, 32, ...raw.slice(32)))
    }`,
    "another payload": `${head}.${encodePart({ ...CLAIMS, roles: ["boss"] })}.${signature}`,
    "another payload form": `${head}.${encodePart(JSON.stringify(CLAIMS, null, 1))}.${signature}`,
    "another header form": `${encodePart(JSON.stringify(HEADER, null, 1))}.${payload}.${signature}`,
    "a stranger's key under the issuer's key id": forge(HEADER, CLAIMS, STRANGER.sign),
    "HMAC under ES256": forge(HEADER, CLAIMS, hmacSigner(rsaPem)),
    "signature of the payload alone": `${head}.${payload}.${encodePart(KEY.sign(payload))}`,
    "wrong claims as well: the signature is looked at first": forge(HEADER, { iss: "x" }, STRANGER.sign),
  },
);

refused("RFC 7519 §4, RFC 9068 §2.2, ASVS V15.3.5: claims of a wrong form are refused", "claims_malformed", {
  "none": forge(HEADER, {}),
  ...Object.fromEntries(
    ["sub", "iat", "exp"].map((name) => [`${name} missing`, forge(HEADER, without(CLAIMS, name))]),
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
      ].map((text) => [`${name} ${text}`, rawClaim(name, text)])
    ),
  ),
  ...Object.fromEntries(
    ["sub", "jti", "client_id"].flatMap((name) =>
      ["null", "1", '""', '["00u-1"]', '{"a":1}', '"a b"', '"a\\nb"', '"é"', `"${"x".repeat(256)}"`]
        .map((text) => [`${name} ${text.slice(0, 20)}`, rawClaim(name, text)])
    ),
  ),
  "scope in a list": claim({ scope: ["model:infer"] }),
  "scope null": claim({ scope: null }),
  "scope number": claim({ scope: 1 }),
  "scope too long": claim({ scope: "x".repeat(2001) }),
  "roles as text": claim({ roles: "boss" }),
  "roles as a number": claim({ roles: 1 }),
  "roles as an object": claim({ roles: { 0: "boss", length: 1 } }),
  "roles null": claim({ roles: null }),
  "roles true": claim({ roles: true }),
  "a role that is no text": claim({ roles: ["staff", 1] }),
  "a role null": claim({ roles: [null] }),
  "a role in a list": claim({ roles: [["boss"]] }),
  "a role too long": claim({ roles: ["x".repeat(256)] }),
  "101 roles": claim({ roles: Array(101).fill("staff") }),
});

refused("RFC 8725 §3.8: a token of another issuer is refused, though it is signed well", "issuer_wrong", {
  "missing": forge(HEADER, without(CLAIMS, "iss")),
  "other": claim({ iss: "https://login.example.com/other" }),
  "with a slash": claim({ iss: `${ISSUER}/` }),
  "upper case": claim({ iss: ISSUER.toUpperCase() }),
  "array": claim({ iss: [ISSUER] }),
  "ourselves": claim({ iss: AUDIENCE }),
  "null": claim({ iss: null }),
});

refused("RFC 9068 §4, ASVS V9.2.3: a token for another audience is refused", "audience_wrong", {
  "missing": forge(HEADER, without(CLAIMS, "aud")),
  "other": claim({ aud: "https://other.example" }),
  "others": claim({ aud: ["https://other.example", `${AUDIENCE}/`] }),
  "the client": claim({ aud: "app-1" }),
  "empty": claim({ aud: "" }),
  "none": claim({ aud: [] }),
  "nested": claim({ aud: [[AUDIENCE]] }),
  "a prefix": claim({ aud: AUDIENCE.slice(0, -1) }),
  "longer": claim({ aud: `${AUDIENCE}.evil.example` }),
  "two in one": claim({ aud: `${AUDIENCE} https://other.example` }),
  "object": claim({ aud: { [AUDIENCE]: true } }),
  "true": claim({ aud: true }),
  "null": claim({ aud: null }),
});
accepted("RFC 7519 §4.1.3: an audience that names us among others is accepted", {
  "one": [claim({ aud: [AUDIENCE] })],
  "two": [claim({ aud: ["https://other.example", AUDIENCE] })],
});

refused("ASVS V9.2.1: a token whose time has not come is refused beyond the leeway", "not_yet_valid", {
  "nbf": claim({ nbf: NOW_SECONDS + 6 }),
  "iat": claim({ iat: NOW_SECONDS + 6 }),
  "iat far ahead": claim({ iat: NOW_SECONDS + 1_000_000, exp: NOW_SECONDS + 1_000_900 }),
  "nbf far ahead": claim({ nbf: 8_640_000_000_000 }),
});
refused("ASVS V9.2.1: a token whose time is over is refused beyond the leeway", "expired", {
  "five seconds ago": claim({ iat: NOW_SECONDS - 900, exp: NOW_SECONDS - 5 }),
  "never begun": claim({ iat: 0, exp: 0 }),
  "before it was issued": claim({ exp: NOW_SECONDS - 900 }),
});
refused("a token of a longer life than the settings allow is refused", "lifetime_too_long", {
  "a second too long": claim({ exp: NOW_SECONDS + 3601 }),
  "issued long ago": claim({ iat: NOW_SECONDS - 3000, exp: NOW_SECONDS + 601 }),
  "for ever": claim({ exp: 8_640_000_000_000 }),
});
accepted("ASVS V9.2.1: the leeway and the longest life are just that", {
  "nbf and iat": [claim({ nbf: NOW_SECONDS + 5, iat: NOW_SECONDS + 5 })],
  "exp": [claim({ iat: NOW_SECONDS - 900, exp: NOW_SECONDS - 4 }), { expiresAtSeconds: NOW_SECONDS - 4 }],
  "an hour": [claim({ exp: NOW_SECONDS + 3600 }), { expiresAtSeconds: NOW_SECONDS + 3600 }],
});
refused("no leeway is none", "not_yet_valid", { iat: claim({ iat: NOW_SECONDS + 1 }) }, { leewaySeconds: 0 });
refused("no leeway is none at the end either", "expired", {
  exp: claim({ iat: NOW_SECONDS - 900, exp: NOW_SECONDS }),
}, { leewaySeconds: 0 });

const THUMBPRINT = encodePart(new Uint8Array(32).fill(7));
refused(
  "RFC 9449 §7.1, ASVS V10.3.5: a token bound to what cannot be checked never passes as bearer",
  "confirmation_refused",
  {
    "null": claim({ cnf: null }),
    "empty": claim({ cnf: {} }),
    "text": claim({ cnf: THUMBPRINT }),
    "list": claim({ cnf: [{ jkt: THUMBPRINT }] }),
    "a certificate (RFC 8705)": claim({ cnf: { "x5t#S256": THUMBPRINT } }),
    "a key (RFC 7800)": claim({ cnf: { jwk: KEY.jwk } }),
    "two ways": claim({ cnf: { jkt: THUMBPRINT, "x5t#S256": THUMBPRINT } }),
    "short": claim({ cnf: { jkt: THUMBPRINT.slice(1) } }),
    "loose": claim({ cnf: { jkt: loose(THUMBPRINT) } }),
    "no text": claim({ cnf: { jkt: [THUMBPRINT] } }),
  },
);

accepted("what may be absent may be, and what is there is handed on", {
  "bound": [claim({ cnf: { jkt: THUMBPRINT } }), { boundTo: THUMBPRINT }],
  "scope": [claim({ scope: "model:infer/use-* email" }), { scope: "model:infer/use-* email" }],
  "the longest scope": [claim({ scope: "x".repeat(2000) }), { scope: "x".repeat(2000) }],
  "empty scope": [claim({ scope: "" }), { scope: "" }],
  "no client": [forge(HEADER, without(CLAIMS, "client_id")), { clientId: null }],
  "no roles": [forge(HEADER, without(CLAIMS, "roles")), { roles: [] }],
  "unknown claims": [claim({ role: "boss", admin: true, groups: ["boss"], team: "default", nonce: "n" })],
});

accepted("roles are what the settings make of the claim's values, each once, and other values give nothing", {
  "several": [claim({ roles: ["staff", "boss", "staff"] }), { roles: ["user", "admin"] }],
  "unmapped": [claim({ roles: ["Staff", "admin", "user", "", "*"] }), { roles: [] }],
  "words that every object knows": [
    claim({ roles: ["__proto__", "constructor", "toString", "hasOwnProperty"] }),
    { roles: [] },
  ],
  "a hundred": [claim({ roles: [...Array(98).fill("x"), "x".repeat(255), "boss"] }), {
    roles: ["user", "admin"],
  }],
  "none": [claim({ roles: [] }), { roles: [] }],
});

const nested = (value: unknown) =>
  forge(HEADER, { ...without(CLAIMS, "roles"), resource_access: { "a/b~c": { roles: value } } });
const POINTER = { rolesClaim: "/resource_access/a~1b~0c/roles" };
accepted("RFC 6901: the roles' claim may stand anywhere, and of what is not there come no roles", {
  "there": [nested(["boss"]), { roles: ["user", "admin"] }],
  "elsewhere": [claim({ roles: ["boss"] }), { roles: [] }],
  "half there": [claim({ resource_access: { "a/b~c": {} } }), { roles: [] }],
}, POINTER);
refused("RFC 6901: a way to the roles that leads through something else is refused", "claims_malformed", {
  "text": nested("boss"),
  "text on the way": claim({ resource_access: "roles" }),
  "list on the way": claim({ resource_access: [{ roles: ["boss"] }] }),
  "null on the way": claim({ resource_access: { "a/b~c": null } }),
}, POINTER);
accepted("RFC 6901 §4: ~01 is ~1 and no slash", {
  "there": [forge(HEADER, { ...CLAIMS, "a~1b": ["boss"], "a/b": [] }), { roles: ["user", "admin"] }],
}, { rolesClaim: "/a~01b" });
accepted("a pointer to what objects inherit finds nothing", {
  "inherited": [forge(HEADER, without(CLAIMS, "roles")), { roles: [] }],
}, { rolesClaim: "/constructor/name", roles: { Object: ["admin"] } });

Deno.test("a token without jti has an id of its own that a twin of its signature shares", async () => {
  const { tokens, close } = await open();
  const text = forge(HEADER, without(CLAIMS, "jti"));
  // ECDSA: (r, n - s) verifies as well.
  const [first = "", second = "", third = ""] = text.split(".");
  const bytes = Uint8Array.fromBase64(third, { alphabet: "base64url" });
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
  const s = order - BigInt(`0x${bytes.slice(32).toHex()}`);
  bytes.set(Uint8Array.fromHex(s.toString(16).padStart(64, "0")), 32);
  const twin = await check(tokens, `${first}.${second}.${encodePart(bytes)}`);
  const one = await check(tokens, text);
  const other = await check(tokens, forge(HEADER, { ...without(CLAIMS, "jti"), sub: "00u-2" }));
  ok(one.ok && twin.ok && other.ok);
  match(one.value.tokenId, /^[A-Za-z0-9_-]{22}$/);
  strictEqual(one.value.tokenId, twin.value.tokenId);
  ok(one.value.tokenId !== other.value.tokenId);
  await close();
});

Deno.test("a token with any one of its bytes altered is refused", async () => {
  const { tokens, close } = await open();
  for (const [part, text] of [head, payload, signature].entries()) {
    const bytes = Uint8Array.fromBase64(text, { alphabet: "base64url" });
    for (let index = 0; index < bytes.length; index++) {
      const altered = bytes.slice();
      altered[index] = (altered[index] ?? 0) ^ (1 << index % 8);
      const segments = [head, payload, signature];
      segments[part] = encodePart(altered);
      strictEqual((await check(tokens, segments.join("."))).ok, false, `part ${part} byte ${index}`);
    }
  }
  await close();
});

Deno.test("RFC 8725 §3.8, ASVS V6.8.1: two issuers share neither keys nor what was verified, and one sub at both is two identities", async () => {
  const OTHER = "https://id.example.org";
  const [one, two] = [await open(), await open({ issuer: OTHER })];
  const own = makeKey("key-2", "ES256");
  two.server.plays(answerKeys(own, { jwk: { ...STRANGER.jwk } }));
  const by = (iss: string, kid: string, signer: Signer) =>
    forge({ ...HEADER, kid }, { ...CLAIMS, iss }, signer);

  const [first, second] = [by(ISSUER, "key-1", KEY.sign), by(OTHER, "key-2", own.sign)];
  const [left, right] = [await check(one.tokens, first), await check(two.tokens, second)];
  ok(left.ok && right.ok);
  strictEqual(left.value.subject, right.value.subject);
  deepStrictEqual([left.value.issuer, right.value.issuer], [ISSUER, OTHER]);
  deepStrictEqual([one.tokens.issuer, two.tokens.issuer], [ISSUER, OTHER]);

  const reasonOf = async (tokens: ExternalTokens, text: string) => {
    const outcome = await check(tokens, text);
    return outcome.ok ? undefined : outcome.reason;
  };
  // What one verified means nothing to the other.
  strictEqual(two.tokens.cached(hash("sha256", first, "base64")), undefined);
  strictEqual(await reasonOf(two.tokens, first), "signature_wrong"); // key-1 is another key there
  strictEqual(await reasonOf(one.tokens, second), "key_unknown");
  strictEqual(await reasonOf(one.tokens, by(ISSUER, "key-2", own.sign)), "key_unknown");
  strictEqual(await reasonOf(one.tokens, by(ISSUER, "key-1", own.sign)), "signature_wrong");
  strictEqual(await reasonOf(one.tokens, by(OTHER, "key-1", KEY.sign)), "issuer_wrong");
  strictEqual(await reasonOf(two.tokens, by(ISSUER, "key-2", own.sign)), "issuer_wrong");
  await one.close();
  await two.close();
});

Deno.test("what was verified is known until it expires, leeway included, and is then refused and forgotten", async () => {
  const { tokens, clock, close } = await open();
  const text = forge(HEADER);
  const sha256 = hash("sha256", text, "base64");
  strictEqual(tokens.cached(sha256), undefined);
  await check(tokens, text);
  deepStrictEqual(tokens.cached(sha256), { ok: true, value: IDENTITY });
  strictEqual(tokens.cached(hash("sha256", `${text} `, "base64")), undefined);
  clock.jumpWall(904_999);
  strictEqual(tokens.cached(sha256)?.ok, true);
  clock.jumpWall(1);
  deepStrictEqual(tokens.cached(sha256), { ok: false, reason: "expired" });
  strictEqual(tokens.cached(sha256), undefined);
  deepStrictEqual(await check(tokens, text), { ok: false, reason: "expired" });
  await close();
});

Deno.test("ASVS V15.2.2: no more than 10,000 verified tokens are kept in mind; the oldest goes first", async () => {
  const { tokens, close } = await open();
  const key = OTHERS[0];
  ok(key !== undefined);
  const sha256 = (index: number) => hash("sha256", String(index), "base64");
  const jws = parseJws(forge({ ...HEADER, kid: key.kid, alg: key.alg }, CLAIMS, key.sign));
  ok(jws.ok);
  for (let index = 0; index <= 10_000; index++) await tokens.verify(jws.value, sha256(index));
  strictEqual(tokens.cached(sha256(0)), undefined);
  strictEqual(tokens.cached(sha256(1))?.ok, true);
  strictEqual(tokens.cached(sha256(10_000))?.ok, true);
  await close();
});

Deno.test("a key that its issuer took back takes the tokens with it that were verified before, after ten minutes at most", async () => {
  const { tokens, server, clock, close } = await open({ lifetimeSecondsMax: 86_400 });
  const text = claim({ exp: NOW_SECONDS + 86_400 });
  const kept = forge(
    { ...HEADER, kid: "rsa-1", alg: "RS256" },
    { ...CLAIMS, exp: NOW_SECONDS + 86_400 },
    RSA.sign,
  );
  ok((await check(tokens, text)).ok && (await check(tokens, kept)).ok);
  server.plays(answerKeys(RSA));
  clock.advance(10 * 60_000 - 1);
  strictEqual(tokens.cached(hash("sha256", text, "base64"))?.ok, true); // and asks, in the background
  clock.advance(1);
  deepStrictEqual(await check(tokens, text), { ok: false, reason: "key_unknown" });
  strictEqual((await check(tokens, kept)).ok, true);
  strictEqual(server.requests.length, 2);
  await close();
});

Deno.test("a key that its issuer replaced under its name takes the tokens with it that were verified before", async () => {
  const { tokens, server, clock, close } = await open();
  const text = forge(HEADER);
  strictEqual((await check(tokens, text)).ok, true);
  server.plays(answerKeys(STRANGER, OTHERS[0] ?? KEY));
  clock.advance(30_000);
  await check(tokens, keyed("unknown")); // makes us ask
  strictEqual(tokens.cached(hash("sha256", text, "base64")), undefined);
  deepStrictEqual(await check(tokens, text), { ok: false, reason: "signature_wrong" });
  strictEqual((await check(tokens, forge(HEADER, CLAIMS, STRANGER.sign))).ok, true);
  await close();
});

Deno.test("ASVS V16.5.3: while keys cannot be had a token is unavailable and not refused; what was verified holds on", async () => {
  const { tokens, server, clock, close } = await open({ lifetimeSecondsMax: 86_400 });
  server.plays(answerStatus(500));
  const text = claim({ exp: NOW_SECONDS + 86_400 });
  await rejects(check(tokens, text), { kind: "unavailable", details: { retryAfterSeconds: 5 } });
  clock.advance(5000);
  server.plays(answerKeys(KEY));
  strictEqual((await check(tokens, text)).ok, true);
  server.plays(answerStatus(500));
  clock.advance(10 * 60_000);
  strictEqual((await check(tokens, text)).ok, true); // asked again, in vain
  clock.advance(60 * 60_000);
  strictEqual(tokens.cached(hash("sha256", text, "base64"))?.ok, true);
  await close();
});

Deno.test("property: nothing that is not the issuer's token is accepted, and nothing throws", async () => {
  const { tokens, close } = await open();
  const part = fc.oneof(
    fc.string(),
    fc.jsonValue().map((value) => encodePart(JSON.stringify(value))),
    fc.constantFrom(head, payload, signature, ""),
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(part, { maxLength: 5 }).map((parts) => parts.join(".")),
    fc.tuple(fc.jsonValue(), fc.jsonValue()).map(([one, two]) =>
      forge(JSON.stringify(one), JSON.stringify(two))
    ),
    fc.tuple(fc.constantFrom(...Object.keys(HEADER)), fc.jsonValue({ maxDepth: 2 }))
      .map(([name, value]) => header({ [name]: value })),
    fc.tuple(fc.constantFrom(...Object.keys(CLAIMS), "cnf", "scope", "nbf"), fc.jsonValue({ maxDepth: 2 }))
      .map(([name, value]) => claim({ [name]: value })),
  );
  await fc.assert(
    fc.asyncProperty(text, async (each) => {
      const outcome = await check(tokens, each);
      if (!outcome.ok) return;
      // By chance a well signed claim may be a good one; it must then say what its token says.
      const jws = parseJws(each);
      ok(jws.ok && jws.value.claims.iss === ISSUER && jws.value.header.kid === "key-1");
      strictEqual(outcome.value.subject, jws.value.claims.sub);
      deepStrictEqual([outcome.value.issuer, outcome.value.team], [ISSUER, "research"]);
    }),
    { numRuns: 500 },
  );
  await close();
});
