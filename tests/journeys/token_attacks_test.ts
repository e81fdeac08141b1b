// Token attacks: what strangers send instead of a credential, against the real server: each one is refused, none of it is kept.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { createPublicKey, hash } from "node:crypto";
import { generateSigningKey } from "../../src/identity/signing_keys.ts";
import { makeForeignKey } from "../identity/foreign_key.ts";
import {
  ed25519Signer,
  encodePart,
  forgeToken,
  hmacSigner,
  type TokenPart,
} from "../identity/forge_token.ts";
import { rawRequest, startServerUnderTest } from "../support/server_under_test.ts";
import {
  type Answer,
  type Call,
  callsOf,
  expectStatus,
  requireIntactTrail,
  requireNowhere,
  signIn,
  trailOf,
} from "./api_calls.ts";

type Part = Readonly<Record<string, unknown>>;

const PASSWORD = "seven green bicycles by the lake";
const NEVER = () => new Uint8Array();

Deno.test("no forged, borrowed or mangled credential gets past the real server, nor is anything of it kept", async (test) => {
  const dataDir = await Deno.makeTempDir();
  const signingKey = await generateSigningKey();
  const server = await startServerUnderTest({
    dataDir,
    variables: {
      PORTCULLIS_SIGNING_KEY: signingKey.trim(),
      PORTCULLIS_RATE_TOKEN_PER_MINUTE: "1000000",
    },
  });
  // Where a token points to its own keys: nobody must come.
  let visits = 0;
  const evil = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    visits++;
    return new Response("{}");
  });
  const evilUrl = `http://127.0.0.1:${evil.addr.port}`;
  const sent = new Set<string>();
  /** To be looked for in log and trail: the parts of a credential that are nobody else's. */
  const remember = (credential: string): string => {
    for (const part of credential.split(/[.\s"]+/)) {
      // Ids are no secrets: they stand everywhere.
      if (part.length >= 20 && !/^[a-z]{3}_[0-9a-z]{26}$/.test(part)) sent.add(part.slice(0, 2000));
    }
    return credential;
  };
  try {
    const { issuer, sub, kid, claims, header, signer, admin, uma } = await prepare();
    const good = (changes: Part = {}): Part => ({ ...claims(), ...changes });
    /** Our own signature under hostile words: what is refused is refused for its words. */
    const signed = (changedHeader: Part, changedClaims: Part = {}): string =>
      forgeToken({ ...header, ...changedHeader }, good(changedClaims), signer);
    const withPayload = (payload: TokenPart): string => forgeToken(header, payload, signer);
    const without = (name: string): string =>
      withPayload(Object.fromEntries(Object.entries(good()).filter(([each]) => each !== name)));
    const control = signed({});
    const nowSeconds = Math.floor(Date.now() / 1000);

    await test.step("the control: a token made like the forged ones, and right in all, is accepted", async () => {
      for (
        const each of [control, signed({ typ: "application/at+jwt" }), signed({}, { aud: [issuer, "b"] })]
      ) {
        await expectStatus(callsOf(server, remember(each))("GET", "/v1/models"), 200);
      }
    });

    const stranger = makeForeignKey("EdDSA");
    const { keys: [jwk] } = await expectStatus(callsOf(server)("GET", "/.well-known/jwks.json"), 200);
    const jwks = (await callsOf(server)("GET", "/.well-known/jwks.json")).text;
    const publicKey = createPublicKey(signingKey);
    const spki = publicKey.export({ type: "spki", format: "der" });
    const publicPem = String(publicKey.export({ type: "spki", format: "pem" }));
    const rawPublic = Uint8Array.fromBase64(jwk.x, { alphabet: "base64url" });
    const [controlHeader = "", controlClaims = "", controlSignature = ""] = control.split(".");

    const hmacKeys: Record<string, string | Uint8Array> = {
      "raw bytes": rawPublic,
      "base64url": jwk.x,
      "base64": rawPublic.toBase64(),
      "hex": rawPublic.toHex(),
      "the JWK": JSON.stringify(jwk),
      "the JWK in short": JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x }),
      "the key set as it is served": jwks,
      "SPKI in DER": spki,
      "SPKI in base64": spki.toString("base64"),
      "PEM": publicPem,
      "PEM without the last line's end": publicPem.trimEnd(),
      "PEM with CRLF": publicPem.replaceAll("\n", "\r\n"),
      "nothing": "",
      "the key's id": kid,
    };
    const tokens: Record<string, string> = {
      // RFC 8725 §2.1, §3.1: algorithms.
      ...Object.fromEntries(["none", "None", "NONE", "nOnE", ""].flatMap((alg) => [
        [`alg "${alg}" without a signature`, forgeToken({ ...header, alg }, good(), NEVER)],
        [`alg "${alg}" with our signature`, signed({ alg })],
      ])),
      ...Object.fromEntries(
        Object.entries(hmacKeys).flatMap(([encoding, key]) =>
          ["HS256", "EdDSA"].map((alg) => [
            `${alg} with our public key as the secret: ${encoding}`,
            forgeToken({ ...header, alg }, good(), hmacSigner(key)),
          ])
        ),
      ),
      ...Object.fromEntries(
        ["Ed25519", "ES256", "RS256", "PS256", "HS512", "eddsa", "EdDSA ", "Ed448", "EdDSA\0"].map((alg) => [
          `another alg over our signature: ${JSON.stringify(alg)}`,
          signed({ alg }),
        ]),
      ),
      "alg that is no text": signed({ alg: ["EdDSA"] }),
      "no alg": forgeToken({ typ: "at+jwt", kid }, good(), signer),
      // RFC 8725 §3.10: keys that a token brings.
      "a stranger's key": forgeToken(header, good(), stranger.signer),
      "a stranger's key in jwk": forgeToken({ ...header, jwk: stranger.publicJwk }, good(), stranger.signer),
      "a stranger's key in jwk, without kid": forgeToken(
        { alg: "EdDSA", typ: "at+jwt", jwk: stranger.publicJwk },
        good(),
        stranger.signer,
      ),
      "our own key in jwk": signed({ jwk }),
      ...Object.fromEntries(
        ["jku", "x5u"].map((name) => [
          `${name} to a server of a stranger's`,
          forgeToken({ ...header, [name]: `${evilUrl}/jwks.json` }, good(), stranger.signer),
        ]),
      ),
      "jku to our own key set": signed({ jku: `${issuer}/.well-known/jwks.json` }),
      "x5c": signed({ x5c: [spki.toString("base64")] }),
      ...Object.fromEntries(
        [
          "../../../../../../dev/null",
          "' OR '1'='1",
          "",
          "constructor",
          "__proto__",
          "\0",
          `${kid} `,
          kid.toUpperCase(),
          [kid],
          { kid },
          1,
          null,
        ]
          .map((other) => [`kid ${JSON.stringify(other)}`, signed({ kid: other })]),
      ),
      "no kid": forgeToken({ alg: "EdDSA", typ: "at+jwt" }, good(), signer),
      // RFC 7515 §4.1.11, RFC 7797 §6, RFC 7516: rules that a token brings.
      "crit, empty": signed({ crit: [] }),
      "crit with a known name": signed({ crit: ["exp"] }),
      "crit with b64": signed({ crit: ["b64"], b64: false }),
      "b64 without crit": signed({ b64: false }),
      "zip": signed({ zip: "DEF" }),
      "enc": signed({ enc: "A256GCM" }),
      "cty, nested": signed({ cty: "JWT" }),
      "a header that nobody knows": signed({ "x-admin": true }),
      // RFC 8725 §3.11: other kinds of JWT, all of them signed by us.
      ...Object.fromEntries(
        [
          "JWT",
          "jwt",
          "id_token",
          "dpop+jwt",
          "logout+jwt",
          "secevent+jwt",
          "rt+jwt",
          "at+jwt ",
          ["at+jwt"],
          1,
          null,
          "",
        ]
          .map((typ) => [`typ ${JSON.stringify(typ)}`, signed({ typ })]),
      ),
      "no typ": forgeToken({ alg: "EdDSA", kid }, good(), signer),
      "an ID token": signed({ typ: "JWT" }, { nonce: "n", at_hash: "h", auth_time: nowSeconds }),
      // RFC 7519 §4, RFC 8725 §2.4: members twice.
      "sub twice": withPayload(JSON.stringify(good()).replace("{", '{"sub":"usr_other",')),
      "sub twice, the second spelled with an escape": withPayload(
        JSON.stringify(good()).replace(/}$/, `,"su\\u0062":"${admin.id}"}`),
      ),
      "exp twice": withPayload(JSON.stringify(good()).replace(/}$/, `,"exp":${nowSeconds + 60}}`)),
      "alg twice": forgeToken(JSON.stringify(header).replace("{", '{"alg":"none",'), good(), signer),
      "__proto__": withPayload(JSON.stringify(good()).replace("{", '{"__proto__":{"sub":"x"},')),
      // ASVS V15.3.5: types and bounds of claims.
      ...Object.fromEntries(
        ["iss", "aud", "sub", "jti", "client_id", "iat", "exp"].map((name) => [`no ${name}`, without(name)]),
      ),
      ...Object.fromEntries(([
        ["sub", [1, "", [sub], { id: sub }, null, true, "usr_", `${sub} `, `${sub}\n`, "admin", "ümlaut"]],
        ["iss", [[issuer], `${issuer}/`, issuer.toUpperCase(), `${issuer}.evil.example`, "", null]],
        ["aud", [[], "", `${issuer}/`, ["b"], [[issuer]], { aud: issuer }, issuer.toUpperCase(), 1, true]],
        ["jti", [1, "", null, ["x"], "x".repeat(300)]],
        ["client_id", [1, "", null, ["x"]]],
        ["sid", [1, "", null, ["x"]]],
        ["exp", [
          "9999999999",
          nowSeconds,
          nowSeconds - 1,
          0,
          -1,
          nowSeconds + 100.5,
          nowSeconds + 3700,
          nowSeconds + 10 * 365 * 86_400,
          8_640_000_000_001,
          null,
          true,
          [nowSeconds + 60],
        ]],
        ["iat", ["1", null, -1, 1.5, nowSeconds + 3600, true, 0]],
        ["nbf", ["1", null, -1, 1.5, nowSeconds + 3600, true]],
        ["scope", [1, [], ["model:read"], "", " ", "model:read ", "openid", "model:read  model:infer", null]],
        ["cnf", [
          null,
          "x",
          [],
          {},
          { jkt: 1 },
          { jkt: "short" },
          { kid: "x" },
          { jwk: stranger.publicJwk },
          { "x5t#S256": hash("sha256", "x", "base64url") },
          { jkt: hash("sha256", "x", "base64url"), kid: "x" },
        ]],
      ] as const).flatMap(([name, values]) =>
        values.map((
          value,
        ) => [`${name} ${JSON.stringify(value)?.slice(0, 60)}`, signed({}, { [name]: value })])
      )),
      "exp 1e999": withPayload(JSON.stringify(good({ exp: 1 })).replace('"exp":1', '"exp":1e999')),
      "exp beyond exact numbers": withPayload(
        JSON.stringify(good({ exp: 1 })).replace('"exp":1', '"exp":9007199254740993'),
      ),
      "a subject that is deleted": signed({}, { sub: "usr_00000000000000000000000000" }),
      "a session that is over": signed({}, { sid: uma.endedSession }),
      "a token bound to a key, without a proof": signed({}, {
        cnf: { jkt: hash("sha256", "somebody's key", "base64url") },
      }),
      // Forms of JSON and of the compact serialization.
      ...Object.fromEntries(
        [
          "[]",
          '"text"',
          "1",
          "null",
          "",
          "{",
          "{}x",
          "\ufeff{}",
          `${"[".repeat(2000)}${"]".repeat(2000)}`,
          '{"sub":"\ud800"}',
        ].map((payload) => [`claims ${JSON.stringify(payload).slice(0, 20)}`, withPayload(payload)]),
      ),
      "claims in broken UTF-8": withPayload(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])),
      "claims in UTF-16": withPayload(
        new Uint8Array([...JSON.stringify(good())].flatMap((character) => [character.charCodeAt(0), 0])),
      ),
      "a header that is no object": forgeToken("[]", good(), signer),
      "claims within claims": withPayload(JSON.stringify({ vc: good() })),
      "a token within a token": forgeToken(header, control, signer),
      "a byte order mark before the claims": withPayload(`\ufeff${JSON.stringify(good())}`),
      "two segments": `${controlHeader}.${controlClaims}`,
      "no signature": `${controlHeader}.${controlClaims}.`,
      "four segments": `${control}.${controlSignature}`,
      "five segments, as if encrypted": `${control}..${controlSignature}`,
      "nothing but dots": "...",
      "no claims": `${controlHeader}..${controlSignature}`,
      "the segments in another order": `${controlClaims}.${controlHeader}.${controlSignature}`,
      "one bit of the signature": `${controlHeader}.${controlClaims}.${flipFirst(controlSignature)}`,
      "half a signature": `${controlHeader}.${controlClaims}.${controlSignature.slice(0, 43)}`,
      "a signature of zeros": forgeToken(header, good(), () => new Uint8Array(64)),
      "the signature with its twin scalar (RFC 8032 §5.1.7)": `${controlHeader}.${controlClaims}.${
        encodePart(withTwinScalar(Uint8Array.fromBase64(controlSignature, { alphabet: "base64url" })))
      }`,
      "the signature of another token": `${controlHeader}.${
        encodePart(good({ jti: "other" }))
      }.${controlSignature}`,
      // RFC 4648 §3.5, RFC 7515 §2: second texts of the same bytes.
      "padding": `${control}==`,
      "a last character with other spare bits": `${control.slice(0, -1)}${nextSpare(control.slice(-1))}`,
      "the other alphabet of base64": `${controlHeader}.${controlClaims}.${otherAlphabet(controlSignature)}`,
      "a claims segment with its padding": `${controlHeader}.${controlClaims}=.${controlSignature}`,
      // Other credentials of ours, and what is none.
      "a refresh token": uma.refreshToken,
      "a client's secret": uma.clientSecret,
      "a password": PASSWORD.replaceAll(" ", "-"),
      "a session's id": uma.endedSession,
      "a user's id": sub,
      "a proof of possession": forgeToken(
        { typ: "dpop+jwt", alg: "EdDSA", jwk: stranger.publicJwk },
        { jti: "1", htm: "GET", htu: `${issuer}/v1/models`, iat: nowSeconds },
        stranger.signer,
      ),
      "a client's assertion": forgeToken(
        { alg: "EdDSA" },
        { iss: uma.clientId, sub: uma.clientId, aud: issuer, jti: "1", exp: nowSeconds + 60 },
        stranger.signer,
      ),
      "a client's assertion under our own key": signed({ typ: "client-authentication+jwt" }, {
        iss: uma.clientId,
        sub: uma.clientId,
      }),
      // API keys.
      "a key with a wrong secret": `${uma.apiKey.slice(0, -1)}${nextSpare(uma.apiKey.slice(-1))}`,
      "a key with another key's secret": `${uma.apiKey.slice(0, 30)}${uma.otherKey.slice(30)}`,
      "a key cut short": uma.apiKey.slice(0, -1),
      "a key and more": `${uma.apiKey}a`,
      "a key in capitals": uma.apiKey.toUpperCase(),
      "a key's secret in capitals": `${uma.apiKey.slice(0, 31)}${uma.apiKey.slice(31).toUpperCase()}`,
      "a key without its secret": uma.apiKey.slice(0, 30),
      "a key's prefix": "pck_",
      "a key's secret alone": uma.apiKey.slice(31),
      "a key as base64": btoa(uma.apiKey),
      "a key whose id is none": `pck_${"0".repeat(26)}_${uma.apiKey.slice(31)}`,
      "a key with the letters that look alike": uma.apiKey.replace(/^pck_0/, "pck_o"),
      "a key that was deleted": uma.deletedKey,
      // Length.
      "9,000 characters": `${controlHeader}.${"e".repeat(9000)}.${controlSignature}`,
      "a scope without end": signed({}, { scope: "model:read ".repeat(400).trim() }),
    };

    await test.step(`${Object.keys(tokens).length} tokens are refused with 401 at every kind of door, and the challenge of RFC 6750`, async () => {
      const doors: readonly ((token: string) => Promise<Answer>)[] = [
        (token) => callsOf(server, `Bearer ${token}`)("GET", "/v1/models"),
        (token) =>
          callsOf(server, `bearer ${token}`)("POST", "/v1/embeddings", { model: "use-lite", input: "a" }),
        (token) => callsOf(server, `Bearer ${token}`)("GET", "/v1/keys"),
        (token) => callsOf(server, `Bearer ${token}`)("GET", "/v2/models/use-lite"),
        (token) => callsOf(server)("POST", "/v1/messages", {}, { "x-api-key": token }),
      ];
      for (const [name, token] of Object.entries(tokens)) {
        remember(token);
        for (const ask of doors) requireRefused(name, await ask(token), "Bearer", "invalid_token");
      }
      strictEqual(visits, 0);
    });

    await test.step("introspection finds none of them worth anything", async () => {
      const asker: Call = callsOf(server, `Basic ${btoa(`${uma.clientId}:${uma.clientSecret}`)}`);
      // Good for another end; and signed by us, for whoever holds the key.
      const { "a refresh token": _, "a token bound to a key, without a proof": __, ...worthless } = tokens;
      for (const [name, token] of Object.entries(worthless)) {
        const answer = await asker("POST", "/oauth2/introspect", new URLSearchParams({ token }).toString());
        deepStrictEqual([answer.status, answer.body], [200, { active: false }], name);
      }
    });

    await test.step("schemes that are none, and tokens in other places", async () => {
      const token = control;
      const placed: Record<string, readonly [number, ...Parameters<Call>]> = {
        "Basic with the token as the name": [401, "GET", "/v1/models", undefined, {
          authorization: `Basic ${btoa(`${token}:`)}`,
        }],
        "Token": [401, "GET", "/v1/models", undefined, { authorization: `Token ${token}` }],
        "no scheme": [401, "GET", "/v1/models", undefined, { authorization: token }],
        "a scheme twice": [401, "GET", "/v1/models", undefined, { authorization: `Bearer Bearer ${token}` }],
        "two tokens in one field": [401, "GET", "/v1/models", undefined, {
          authorization: `Bearer ${token}, Bearer ${token}`,
        }],
        "a parameter behind it": [401, "GET", "/v1/models", undefined, {
          authorization: `Bearer ${token} realm=x`,
        }],
        "quotes": [401, "GET", "/v1/models", undefined, { authorization: `Bearer "${token}"` }],
        "a cookie": [401, "GET", "/v1/models", undefined, { cookie: `access_token=${token}` }],
        "Proxy-Authorization": [401, "GET", "/v1/models", undefined, {
          "proxy-authorization": `Bearer ${token}`,
        }],
        "X-Access-Token": [401, "GET", "/v1/models", undefined, { "x-access-token": token }],
        "X-API-Key at another dialect's door": [401, "GET", "/v1/models", undefined, { "x-api-key": token }],
        // RFC 6750 §2.3 and §2.2: not here.
        "the query": [400, "GET", `/v1/models?access_token=${token}`],
        "the query, beside a good one": [400, "GET", `/v1/models?access_token=${token}`, undefined, {
          authorization: `Bearer ${token}`,
        }],
        "the query of a list": [401, "GET", `/v1/keys?limit=1`],
        "an unknown parameter of a list": [400, "GET", `/v1/keys?access_token=${token}`],
        "a form": [415, "POST", "/v1/embeddings", `access_token=${token}&model=use-lite&input=a`],
        "the body": [401, "POST", "/v1/embeddings", { access_token: token, model: "use-lite", input: "a" }],
        "a form at the token endpoint": [
          401,
          "POST",
          "/oauth2/token",
          `grant_type=client_credentials&access_token=${token}`,
        ],
      };
      for (const [name, [status, ...request]] of Object.entries(placed)) {
        const answer = await callsOf(server)(...request);
        strictEqual(answer.status, status, `${name}: ${answer.text}`);
        ok(!answer.text.includes(token.slice(0, 40)), name);
        if (status === 401) ok(answer.headers.get("www-authenticate")?.includes('realm="portcullis"'), name);
      }
      // RFC 6750 §3.1: no error code where no credential was sent.
      const nothing = await callsOf(server)("GET", "/v1/models");
      ok(!nothing.headers.get("www-authenticate")?.includes("error="));
    });

    await test.step("what only a raw socket can send", async () => {
      const host = `Host: 127.0.0.1:${server.port}`;
      const send = async (fields: string): Promise<string> => {
        const answer = await rawRequest(
          server.port,
          `GET /v1/models HTTP/1.1\r\n${host}\r\n${fields}\r\nConnection: close\r\n\r\n`,
        );
        ok(!answer.includes(controlSignature), "the answer repeats the token");
        return /^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? answer.slice(0, 100);
      };
      const bearer = `Authorization: Bearer ${control}`;
      deepStrictEqual(await send(bearer), "200");
      const long = `${controlHeader}.${"Q".repeat(100_000)}.${controlSignature}`;
      for (
        const [name, fields, expected] of [
          ["two fields, a good one first", `${bearer}\r\nAuthorization: Bearer x`, "401"],
          ["two fields, a good one last", `Authorization: Bearer x\r\n${bearer}`, "401"],
          ["the same one twice", `${bearer}\r\n${bearer}`, "401"],
          ["two fields of two schemes", `${bearer}\r\nAuthorization: Basic eDp5`, "401"],
          ["an empty field and a good one", `Authorization:\r\n${bearer}`, "401"],
          ["a tab behind the scheme", `Authorization: Bearer\t${control}`, "401"],
          ["nothing behind the scheme", "Authorization: Bearer", "401"],
          ["an empty field", "Authorization:", "401"],
          ["100 kB", `Authorization: Bearer ${long}`, "431"],
          ["NUL behind the token", `${bearer}\0`, "400"],
          ["NUL within the token", `Authorization: Bearer ${controlHeader}\0.${controlClaims}.x`, "400"],
          ["a line feed within", `Authorization: Bearer ${controlHeader}\n.${controlClaims}`, "400"],
          ["a folded field", `Authorization: Bearer\r\n ${control}`, "400"],
          ["a space before the colon", `Authorization : Bearer ${control}`, "400"],
          ["unicode within a key", `Authorization: Bearer ${uma.apiKey.slice(0, -2)}é`, "401"],
          ["full-width letters", `Authorization: Bearer ｐｃｋ_${uma.apiKey.slice(4)}`, "401"],
          ["a zero-width space", `Authorization: Bearer ${uma.apiKey}\u200b`, "401"],
          ["DEL", `Authorization: Bearer ${uma.apiKey}\x7f`, "400"],
        ] as const
      ) {
        const status = await send(fields);
        strictEqual(status, expected, name);
      }
    });

    await test.step("RFC 9449 §4.3, §7.1: proofs that prove nothing", async () => {
      const holder = makeForeignKey("ES256");
      const other = makeForeignKey("ES256");
      const jkt = thumbprintOf(holder.publicJwk);
      const bound = remember(signed({}, { cnf: { jkt } }));
      const ath = hash("sha256", bound, "base64url");
      const ask = (proof: string | undefined, token = bound) =>
        callsOf(server, `DPoP ${token}`)(
          "GET",
          "/v1/models",
          undefined,
          proof === undefined ? {} : { dpop: remember(proof) },
        );
      const first = await ask(undefined);
      requireRefused("no proof", first, "DPoP", "invalid_token|invalid_dpop_proof");
      const nonce = first.headers.get("dpop-nonce") ?? "";
      ok(nonce.length > 20);
      const proofHeader = { typ: "dpop+jwt", alg: "ES256", jwk: holder.publicJwk };
      const proofClaims = (): Part => ({
        jti: crypto.randomUUID(),
        htm: "GET",
        htu: `${issuer}/v1/models`,
        iat: Math.floor(Date.now() / 1000),
        ath,
        nonce,
      });
      const proof = (changedHeader: Part = {}, changedClaims: Part = {}, by = holder.signer): string =>
        forgeToken({ ...proofHeader, ...changedHeader }, { ...proofClaims(), ...changedClaims }, by);
      const used = proof();
      await expectStatus(ask(used), 200);
      const [freshNonce, refusedProof] = ["use_dpop_nonce", "invalid_dpop_proof"];
      const proofs: Record<string, readonly [string, string]> = {
        "the same proof again": [used, refusedProof],
        "without the nonce": [proof({}, { nonce: undefined }), freshNonce],
        "with a nonce of somebody's": [proof({}, { nonce: "x".repeat(43) }), freshNonce],
        "for POST": [proof({}, { htm: "POST" }), refusedProof],
        "for another path": [proof({}, { htu: `${issuer}/v1/keys` }), refusedProof],
        "for another host": [proof({}, { htu: "http://evil.example/v1/models" }), refusedProof],
        "for another token": [proof({}, { ath: hash("sha256", control, "base64url") }), refusedProof],
        "for no token": [proof({}, { ath: undefined }), refusedProof],
        "of yesterday": [proof({}, { iat: nowSeconds - 86_400 }), refusedProof],
        "of tomorrow": [proof({}, { iat: nowSeconds + 86_400 }), refusedProof],
        "without jti": [proof({}, { jti: undefined }), refusedProof],
        "of another key": [
          proof({ jwk: other.publicJwk }, {}, other.signer),
          "invalid_token",
        ],
        "with another's signature": [proof({}, {}, other.signer), refusedProof],
        "alg none": [proof({ alg: "none" }, {}, NEVER), refusedProof],
        "HS256 with the public key": [
          proof({ alg: "HS256" }, {}, hmacSigner(JSON.stringify(holder.publicJwk))),
          refusedProof,
        ],
        "with its private key": [proof({ jwk: holder.privateJwk }), refusedProof],
        "with a second key": [proof({ kid: "x" }), refusedProof],
        "typ JWT": [proof({ typ: "JWT" }), refusedProof],
        "crit": [proof({ crit: ["exp"] }), refusedProof],
        "two in one field": [`${proof()}, ${proof()}`, refusedProof],
        "the token itself": [bound, refusedProof],
        "nothing": ["x", refusedProof],
      };
      for (const [name, [text, error]] of Object.entries(proofs)) {
        requireRefused(`a proof ${name}`, await ask(text), "DPoP", error);
      }
      requireRefused(
        "a bound token as bearer",
        await callsOf(server, bound)("GET", "/v1/models"),
        "Bearer",
        "invalid_token",
      );
      requireRefused("a bearer token with a proof", await ask(proof(), control), "DPoP", "invalid_token");
      requireRefused(
        "a forged token with a proof",
        await ask(proof(), tokens["a stranger's key"]),
        "DPoP",
        "invalid_token",
      );
      await expectStatus(ask(proof()), 200);
    });

    await test.step("claims and headers that speak of roles give nothing", async () => {
      const proud = remember(signed({}, {
        roles: ["admin"],
        role: "admin",
        groups: ["admin"],
        grants: ["user:write"],
        team: "other",
        kind: "admin",
        permissions: ["*"],
        azp: admin.id,
        act: { sub: admin.id },
      }));
      const calls = callsOf(server, proud);
      const headers = { "x-role": "admin", "x-user-id": admin.id, "x-forwarded-user": "admin" };
      await expectStatus(calls("GET", "/v1/models", undefined, headers), 200);
      await expectStatus(calls("GET", `/v1/users/${admin.id}`, undefined, headers), 404);
      await expectStatus(calls("POST", "/v1/signing-keys/rotate", undefined, headers), 403);
      await expectStatus(
        calls("POST", "/v1/users", { username: "x", password: PASSWORD, roles: [] }, headers),
        403,
      );
    });

    await test.step("afterwards the server is as it was, and the trail knows each refusal by a reason of ours", async () => {
      await expectStatus(callsOf(server, control)("GET", "/v1/models"), 200);
      await expectStatus(callsOf(server)("GET", "/readyz"), 200);
      const refused = trailOf(dataDir).filter(({ type }) => type === "request.refused");
      const unknown = refused.filter(({ status }) => status === 401);
      ok(unknown.length >= 5 * Object.keys(tokens).length);
      for (const { reason, subject } of unknown) {
        match(
          String(reason),
          /^Cannot (?:recognise the caller|authenticate a client): [a-z_]+(?: \(pck_[0-9a-z]{26}\))?$/,
        );
        // Nobody is named on the word of what is not genuine.
        if (/: (?:missing|scheme_|malformed|header_|algorithm_|type_|key_|signature_)/.test(String(reason))) {
          strictEqual(subject, null, String(reason));
        }
      }
      // What is not thought of shows as the same few reasons for everything.
      const reasons = new Set(unknown.map(({ reason }) => /: ([a-z_]+)/.exec(String(reason))?.[1]));
      for (
        const reason of [
          "missing",
          "scheme_unknown",
          "malformed",
          "header_refused",
          "algorithm_refused",
          "type_refused",
          "key_unknown",
          "signature_wrong",
          "claims_malformed",
          "confirmation_refused",
          "issuer_wrong",
          "audience_wrong",
          "not_yet_valid",
          "expired",
          "lifetime_too_long",
          "revoked",
          "subject_inactive",
          "proof_missing",
          "not_bound",
          "bound_to_other_key",
          "key_malformed",
          "key_wrong",
          "proof_replayed",
        ]
      ) ok(reasons.has(reason), `nothing was refused as ${reason}: ${[...reasons]}`);
    });
  } finally {
    await server.stop();
    await evil.shutdown();
  }
  try {
    await requireIntactTrail(dataDir);
    requireNowhere(
      Object.fromEntries([...sent].map((part) => [`${part.slice(0, 12)}… (${part.length})`, part])),
      dataDir,
      server.output(),
    );
    ok(!/"level":"error"|"status":5\d\d/.test(server.output()), server.output());
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }

  /** A user with everything that can be sent instead of a token, and what our tokens are made of. */
  async function prepare() {
    const admin = callsOf(server, (await signIn(server)).access_token);
    const { data: [first] } = await expectStatus(admin("GET", "/v1/users"), 200);
    await expectStatus(admin("PUT", "/v1/roles/-/inspector", { grants: ["token:introspect"] }), 201);
    const robot = await expectStatus(
      admin("POST", "/v1/clients", { name: "robot", roles: ["inspector"], authentication: "secret" }),
      201,
    );
    await expectStatus(
      admin("POST", "/v1/users", { username: "uma", password: PASSWORD, roles: ["user"] }),
      201,
    );
    const over = await signIn(server, "uma", PASSWORD);
    const [session] =
      (await expectStatus(callsOf(server, over.access_token)("GET", "/v1/auth/sessions"), 200)).data;
    await expectStatus(callsOf(server, over.access_token)("POST", "/v1/auth/logout"), 204);
    const { access_token: token, refresh_token: refreshToken } = await signIn(server, "uma", PASSWORD);
    const calls = callsOf(server, token);
    const [key, other, gone] = await Promise.all(
      ["one", "other", "gone"].map((name) => expectStatus(calls("POST", "/v1/keys", { name }), 201)),
    );
    await expectStatus(calls("DELETE", `/v1/keys/${gone.id}`), 204);
    const [header, claims] = token.split(".").slice(0, 2).map((part) =>
      JSON.parse(new TextDecoder().decode(Uint8Array.fromBase64(part, { alphabet: "base64url" })))
    );
    return {
      issuer: server.origin,
      sub: String(claims.sub),
      kid: String(header.kid),
      header: header as Part,
      claims: (): Part => ({ ...claims, jti: crypto.randomUUID() }),
      signer: ed25519Signer(signingKey),
      admin: { id: String(first.id) },
      uma: {
        refreshToken,
        endedSession: String(session.id),
        clientId: String(robot.id),
        clientSecret: String(robot.secret),
        apiKey: String(key.key),
        otherKey: String(other.key),
        deletedKey: String(gone.key),
      },
    };
  }
});

/** @param error of the challenge; several with `|` */
function requireRefused(name: string, answer: Answer, scheme: "Bearer" | "DPoP", error: string): void {
  strictEqual(answer.status, 401, `${name}: ${answer.text}`);
  const metadata = 'resource_metadata="http://[^"]+/\\.well-known/oauth-protected-resource"';
  const said = (one: string): string => one === scheme ? `, error="(?:${error})"` : "";
  match(
    answer.headers.get("www-authenticate") ?? "",
    new RegExp(
      `^Bearer realm="portcullis"${said("Bearer")}, ${metadata}, DPoP algs="[A-Za-z0-9 ]+"${said("DPoP")}$`,
    ),
    name,
  );
  strictEqual(answer.headers.get("cache-control"), "no-store", name);
  match(answer.text, /unauthenticated|authentication_error|valid access token/, name);
  ok(!/stack|\.ts:|jose|JOSE/.test(answer.text), name);
}

function flipFirst(segment: string): string {
  return (segment.startsWith("A") ? "B" : "A") + segment.slice(1);
}

/** The next character of the alphabet: of a last one, it changes bits that carry nothing. */
function nextSpare(character: string): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return alphabet[(alphabet.indexOf(character) + 1) % 64] ?? "A";
}

/** The standard alphabet's two letters; where there is none to replace, one is put in front. */
function otherAlphabet(segment: string): string {
  const other = segment.replaceAll("-", "+").replaceAll("_", "/");
  return other === segment ? `/${segment.slice(1)}` : other;
}

/** S + L: the same point multiplied, and a second signature for those who do not check the range. */
function withTwinScalar(signature: Uint8Array): Uint8Array {
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  const scalar = BigInt(`0x${signature.slice(32).toReversed().toHex()}`);
  const twin = Uint8Array.fromHex((scalar + order).toString(16).padStart(64, "0")).toReversed();
  return new Uint8Array([...signature.slice(0, 32), ...twin]);
}

/** RFC 7638 §3 of a key on P-256. */
function thumbprintOf({ crv, kty, x, y }: Readonly<Record<string, string>>): string {
  return hash("sha256", JSON.stringify({ crv, kty, x, y }), "base64url");
}
