// Tests of DPoP proofs: each check of RFC 9449 §4.3, each known way around a verifier (RFC 8725), and real clients.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import fc from "fast-check";
import * as oauth from "oauth4webapi";
import * as openid from "openid-client";
import { Fault } from "../../src/faults/fault.ts";
import { type DpopProofs, type DpopRefusal, openDpopProofs } from "../../src/identity/dpop_proof.ts";
import { openMemoryReplayStore } from "../../src/identity/memory_replay_store.ts";
import { ALGORITHMS, importPublicKey, thumbprint } from "../../src/identity/public_key.ts";
import { openStoredReplayStore } from "../../src/identity/stored_replay_store.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { parseJws, type UntrustedObject, verifyJws } from "../../src/identity/strict_jws.ts";
import { systemClock } from "../../src/time/clock.ts";
import { manualClock } from "../support/manual_clock.ts";
import { encodePart, forgeToken, hmacSigner, type Signer, type TokenPart } from "./forge_token.ts";
import { makeForeignKey, makeForeignKeys } from "./foreign_key.ts";

const PUBLIC_URL = "https://ai.example.com";
const NOW_SECONDS = 1_750_000_000;
const REQUEST = { method: "POST", path: "/v1/chat/completions" };
const TOKEN = "eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl";
const ATH = hash("sha256", TOKEN, "base64url");

const KEYS = makeForeignKeys();
const key = KEYS.ES256;
const stranger = makeForeignKey("ES256");

function openProofs({ entriesMax = 1000, publicUrl = PUBLIC_URL } = {}) {
  const clock = manualClock(NOW_SECONDS * 1000);
  clock.advance(1_000_000); // the nonces' time is not at its start
  clock.jumpWall(-1_000_000);
  const proofs = openDpopProofs({
    publicUrl,
    clock,
    replays: openMemoryReplayStore(clock, entriesMax),
    nonceKey: undefined,
  });
  return { clock, proofs };
}

// For all that is refused: none of it takes memory, so that one verifier serves.
const shared = openProofs().proofs;
const HEADER = { typ: "dpop+jwt", alg: "ES256", jwk: key.publicJwk };
const CLAIMS = {
  jti: "jti-1",
  htm: "POST",
  htu: "https://ai.example.com/v1/chat/completions",
  iat: NOW_SECONDS,
  nonce: shared.nonce(),
  ath: ATH,
};

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

const keyIdOf = async (jwk: UntrustedObject): Promise<string> => {
  const id = await thumbprint(jwk);
  return id.ok ? id.value : "";
};
const verify = (proof: string, proofs: DpopProofs = shared, token: string | undefined = TOKEN) =>
  proofs.verify(proof, REQUEST, token);

/** Each proof is refused for the reason. */
function refused(criterion: string, reason: DpopRefusal, proofs: Readonly<Record<string, string>>): void {
  Deno.test(`${criterion}: ${reason}`, async () => {
    for (const [name, proof] of Object.entries(proofs)) {
      deepStrictEqual(await verify(proof), { ok: false, reason }, name);
    }
  });
}

for (const algorithm of ALGORITHMS) {
  Deno.test(`the ${algorithm} proof that all others are made from is accepted, and answers its key's thumbprint`, async () => {
    const { proofs } = openProofs();
    const { publicJwk, signer } = KEYS[algorithm];
    const proof = forge(
      { ...HEADER, alg: algorithm, jwk: publicJwk },
      { ...CLAIMS, nonce: proofs.nonce() },
      signer,
    );
    deepStrictEqual(await verify(proof, proofs), { ok: true, value: await keyIdOf(publicJwk) });
  });
}

const [head = "", payload = "", signature = ""] = forge(HEADER).split(".");
/** The text with the unused bits of its last character set: the same bytes for a loose decoder. */
const loose = (text: string): string => {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return text.slice(0, -1) + alphabet.charAt(alphabet.indexOf(text.slice(-1)) + 1);
};

refused(
  "RFC 9449 §4.3, 1 and 2: a header value that is not one well-formed JWT is refused",
  "proof_malformed",
  {
    "empty": "",
    "two proofs": `${forge(HEADER)}, ${forge(HEADER)}`,
    "two segments": `${head}.${payload}`,
    "four segments": `${head}.${payload}.${signature}.`,
    "five segments (JWE)": `${head}.${payload}.${signature}.${head}.${payload}`,
    "a space before": ` ${head}.${payload}.${signature}`,
    "a line end": `${head}.${payload}.${signature}\n`,
    "padded": `${head}.${payload}.${signature}=`,
    "base64": `${head}.${payload}.+/${signature.slice(2)}`,
    "trailing bits of the signature": `${head}.${payload}.${loose(signature)}`,
    "oversized": claim({ x: "x".repeat(8192) }),
    "JSON of a JWS": JSON.stringify({ protected: head, payload, signature }),
    "header no object": forge("[]"),
    "header no JSON": forge("{"),
    "header empty": forge(""),
    "header not UTF-8": forge(Uint8Array.of(0x7b, 0xff, 0x7d)),
    "header with a byte order mark": forge(`\ufeff${JSON.stringify(HEADER)}`),
    "alg twice": forge(withRaw(HEADER, "alg", '"ES256","alg":"ES256"')),
    "jwk twice": forge(withRaw(HEADER, "typ", `"dpop+jwt","jwk":${JSON.stringify(stranger.publicJwk)}`)),
    "a member of jwk twice": forge(
      withRaw(HEADER, "jwk", withRaw(key.publicJwk, "kty", '"EC","kt\\u0079":"EC"')),
    ),
    "nested beyond measure": forge(withRaw(HEADER, "jwk", "[".repeat(9) + "]".repeat(9))),
    "claims no object": forge(HEADER, '"POST"'),
    "claims empty": forge(HEADER, ""),
    "claims an array": forge(HEADER, JSON.stringify([CLAIMS])),
    "claims nested beyond measure": rawClaim("x", "[".repeat(9) + "]".repeat(9)),
    "__proto__": rawClaim("x", '1,"__proto__":{"nonce":1}'),
    ...Object.fromEntries(
      Object.entries(CLAIMS).map(([name, value]) => [
        `${name} twice`,
        rawClaim(name, `${JSON.stringify(value)},"${name}":${JSON.stringify(value)}`),
      ]),
    ),
  },
);

refused("RFC 9449 §4.3, 4: a type that is not dpop+jwt is refused (RFC 8725 §3.11)", "proof_header_refused", {
  "missing": forge(without(HEADER, "typ")),
  "JWT": header({ typ: "JWT" }),
  "an access token's": header({ typ: "at+jwt" }),
  "an assertion's": header({ typ: "client-authentication+jwt" }),
  "null": header({ typ: null }),
  "array": header({ typ: ["dpop+jwt"] }),
  "spaced": header({ typ: "dpop+jwt " }),
  "another alphabet's K": header({ typ: "dpop+jwt\u212a" }),
});

refused(
  "RFC 9449 §4.3, 5: an algorithm that is none, symmetric or unknown is refused (RFC 8725 §3.1)",
  "proof_header_refused",
  {
    "missing": forge(without(HEADER, "alg")),
    "none": forge({ ...HEADER, alg: "none" }, CLAIMS, () => new Uint8Array()),
    "None": forge({ ...HEADER, alg: "None" }, CLAIMS, () => new Uint8Array()),
    "HS256 with the public key": forge({ ...HEADER, alg: "HS256" }, CLAIMS, hmacSigner(key.publicPem)),
    "HS256 with the JWK": forge(
      { ...HEADER, alg: "HS256" },
      CLAIMS,
      hmacSigner(JSON.stringify(key.publicJwk)),
    ),
    "HS256 with a secret in jwk": forge(
      { ...HEADER, alg: "HS256", jwk: { kty: "oct", k: encodePart("secret") } },
      CLAIMS,
      hmacSigner("secret"),
    ),
    "ES512": header({ alg: "ES512" }),
    "RS384": header({ alg: "RS384" }),
    "ECDH-ES": header({ alg: "ECDH-ES" }),
    "lower case": header({ alg: "es256" }),
    "null": header({ alg: null }),
    "array": header({ alg: ["ES256"] }),
  },
);

refused("RFC 8725 §3.10, RFC 7515 §4.1.11: any further header member is refused", "proof_header_refused", {
  ...Object.fromEntries(
    Object.entries({
      kid: "1",
      jku: "https://evil.example/keys",
      x5u: "https://evil.example/cert",
      x5c: ["AAAA"],
      x5t: "AAAA",
      "x5t#S256": "AAAA",
      cty: "JWT",
      b64: true,
      nonce: "n",
      iat: NOW_SECONDS,
    }).map(([name, value]) => [name, header({ [name]: value })]),
  ),
  "crit empty": header({ crit: [] }),
  "crit": header({ crit: ["exp"], exp: 1 }),
  "crit b64": header({ crit: ["b64"], b64: false }),
  "jwk missing": forge(without(HEADER, "jwk")),
  "jwk null": header({ jwk: null }),
  "jwk text": header({ jwk: JSON.stringify(key.publicJwk) }),
  "jwk array": header({ jwk: [key.publicJwk] }),
});

const weak = makeForeignKey("RS256", 2048);
refused(
  "RFC 9449 §4.3, 7: a key that is private, weak, off the curve or not the algorithm's",
  "proof_key_refused",
  {
    "private key": header({ jwk: key.privateJwk }),
    "secret key": header({ jwk: { kty: "oct", k: "AAAA" } }),
    "private RSA key": forge(
      { ...HEADER, alg: "RS256", jwk: KEYS.RS256.privateJwk },
      CLAIMS,
      KEYS.RS256.signer,
    ),
    "RSA 2048": forge({ ...HEADER, alg: "RS256", jwk: weak.publicJwk }, CLAIMS, weak.signer),
    "P-256 for ES384": forge({ ...HEADER, alg: "ES384" }),
    "P-384 for ES256": header({ jwk: KEYS.ES384.publicJwk }),
    "EC for RS256": forge({ ...HEADER, alg: "RS256" }),
    "Ed25519 for ES256": header({ jwk: KEYS.EdDSA.publicJwk }),
    "not on the curve": header({ jwk: { ...key.publicJwk, y: encodePart(new Uint8Array(32).fill(1)) } }),
    "trailing bits": header({ jwk: { ...key.publicJwk, x: loose(key.publicJwk.x ?? "") } }),
    "padded": header({ jwk: { ...key.publicJwk, x: `${key.publicJwk.x}=` } }),
    "for encryption": header({ jwk: { ...key.publicJwk, use: "enc" } }),
    "for another algorithm": header({ jwk: { ...key.publicJwk, alg: "ES384" } }),
    "empty": header({ jwk: {} }),
    // RFC 8032: anyone can sign under it.
    "small order": forge(
      {
        ...HEADER,
        alg: "EdDSA",
        jwk: { kty: "OKP", crv: "Ed25519", x: encodePart(Uint8Array.of(1, ...new Uint8Array(31))) },
      },
      CLAIMS,
      () => Uint8Array.of(1, ...new Uint8Array(63)),
    ),
  },
);

refused("RFC 9449 §4.3, 6: a signature that is not this key's over this text", "proof_signature_wrong", {
  "none": `${head}.${payload}.`,
  "zero": `${head}.${payload}.${encodePart(new Uint8Array(64))}`,
  "ones": `${head}.${payload}.${encodePart(new Uint8Array(64).fill(255))}`,
  "cut": `${head}.${payload}.${signature.slice(0, -2)}`,
  "another key's": forge(HEADER, CLAIMS, stranger.signer),
  "of another proof": `${head}.${payload}.${forge(HEADER, { ...CLAIMS, jti: "other" }).split(".")[2]}`,
  "of the claims alone": `${head}.${payload}.${encodePart(key.signer(payload))}`,
  "HMAC with the public key under ES256": forge(HEADER, CLAIMS, hmacSigner(key.publicPem)),
  "another key put in": `${encodePart({ ...HEADER, jwk: stranger.publicJwk })}.${payload}.${signature}`,
  "other claims put in": `${head}.${encodePart({ ...CLAIMS, jti: "2" })}.${signature}`,
  "PKCS #1 under PS256": forge(
    { ...HEADER, alg: "PS256", jwk: KEYS.PS256.publicJwk },
    CLAIMS,
    KEYS.RS256.signer,
  ),
});

refused("RFC 9449 §4.3, 3: a claim that is missing or of a wrong form is refused", "proof_claims_wrong", {
  ...Object.fromEntries(
    ["jti", "htm", "htu", "iat"].flatMap((name) => [
      [`${name} missing`, forge(HEADER, without(CLAIMS, name))],
      ...["null", "true", "[]", "{}", '[""]'].map((raw) => [`${name} ${raw}`, rawClaim(name, raw)]),
    ]),
  ),
  ...Object.fromEntries(
    ['""', '"a b"', '"é"', '"a\\u0000"', `"${"x".repeat(256)}"`, "1"].map((
      raw,
    ) => [`jti ${raw}`, rawClaim("jti", raw)]),
  ),
  ...Object.fromEntries(
    [
      `"${NOW_SECONDS}"`,
      `${NOW_SECONDS}.5`,
      "1e999",
      "-1e999",
      "-1",
      "1e-7",
      "8640000000001",
      "9007199254740993",
    ]
      .map((raw) => [`iat ${raw}`, rawClaim("iat", raw)]),
  ),
  ...Object.fromEntries(
    [
      `${CLAIMS.htu}?`,
      `${CLAIMS.htu}?a=b`,
      `${CLAIMS.htu}#`,
      `${CLAIMS.htu}#a`,
      "",
      "/v1/chat/completions",
      "//ai.example.com/v1/chat/completions",
      "ai.example.com/v1/chat/completions",
      "https:/ai.example.com/v1/chat/completions",
      "https:ai.example.com/v1/chat/completions",
      "https:///ai.example.com/v1/chat/completions",
      "https:\\\\ai.example.com\\v1\\chat\\completions",
      "https://ai.example.com\\v1/chat/completions",
      "https://user@ai.example.com/v1/chat/completions",
      "https://@ai.example.com/v1/chat/completions",
      "https://:@ai.example.com/v1/chat/completions",
      ` ${CLAIMS.htu}`,
      `${CLAIMS.htu}\n`,
      "https://ai.exa\tmple.com/v1/chat/completions",
      "https://ａi.example.com/v1/chat/completions",
      "https://ai.example.com:port/v1/chat/completions",
      "https://ai.example.com:99999/v1/chat/completions",
      "wss://ai.example.com/v1/chat/completions",
      "blob:https://ai.example.com/v1/chat/completions",
    ].map((htu) => [`htu ${htu}`, claim({ htu })]),
  ),
});

refused(
  "RFC 9449 §4.3, 8 and 9: a proof for another method or address is refused",
  "proof_for_other_request",
  {
    ...Object.fromEntries(
      ["GET", "post", "Post", "POST ", "", "POST,GET", "*"].map((htm) => [`htm ${htm}`, claim({ htm })]),
    ),
    ...Object.fromEntries(
      [
        "https://evil.example/v1/chat/completions",
        "https://ai.example.com.evil.example/v1/chat/completions",
        "https://ai.example.com./v1/chat/completions",
        "https://ai.example.co/v1/chat/completions",
        "https://ai.example.com:8443/v1/chat/completions",
        "https://ai.example.com:80/v1/chat/completions",
        "http://ai.example.com/v1/chat/completions",
        "http://ai.example.com:443/v1/chat/completions",
        "https://ai.example.com",
        "https://ai.example.com/",
        "https://ai.example.com/v1/chat/completions/",
        "https://ai.example.com//v1/chat/completions",
        "https://ai.example.com/v1/chat/completion",
        "https://ai.example.com/v1/chat/Completions",
        "https://ai.example.com/v1/models/../embeddings",
        "https://ai.example.com/v1/chat/completions;a",
        "https://ai.example.com/v1/chat%2Fcompletions",
      ].map((htu) => [`htu ${htu}`, claim({ htu })]),
    ),
  },
);

Deno.test("RFC 9449 §4.3: htu is compared after scheme, host, port and dot segments took one form", async () => {
  const { proofs } = openProofs();
  const forms = [
    "HTTPS://ai.example.com/v1/chat/completions",
    "https://AI.Example.COM/v1/chat/completions",
    "https://ai.example.com:443/v1/chat/completions",
    "https://ai.example.com/v1/./chat/../chat/completions",
  ];
  for (const htu of forms) {
    const proof = claim({ htu, jti: `jti-${htu.length}-${htu}`, nonce: proofs.nonce() });
    strictEqual((await verify(proof, proofs)).ok, true, htu);
  }
});

Deno.test("a public URL with a port, a path or a slash at its end is what htu is compared with", async () => {
  const urls = {
    "http://127.0.0.1:8000": "http://127.0.0.1:8000/token",
    "https://example.com/ai": "https://example.com/ai/token",
    "https://example.com/": "https://example.com/token",
    "http://[::1]:8000": "http://[::1]:8000/token",
  };
  for (const [publicUrl, htu] of Object.entries(urls)) {
    const { proofs } = openProofs({ publicUrl });
    const proof = (to: string) =>
      forge(HEADER, { ...without(CLAIMS, "ath"), htu: to, nonce: proofs.nonce() });
    const request = { method: "POST", path: "/token" };
    deepStrictEqual(await proofs.verify(proof("https://evil.example/token"), request, undefined), {
      ok: false,
      reason: "proof_for_other_request",
    });
    strictEqual((await proofs.verify(proof(htu), request, undefined)).ok, true, publicUrl);
  }
});

Deno.test("a request target that is no path meets no proof, whatever URL it would make behind the origin", async () => {
  const { proofs } = openProofs();
  const targets = {
    "@evil.example/": "https://evil.example/",
    ".evil.example/": "https://ai.example.com.evil.example/",
    "*": "https://ai.example.com*/",
    "": "https://ai.example.com/",
  };
  for (const [path, htu] of Object.entries(targets)) {
    const outcome = await proofs.verify(
      claim({ htu, nonce: proofs.nonce() }),
      { method: "POST", path },
      TOKEN,
    );
    strictEqual(outcome.ok, false, path);
  }
});

refused("RFC 9449 §11.1: a proof made long ago or not yet is refused", "proof_time_wrong", {
  "61 s ago": claim({ iat: NOW_SECONDS - 61 }),
  "in 6 s": claim({ iat: NOW_SECONDS + 6 }),
  "never": claim({ iat: 0 }),
  "at the end of time": claim({ iat: 8_640_000_000_000 }),
  "in milliseconds": claim({ iat: NOW_SECONDS * 1000 }),
});

Deno.test("RFC 9449 §11.1: a proof from 60 s ago to 5 s ahead is accepted, to the millisecond", async () => {
  const { proofs, clock } = openProofs();
  const at = (iat: number) =>
    verify(claim({ iat, jti: `${iat} ${clock.now()}`.replace(" ", "-"), nonce: proofs.nonce() }), proofs);
  for (const iat of [NOW_SECONDS - 60, NOW_SECONDS - 1, NOW_SECONDS, NOW_SECONDS + 5]) {
    strictEqual((await at(iat)).ok, true, `${iat - NOW_SECONDS}`);
  }
  clock.advance(1);
  deepStrictEqual(await at(NOW_SECONDS - 60), { ok: false, reason: "proof_time_wrong" });
});

const old = openProofs();
const OLD_NONCE = old.proofs.nonce();
refused("RFC 9449 §4.3, 10: a proof without a nonce is refused", "proof_nonce_missing", {
  "missing": forge(HEADER, without(CLAIMS, "nonce")),
  "under another name": forge(HEADER, { ...without(CLAIMS, "nonce"), Nonce: CLAIMS.nonce }),
});
refused("RFC 9449 §4.3, 10: a proof with a nonce that is not ours is refused", "proof_nonce_wrong", {
  "of another process": claim({ nonce: OLD_NONCE }),
  "empty": claim({ nonce: "" }),
  "null": claim({ nonce: null }),
  "array": claim({ nonce: [CLAIMS.nonce] }),
  "number": claim({ nonce: 1 }),
  "cut": claim({ nonce: CLAIMS.nonce.slice(0, -1) }),
  "longer": claim({ nonce: `${CLAIMS.nonce}A` }),
  "in another case": claim({ nonce: CLAIMS.nonce.toLowerCase() }),
});

Deno.test("RFC 9449 §8: a nonce is an opaque text that passes in its window and the next, and no longer", async () => {
  const { proofs, clock } = openProofs();
  const nonce = proofs.nonce();
  strictEqual(/^[A-Za-z0-9_-]{43}$/.test(nonce), true);
  const verifyNow = (jti: string, value: string) =>
    verify(claim({ jti, nonce: value, iat: Math.floor(clock.now() / 1000) }), proofs);
  strictEqual(proofs.nonce(), nonce);
  strictEqual((await verifyNow("1", nonce)).ok, true);
  clock.advance(150_000);
  const next = proofs.nonce();
  strictEqual(next === nonce, false);
  strictEqual((await verifyNow("2", nonce)).ok, true);
  strictEqual((await verifyNow("3", next)).ok, true);
  clock.advance(150_000);
  deepStrictEqual(await verifyNow("4", nonce), { ok: false, reason: "proof_nonce_wrong" });
  strictEqual((await verifyNow("5", next)).ok, true);
});

Deno.test("RFC 9449 §8: a nonce that is over stays over, also when the wall clock jumps back", async () => {
  const { proofs, clock } = openProofs();
  const nonce = proofs.nonce();
  clock.advance(300_000);
  clock.jumpWall(-300_000);
  deepStrictEqual(await verify(claim({ nonce }), proofs), { ok: false, reason: "proof_nonce_wrong" });
});

refused(
  "RFC 9449 §4.3, 11: a proof for another token, or for none, is refused beside a token",
  "proof_token_wrong",
  {
    "missing": forge(HEADER, without(CLAIMS, "ath")),
    "of another token": claim({ ath: hash("sha256", `${TOKEN}A`, "base64url") }),
    "the token itself": claim({ ath: TOKEN }),
    "in hex": claim({ ath: hash("sha256", TOKEN, "hex") }),
    "in base64": claim({ ath: hash("sha256", TOKEN, "base64") }),
    "padded": claim({ ath: `${ATH}=` }),
    "trailing bits": claim({ ath: loose(ATH) }),
    "cut": claim({ ath: ATH.slice(0, -1) }),
    "empty": claim({ ath: "" }),
    "null": claim({ ath: null }),
    "array": claim({ ath: [ATH] }),
    "true": claim({ ath: true }),
  },
);

Deno.test("at the token endpoint a proof has no ath: one that was made for a token is refused", async () => {
  const { proofs } = openProofs();
  const nonce = proofs.nonce();
  for (const ath of [ATH, "", null, hash("sha256", "", "base64url")]) {
    deepStrictEqual(await proofs.verify(claim({ nonce, ath }), REQUEST, undefined), {
      ok: false,
      reason: "proof_token_wrong",
    });
  }
  const proof = forge(HEADER, { ...without(CLAIMS, "ath"), nonce });
  strictEqual((await proofs.verify(proof, REQUEST, undefined)).ok, true);
});

Deno.test("an API key is a token like another: its hash is the proof's ath", async () => {
  const { proofs } = openProofs();
  const apiKey = "pck_0123456789abcdef";
  const proof = claim({ nonce: proofs.nonce(), ath: hash("sha256", apiKey, "base64url") });
  deepStrictEqual(await verify(proof, proofs), { ok: false, reason: "proof_token_wrong" });
  strictEqual((await verify(proof, proofs, apiKey)).ok, true);
});

Deno.test("RFC 9449 §11.1: a proof is accepted once, also of ten at the same moment, and also under another signature", async () => {
  const { proofs, clock } = openProofs();
  const claims = { ...CLAIMS, nonce: proofs.nonce() };
  const proof = forge(HEADER, claims);
  const outcomes = await Promise.all(Array.from({ length: 10 }, () => verify(proof, proofs)));
  strictEqual(outcomes.filter((outcome) => outcome.ok).length, 1);
  const replayed = { ok: false, reason: "proof_replayed" };
  deepStrictEqual(await verify(forge(HEADER, claims), proofs), replayed);
  deepStrictEqual(await verify(forge(HEADER, { ...claims, iat: NOW_SECONDS - 1 }), proofs), replayed);
  deepStrictEqual(await verify(forge({ ...HEADER, typ: "DPoP+JWT" }, claims), proofs), replayed);
  // ECDSA has a second signature for each: n - s.
  deepStrictEqual(await verify(twinOf(proof), proofs), replayed);
  clock.advance(60_000);
  deepStrictEqual(await verify(proof, proofs), replayed);
  clock.advance(1);
  deepStrictEqual(await verify(proof, proofs), { ok: false, reason: "proof_time_wrong" });
});

/** The proof with s replaced by n - s, which verifies as well (SEC 1 §4.1.4). */
function twinOf(proof: string): string {
  const [first = "", second = "", third = ""] = proof.split(".");
  const bytes = Uint8Array.fromBase64(third, { alphabet: "base64url" });
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
  const s = order - BigInt(`0x${bytes.slice(32).toHex()}`);
  bytes.set(Uint8Array.fromHex(s.toString(16).padStart(64, "0")), 32);
  return `${first}.${second}.${encodePart(bytes)}`;
}

Deno.test("the same jti under another key is another proof", async () => {
  const { proofs } = openProofs();
  const claims = { ...CLAIMS, nonce: proofs.nonce() };
  strictEqual((await verify(forge(HEADER, claims), proofs)).ok, true);
  const other = forge({ ...HEADER, jwk: stranger.publicJwk }, claims, stranger.signer);
  deepStrictEqual(await verify(other, proofs), { ok: true, value: await keyIdOf(stranger.publicJwk) });
  strictEqual((await verify(other, proofs)).ok, false);
});

Deno.test("only genuine proofs take memory; when it is full, the next is Fault overloaded and not accepted", async () => {
  const { proofs } = openProofs({ entriesMax: 1 });
  const nonce = proofs.nonce();
  for (
    const bad of [
      claim({ nonce: "n" }),
      claim({ nonce, ath: "a" }),
      claim({ nonce, htm: "GET" }),
      `${head}.${payload}.`,
    ]
  ) {
    strictEqual((await verify(bad, proofs)).ok, false);
  }
  strictEqual((await verify(claim({ nonce }), proofs)).ok, true);
  await rejects(
    verify(claim({ nonce, jti: "jti-2" }), proofs),
    (thrown) => thrown instanceof Fault && thrown.kind === "overloaded",
  );
  deepStrictEqual(await verify(claim({ nonce }), proofs), { ok: false, reason: "proof_replayed" });
});

Deno.test("a replay store that is not asked at once is waited for", async () => {
  const clock = manualClock(NOW_SECONDS * 1000);
  const asked: [string, number][] = [];
  const proofs = openDpopProofs({
    publicUrl: PUBLIC_URL,
    clock,
    replays: { firstUse: (id, expiresAtMs) => Promise.resolve(asked.push([id, expiresAtMs]) > 1) },
    nonceKey: undefined,
  });
  deepStrictEqual(await verify(claim({ nonce: proofs.nonce() }), proofs), {
    ok: false,
    reason: "proof_replayed",
  });
  // Until the first moment at which its iat is too old; under a name that holds nothing of a stranger's.
  deepStrictEqual(asked.map(([id, expiresAtMs]) => [id.length, expiresAtMs]), [[
    44,
    (NOW_SECONDS + 60) * 1000 + 1,
  ]]);
});

Deno.test("RFC 7519 §4: claims that are not ours to know are ignored", async () => {
  const { proofs } = openProofs();
  const proof = claim({ nonce: proofs.nonce(), iss: "x", exp: 1, nbf: 9e9, aud: [], admin: true });
  strictEqual((await verify(proof, proofs)).ok, true);
});

Deno.test("RFC 7515 §4.1.9: the type is dpop+jwt in any case", async () => {
  const { proofs } = openProofs();
  const proof = forge({ ...HEADER, typ: "DPoP+JWT" }, { ...CLAIMS, nonce: proofs.nonce() });
  strictEqual((await verify(proof, proofs)).ok, true);
});

// RFC 9449 §4.1 (token request) and §7.1 (resource request): the standard's own proofs. They hold no nonce.
const RFC_HEAD =
  "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR" +
  "nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19";
const RFC_PROOFS = [
  {
    proof:
      `${RFC_HEAD}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0Ijox` +
      "NTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg",
    publicUrl: "https://server.example.com",
    request: { method: "POST", path: "/token" },
    iat: 1_562_262_616,
    token: undefined,
  },
  {
    proof:
      `${RFC_HEAD}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNv` +
      "dXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9" +
      ".2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA",
    publicUrl: "https://resource.example.org",
    request: { method: "GET", path: "/protectedresource" },
    iat: 1_562_262_618,
    token: "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
  },
];

Deno.test("RFC 9449 §4.1, §7.1: the standard's own proofs pass every check up to the nonce that they lack", async () => {
  for (const { proof, publicUrl, request, iat, token } of RFC_PROOFS) {
    const jws = parseJws(proof);
    ok(jws.ok);
    const jwk = jws.value.header.jwk as UntrustedObject;
    const imported = await importPublicKey(jwk, "ES256");
    ok(imported.ok);
    strictEqual(await verifyJws(jws.value, imported.value, "ES256"), true);
    strictEqual(await keyIdOf(jwk), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"); // §6.1
    if (token !== undefined) strictEqual(jws.value.claims.ath, hash("sha256", token, "base64url"));
    const clock = manualClock(iat * 1000);
    const proofs = openDpopProofs({
      publicUrl,
      clock,
      replays: openMemoryReplayStore(clock),
      nonceKey: undefined,
    });
    const reasonAt = async (text: string) => {
      const outcome = await proofs.verify(text, request, token);
      return outcome.ok ? "accepted" : outcome.reason;
    };
    strictEqual(await reasonAt(proof), "proof_nonce_missing");
    strictEqual(await reasonAt(loose(proof)), "proof_malformed");
    strictEqual(await reasonAt(`${proof.slice(0, -4)}AAAA`), "proof_signature_wrong");
    clock.advance(61_000);
    strictEqual(await reasonAt(proof), "proof_time_wrong");
  }
});

/** A server with one resource, which real clients are led to by their own custom fetch. */
function dpopServer() {
  const proofs = openDpopProofs({
    publicUrl: PUBLIC_URL,
    clock: systemClock,
    replays: openMemoryReplayStore(systemClock),
    nonceKey: undefined,
  });
  const outcomes: string[] = [];
  const fetched = async (url: string, init: { method?: string; headers?: HeadersInit | undefined }) => {
    const headers = new Headers(init.headers);
    const token = headers.get("authorization")?.replace(/^DPoP /, "");
    const { pathname: path } = new URL(url);
    const outcome = await proofs.verify(
      headers.get("dpop") ?? "",
      { method: init.method ?? "", path },
      token,
    );
    outcomes.push(outcome.ok ? outcome.value : outcome.reason);
    return new Response("{}", {
      status: outcome.ok ? 200 : 401,
      headers: {
        "DPoP-Nonce": proofs.nonce(),
        ...(outcome.ok ? {} : { "WWW-Authenticate": 'DPoP error="use_dpop_nonce"' }),
      },
    });
  };
  return { outcomes, fetched };
}

for (const algorithm of ["ES256", "PS256"] as const) {
  Deno.test(`oauth4webapi's ${algorithm} proofs are accepted once it has a nonce, for a URL with a query as well`, async () => {
    const { outcomes, fetched } = dpopServer();
    const pair = await oauth.generateKeyPair(algorithm, { modulusLength: 3072 });
    const DPoP = oauth.DPoP({}, pair);
    const request = (path: string) =>
      oauth.protectedResourceRequest(TOKEN, "GET", new URL(path, PUBLIC_URL), undefined, undefined, {
        DPoP,
        [oauth.customFetch]: fetched,
      });
    await rejects(request("/v1/models"), (thrown) => oauth.isDPoPNonceError(thrown));
    strictEqual((await request("/v1/models")).status, 200);
    strictEqual((await request("/v1/models/org%2Fname?limit=1#top")).status, 200);
    const keyId = await DPoP.calculateThumbprint();
    deepStrictEqual(outcomes, ["proof_nonce_missing", keyId, keyId]);
  });
}

for (const algorithm of ["ES384", "Ed25519"] as const) {
  Deno.test(`openid-client's ${algorithm} proofs are accepted, after it asked again by itself`, async () => {
    const { outcomes, fetched } = dpopServer();
    const configuration = new openid.Configuration({ issuer: PUBLIC_URL }, "cli_1");
    configuration[openid.customFetch] = fetched;
    const pair = await openid.randomDPoPKeyPair(algorithm);
    const handle = openid.getDPoPHandle(configuration, pair);
    const url = new URL("/v1/chat/completions", PUBLIC_URL);
    const answer = await openid.fetchProtectedResource(configuration, TOKEN, url, "POST", "{}", undefined, {
      DPoP: handle,
    });
    strictEqual(answer.status, 200);
    deepStrictEqual(outcomes, ["proof_nonce_missing", await handle.calculateThumbprint()]);
  });
}

Deno.test("property: a proof with any one character altered, left out or put in is refused, and nothing throws", async () => {
  const proof = claim({ jti: "mutated" });
  const characters = fc.constantFrom(
    ..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\u0000é",
  );
  const mutation = fc.record({
    at: fc.nat(proof.length - 1),
    leave: fc.nat(1),
    put: fc.oneof(characters, fc.constant("")),
  });
  await fc.assert(
    fc.asyncProperty(mutation, async ({ at, leave, put }) => {
      const mutated = proof.slice(0, at) + put + proof.slice(at + leave);
      if (mutated === proof) return;
      strictEqual((await verify(mutated)).ok, false, mutated);
    }),
    { numRuns: 500 },
  );
});

Deno.test("property: nothing but a right proof is accepted, whatever is signed, and nothing throws", async () => {
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(...Object.values(CLAIMS), key.publicJwk),
  );
  const text = fc.oneof(
    fc.string(),
    fc.tuple(fc.jsonValue(), fc.jsonValue()).map(([one, two]) =>
      forge(JSON.stringify(one), JSON.stringify(two))
    ),
    fc.tuple(fc.constantFrom("typ", "alg", "jwk", "kid", "crit"), value).map(([name, member]) =>
      header({ [name]: member })
    ),
    fc.tuple(fc.constantFrom(...Object.keys(CLAIMS)), value).map(([name, member]) =>
      claim({ [name]: member })
    ),
  );
  await fc.assert(
    fc.asyncProperty(text, async (proof) => {
      const outcome = await verify(proof);
      if (!outcome.ok) return;
      // By chance a well signed member may be a good one; all others are then as they were.
      strictEqual(outcome.value, await keyIdOf(key.publicJwk));
      ok(proof.startsWith(`${head}.`));
      deepStrictEqual({ ...parsedClaims(proof), jti: "" }, { ...CLAIMS, jti: "" });
    }),
    { numRuns: 300 },
  );
});

function parsedClaims(proof: string): UntrustedObject {
  const jws = parseJws(proof);
  return jws.ok ? jws.value.claims : {};
}

/** Instances that share a key of nonces and a store; the clock of each is so much ahead. */
function openInstances(aheadMs: readonly number[], startMs = NOW_SECONDS * 1000) {
  const clocks = aheadMs.map((ms) => manualClock(startMs + ms));
  const store = openMemoryRecordStore(clocks[0] ?? manualClock(startMs));
  const nonceKey = crypto.getRandomValues(new Uint8Array(32));
  const proofs = clocks.map((clock) =>
    openDpopProofs({ publicUrl: PUBLIC_URL, clock, replays: openStoredReplayStore(store), nonceKey })
  );
  return { clocks, proofs };
}

Deno.test("RFC 9449 §8: a nonce of one instance passes at another, and after a restart, where they share its key", async () => {
  const { clocks: [clock, elsewhere], proofs: [one, other] } = openInstances([0, 0]);
  ok(clock && elsewhere && one && other);
  elsewhere.advance(0);
  strictEqual(other.nonce(), one.nonce());
  strictEqual((await verify(claim({ nonce: one.nonce() }), other)).ok, true);
  const stranger = openInstances([0]).proofs[0];
  deepStrictEqual(await verify(claim({ jti: "jti-2", nonce: stranger?.nonce() }), one), {
    ok: false,
    reason: "proof_nonce_wrong",
  });
});

Deno.test("RFC 9449 §8: a shared nonce passes in its window of wall time and the next, and no longer", async () => {
  // The start of a window.
  const startMs = Math.ceil(NOW_SECONDS * 1000 / 150_000) * 150_000;
  const { clocks: [clock], proofs: [proofs] } = openInstances([0], startMs);
  ok(clock && proofs);
  const nonce = proofs.nonce();
  const verdict = async (jti: string): Promise<string> => {
    const outcome = await verify(claim({ jti, nonce, iat: Math.floor(clock.now() / 1000) }), proofs);
    return outcome.ok ? "ok" : outcome.reason;
  };
  clock.advance(149_999);
  deepStrictEqual([proofs.nonce(), await verdict("1")], [nonce, "ok"]);
  clock.advance(1);
  ok(proofs.nonce() !== nonce);
  strictEqual(await verdict("2"), "ok");
  clock.advance(149_999);
  strictEqual(await verdict("3"), "ok");
  clock.advance(1);
  strictEqual(await verdict("4"), "proof_nonce_wrong");
});

Deno.test("an instance whose clock is up to 5 s behind takes the nonces of the others, and none of later windows", async () => {
  const startMs = Math.ceil(NOW_SECONDS * 1000 / 150_000) * 150_000;
  for (const [behindMs, passes] of [[1, true], [5000, true], [5001, false]] as const) {
    const { proofs: [ahead, behind] } = openInstances([0, -behindMs], startMs);
    ok(ahead && behind);
    ok(ahead.nonce() !== behind.nonce());
    const iat = Math.floor((startMs - behindMs) / 1000);
    strictEqual((await verify(claim({ iat, nonce: ahead.nonce() }), behind)).ok, passes, `${behindMs} ms`);
  }
});

Deno.test("RFC 9449 §11.1: a proof that one instance took is no proof at another, as long as any of their clocks takes it", async () => {
  const { clocks: [clock, slow], proofs: [one, other] } = openInstances([0, -5000]);
  ok(clock && slow && one && other);
  const nonce = one.nonce();
  const proof = claim({ nonce });
  strictEqual((await verify(proof, one)).ok, true);
  deepStrictEqual(await verify(proof, other), { ok: false, reason: "proof_replayed" });
  // By one clock it has expired, by the other it has not.
  for (const each of [clock, slow]) each.advance(60_001);
  deepStrictEqual(await verify(proof, one), { ok: false, reason: "proof_time_wrong" });
  deepStrictEqual(await verify(proof, other), { ok: false, reason: "proof_replayed" });
});
