// Tests of issuer keys: fetched from one place within bounds, kept for a while, and never a reason to call an innocent token wrong.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { Fault } from "../../../src/faults/fault.ts";
import { openIssuerKeys } from "../../../src/identity/oidc/issuer_keys.ts";
import type { KeySetPlace } from "../../../src/identity/oidc/key_set_source.ts";
import { ALGORITHMS, type SignatureAlgorithm } from "../../../src/identity/public_key.ts";
import { makeSelfSignedCertificate } from "../../support/self_signed_certificate.ts";
import {
  answerBytes,
  answerHtml,
  answerJson,
  answerStatus,
  drip,
  hangBeforeHead,
  hangMidBody,
  redirectTo,
  type Script,
  sendRaw,
  streamEndlessly,
} from "../../support/scripted_upstream.ts";
import { answerKeys, clockAndLog, makeKey, startKeyServer } from "./issuer_under_test.ts";

const MINUTE = 60_000;
const [A, B, C] = [makeKey("a", "EdDSA"), makeKey("b", "ES256"), makeKey("c", "EdDSA")];
const ES384 = makeKey("es384", "ES384");
const RSA = makeKey("rsa", "RS256");
const SMALL_RSA = makeKey("small", "RS256", 2048);

/** A server of keys and what keeps them; `place` is made from the server's address. */
async function open(
  { place, algorithms = ALGORITHMS }: {
    place?: (url: string) => KeySetPlace;
    algorithms?: readonly SignatureAlgorithm[];
  } = {},
) {
  const server = await startKeyServer();
  const { clock, log, lines } = clockAndLog();
  const jwksUrl = `${server.url}/jwks`;
  const keys = openIssuerKeys(
    place?.(server.url) ?? { issuer: "https://login.example.com", jwksUrl },
    algorithms,
    clock,
    log,
  );
  return {
    server,
    clock,
    log,
    lines,
    keys,
    close: async () => {
      await keys.close();
      await server.close();
    },
  };
}

/** A Fault of this kind is thrown; resolves with it. */
async function faultOf(work: Promise<unknown>, kind: string): Promise<Fault> {
  let fault: Fault | undefined;
  await rejects(work, (thrown) => {
    ok(thrown instanceof Fault, String(thrown));
    fault = thrown;
    return true;
  });
  strictEqual(fault?.kind, kind);
  return fault as Fault;
}

Deno.test("keys are read with the first use, from the address that is configured and nothing but it", async () => {
  const { server, keys, close } = await open({
    place: (url) => ({ issuer: "https://login.example.com", jwksUrl: `${url}/a/../jwks?tenant=1&p=%2F` }),
  });
  server.plays(answerKeys(A, B));
  deepStrictEqual([keys.current("a"), server.requests.length], [undefined, 0]);
  strictEqual((await keys.find("a"))?.algorithm, "EdDSA");
  strictEqual((await keys.find("b"))?.algorithm, "ES256");
  ok(keys.current("b") !== undefined);
  const [request] = server.requests;
  deepStrictEqual([request?.method, request?.target, server.requests.length], [
    "GET",
    "/jwks?tenant=1&p=%2F",
    1,
  ]);
  deepStrictEqual([request?.headers.has("authorization"), request?.headers.has("cookie")], [false, false]);
  await close();
});

Deno.test("OIDC Discovery §4: the issuer's own document tells where the keys are, less the slash at the issuer's end", async () => {
  for (const path of ["", "/", "/tenant", "/tenant/"]) {
    const { server, keys, close } = await open({ place: (url) => ({ issuer: `${url}${path}` }) });
    const { url } = server;
    server.plays(answerJson({ issuer: `${url}${path}`, jwks_uri: `${url}/keys?v=2` }), answerKeys(A));
    ok(await keys.find("a") !== undefined);
    deepStrictEqual(server.requests.map(({ target }) => target), [
      `${path.replace(/\/$/, "")}/.well-known/openid-configuration`,
      "/keys?v=2",
    ]);
    await close();
  }
});

Deno.test("OIDC Discovery §4.3: a document of another issuer, or with keys elsewhere, is not followed", async () => {
  const trap = await startKeyServer();
  trap.plays(answerKeys(A));
  const { server, keys, clock, close } = await open({ place: (url) => ({ issuer: url }) });
  const { url } = server;
  const elsewhere = /another origin; set jwksUrl/;
  const documents: readonly (readonly [unknown, RegExp])[] = [
    [{ jwks_uri: `${url}/keys` }, /names another issuer/],
    [{ issuer: `${url}/`, jwks_uri: `${url}/keys` }, /names another issuer/],
    [{ issuer: [url], jwks_uri: `${url}/keys` }, /names another issuer/],
    [{ issuer: url, jwks_uri: `${trap.url}/keys` }, elsewhere],
    [{ issuer: url, jwks_uri: `${url.replace("http:", "https:")}/keys` }, elsewhere],
    [{ issuer: url, jwks_uri: `${url.replace("127.0.0.1", "localhost")}/keys` }, elsewhere],
    [{ issuer: url, jwks_uri: `${url}@${new URL(trap.url).host}/keys` }, elsewhere],
    [{ issuer: url, jwks_uri: url.replace("http://", "http://user:pass@") }, elsewhere],
    [{ issuer: url, jwks_uri: "/keys" }, elsewhere],
    [{ issuer: url, jwks_uri: "data:application/json,{}" }, elsewhere],
    [{ issuer: url, jwks_uri: "file:///etc/passwd" }, elsewhere],
    [{ issuer: url, jwks_uri: [`${url}/keys`] }, elsewhere],
    [{ issuer: url }, elsewhere],
  ];
  for (const [document, words] of documents) {
    server.plays(answerJson(document));
    match((await faultOf(keys.find("a"), "unavailable")).message, words);
    clock.advance(5000);
  }
  strictEqual(server.requests.length, documents.length);
  strictEqual(trap.requests.length, 0);
  await close();
  await trap.close();
});

/** A good set of so many bytes. */
function setOf(bytes: number): string {
  const set = JSON.stringify({ keys: [A.jwk], filler: "" });
  return set.replace(/""}$/, `"${"x".repeat(bytes - set.length)}"}`);
}
const BYTES_MAX = 256 * 1024;
const NOT_A_SET: Readonly<Record<string, Script>> = {
  "status 500": answerStatus(500),
  "status 404 with a set": answerJson({ keys: [A.jwk] }, 404),
  "status 203 with a set": answerJson({ keys: [A.jwk] }, 203),
  "no body": answerBytes("", "application/json"),
  "page": answerHtml(),
  "broken JSON": answerBytes('{"keys":[', "application/json"),
  "not UTF-8": answerBytes(Uint8Array.of(0x7b, 0xff, 0x7d), "application/json"),
  "byte order mark": answerBytes(`\ufeff${JSON.stringify({ keys: [A.jwk] })}`, "application/json"),
  "member twice": answerBytes(
    `{"keys":[${JSON.stringify(A.jwk)}],"\\u006beys":[]}`,
    "application/json",
  ),
  "a key's member twice": answerBytes(
    `{"keys":[${JSON.stringify(A.jwk).replace("{", '{"kid":"x",')}]}`,
    "application/json",
  ),
  "nested beyond measure": answerBytes(
    `{"keys":[],"x":${"[".repeat(20)}${"]".repeat(20)}}`,
    "application/json",
  ),
  "array": answerJson([A.jwk]),
  "null": answerJson(null),
  "text": answerJson("keys"),
  "no keys": answerJson({}),
  "keys an object": answerJson({ keys: { a: A.jwk } }),
  "keys null": answerJson({ keys: null }),
  "101 keys": answerKeys(...Array(101).fill(A)),
  "a byte too long": answerBytes(setOf(BYTES_MAX + 1), "application/json"),
  "one that unfolds to more": answerBytes(
    gzipSync(setOf(BYTES_MAX + 1)),
    "application/json",
    200,
    { "content-encoding": "gzip" },
  ),
  "endless": streamEndlessly(" ".repeat(4096)),
  "broken off": sendRaw('HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"keys":['),
  "no HTTP": sendRaw("hello\r\n\r\n"),
  "dropped": sendRaw(""),
  "reset": sendRaw("", "reset"),
};

Deno.test("ASVS V16.5.3: whatever comes in place of a set is Fault unavailable with a time to come back, and the next good answer heals", async () => {
  const { server, keys, clock, lines, close } = await open();
  for (const [name, script] of Object.entries(NOT_A_SET)) {
    server.plays(script);
    const fault = await faultOf(keys.find("a"), "unavailable");
    strictEqual(fault.details.retryAfterSeconds, 5, name);
    match(fault.message, /^Cannot read the keys of https:\/\/login\.example\.com: its? /, name);
    clock.advance(5000);
  }
  strictEqual(server.requests.length, Object.keys(NOT_A_SET).length);
  server.plays(answerKeys(A));
  ok(await keys.find("a") !== undefined);
  const told = await lines();
  ok(told.some(({ event, level }) => event === "issuer.keys_unavailable" && level === "warn"));
  deepStrictEqual(told.at(-1), {
    ...told.at(-1),
    level: "info",
    event: "issuer.keys_read",
    issuer: "https://login.example.com",
    usable: 1,
    refused: 0,
  });
  await close();
});

Deno.test("a set of exactly 256 KiB is read, and one of 100 keys", async () => {
  const { server, keys, clock, close } = await open();
  server.plays(answerBytes(setOf(BYTES_MAX), "application/json"));
  ok(await keys.find("a") !== undefined);
  clock.advance(30_000);
  server.plays(
    answerKeys(...Array.from({ length: 99 }, (_, index) => ({ jwk: { ...C.jwk, kid: `k${index}` } })), B),
  );
  ok(await keys.find("b") !== undefined);
  ok(await keys.find("k98") !== undefined);
  await close();
});

Deno.test("ASVS V15.3.2: a redirect is not followed, wherever it leads", async () => {
  const trap = await startKeyServer();
  trap.plays(answerKeys(A));
  for (const status of [301, 302, 303, 307, 308]) {
    const { server, keys, close } = await open();
    server.plays(redirectTo(`${trap.url}/jwks`, status));
    await faultOf(keys.find("a"), "unavailable");
    server.plays(redirectTo("/other", status));
    strictEqual(server.requests.length, 1);
    await close();
  }
  strictEqual(trap.requests.length, 0);
  await trap.close();
});

Deno.test("an issuer that hangs, at whatever point, is given up, and its connection ends", async () => {
  const slow: readonly Script[] = [
    hangBeforeHead(),
    hangMidBody('{"keys":['),
    drip(JSON.stringify({ keys: [A.jwk] }), "application/json", 200),
  ];
  await Promise.all(slow.map(async (script) => {
    const { server, keys, close } = await open();
    server.plays(script);
    match((await faultOf(keys.find("a"), "unavailable")).message, /it took too long$/);
    await server.requests[0]?.closed;
    ok(server.requests[0]?.closedByPeer());
    await close();
  }));
});

Deno.test("an issuer that nobody answers for is Fault unavailable", async () => {
  const { server, keys, close } = await open();
  await server.close();
  match((await faultOf(keys.find("a"), "unavailable")).message, /could not be reached/);
  await close();
});

Deno.test("ASVS V12.3.2, V12.3.4: TLS is verified, against the certificates of the settings where there are some", async () => {
  const certificate = await makeSelfSignedCertificate();
  const server = await startKeyServer(certificate);
  server.plays(answerKeys(A));
  const { clock, log } = clockAndLog();
  const place = { issuer: "https://login.example.com", jwksUrl: `${server.url}/jwks` };
  const trusting = openIssuerKeys(
    { ...place, caCertificates: certificate.certificatePem },
    ALGORITHMS,
    clock,
    log,
  );
  ok(await trusting.find("a") !== undefined);
  const strict = openIssuerKeys(place, ALGORITHMS, clock, log);
  await faultOf(strict.find("a"), "unavailable");
  strictEqual(server.requests.length, 1);
  await Promise.all([trusting.close(), strict.close(), log.flush()]);
  await server.close();
});

Deno.test("RFC 7517 §5, ASVS V11.2.3: keys that fit no allowed algorithm are passed over, and the others are used", async () => {
  const { server, keys, lines, close } = await open({ algorithms: ["EdDSA", "RS256"] });
  const unfit: Readonly<Record<string, unknown>> = {
    secret: { kty: "oct", k: "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", alg: "HS256" },
    encryption: { ...A.jwk, use: "enc" },
    signing: { ...A.jwk, key_ops: ["sign"] },
    private: { ...A.jwk, d: "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U" },
    small: SMALL_RSA.jwk,
    otherAlgorithm: B.jwk,
    unknownAlgorithm: { ...A.jwk, alg: "Ed448" },
    lying: { ...A.jwk, alg: "RS256" },
    none: { ...A.jwk, alg: "none" },
    hmac: { ...RSA.jwk, alg: "HS256" },
    unknownType: { ...A.jwk, kty: "AKP" },
    noPoint: { ...A.jwk, x: "AAAA" },
  };
  server.plays(answerJson({
    keys: [
      ...Object.entries(unfit).map(([kid, jwk]) => ({ ...jwk as object, kid })),
      { ...A.jwk, kid: undefined },
      { ...A.jwk, kid: "" },
      { ...A.jwk, kid: 1 },
      { ...A.jwk, kid: ["a"] },
      null,
      "key",
      7,
      [A.jwk],
      C.jwk,
      RSA.jwk,
    ],
  }));
  strictEqual((await keys.find("c"))?.algorithm, "EdDSA");
  strictEqual((await keys.find("rsa"))?.algorithm, "RS256");
  for (const kid of [...Object.keys(unfit), "", "1", "a", "undefined", "__proto__", "constructor"]) {
    strictEqual(await keys.find(kid), undefined, kid);
  }
  strictEqual(server.requests.length, 1);
  const [told] = await lines();
  deepStrictEqual([told?.usable, told?.refused], [2, Object.keys(unfit).length + 8]);
  await close();
});

Deno.test("a set without a usable key is told to the log as a warning, and again when it changes", async () => {
  const { server, keys, clock, lines, close } = await open();
  for (const set of [answerKeys(SMALL_RSA), answerKeys(SMALL_RSA), answerKeys(), answerKeys(A)]) {
    server.plays(set);
    strictEqual(await keys.find("small"), undefined);
    clock.advance(30_000);
  }
  deepStrictEqual((await lines()).map(({ level, usable, refused }) => [level, usable, refused]), [
    ["warn", 0, 1],
    ["warn", 0, 0],
    ["info", 1, 0],
  ]);
  await close();
});

Deno.test("two keys of one name are both refused, whichever comes first and whatever they are", async () => {
  for (const other of [C.jwk, A.jwk, { ...A.jwk, use: "enc" }, { kty: "oct", k: "AAAA" }]) {
    const { server, keys, close } = await open();
    const twin = { jwk: { ...other, kid: "a" } };
    server.plays(answerKeys(twin, B, A, twin));
    strictEqual(await keys.find("a"), undefined);
    ok(await keys.find("b") !== undefined);
    await close();
  }
});

Deno.test("RFC 8725 §3.1: a key that names no algorithm gets one from the settings, and only one", async () => {
  const bare = (key: typeof RSA) => ({ jwk: { ...key.jwk, alg: undefined } });
  for (
    const [algorithms, expected] of [
      [ALGORITHMS, { rsa: "RS256", b: "ES256", es384: "ES384", a: "EdDSA" }],
      [["PS256", "RS256"], { rsa: "PS256", b: undefined, es384: undefined, a: undefined }],
      [["ES384"], { rsa: undefined, b: undefined, es384: "ES384", a: undefined }],
    ] as const
  ) {
    const { server, keys, close } = await open({ algorithms });
    server.plays(answerKeys(bare(RSA), bare(B), bare(ES384), bare(A)));
    for (const [kid, algorithm] of Object.entries(expected)) {
      strictEqual((await keys.find(kid))?.algorithm, algorithm, kid);
    }
    await close();
  }
});

Deno.test("unknown key ids make us ask once in thirty seconds, however many come, and those that wait share the answer", async () => {
  const { server, keys, clock, close } = await open();
  server.plays(answerKeys(A));
  const hammer = (times: number) =>
    Promise.all(Array.from({ length: times }, (_, index) => keys.find(`unknown-${index}`)));
  deepStrictEqual(new Set(await hammer(200)), new Set([undefined]));
  strictEqual(server.requests.length, 1);
  clock.advance(29_999);
  await hammer(200);
  strictEqual(server.requests.length, 1);
  clock.advance(1);
  server.plays(answerKeys(A, B));
  // One that came with the new key waits with the others and is found.
  const [, found] = await Promise.all([hammer(100), keys.find("b"), hammer(100)]);
  strictEqual(found?.algorithm, "ES256");
  strictEqual(server.requests.length, 2);
  await close();
});

Deno.test("while keys cannot be had, an unknown one is unavailable and never unknown, and we ask once in five seconds", async () => {
  const { server, keys, clock, close } = await open();
  server.plays(answerStatus(500));
  const all = await Promise.all(Array.from({ length: 50 }, () => faultOf(keys.find("a"), "unavailable")));
  ok(all.every(({ details }) => details.retryAfterSeconds === 5));
  clock.advance(3500);
  strictEqual((await faultOf(keys.find("a"), "unavailable")).details.retryAfterSeconds, 2);
  clock.advance(1499);
  strictEqual((await faultOf(keys.find("a"), "unavailable")).details.retryAfterSeconds, 1);
  strictEqual(server.requests.length, 1);
  clock.advance(1);
  await faultOf(keys.find("a"), "unavailable");
  strictEqual(server.requests.length, 2);
  clock.advance(5000);
  server.plays(answerKeys(A));
  ok(await keys.find("a") !== undefined);
  strictEqual(await keys.find("other"), undefined);
  await close();
});

Deno.test("keys of five minutes are asked for again in the background, once, while they go on being used", async () => {
  const { server, keys, clock, close } = await open();
  server.plays(answerKeys(A, B));
  const [a, b] = [await keys.find("a"), await keys.find("b")];
  clock.advance(5 * MINUTE - 1);
  ok(keys.current("a") !== undefined);
  strictEqual(server.requests.length, 1);
  clock.advance(1);
  const [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  server.plays(async (reply, request) => {
    asked.resolve();
    await answer.promise;
    await answerKeys(A, C)(reply, request);
  });
  for (let again = 0; again < 20; again++) {
    deepStrictEqual([keys.current("a") === a, await keys.find("b") === b], [true, true]);
  }
  await asked.promise;
  const found = keys.find("c"); // waits for the answer that is under way
  answer.resolve();
  strictEqual((await found)?.algorithm, "EdDSA");
  strictEqual(server.requests.length, 2);
  // What stayed is the same object, so that what was verified with it stays verified; what left is gone at once.
  strictEqual(keys.current("a"), a);
  strictEqual(keys.current("b"), undefined);
  await close();
});

Deno.test("a key whose words changed is another key", async () => {
  const { server, keys, clock, close } = await open();
  server.plays(answerKeys(A));
  const before = await keys.find("a");
  clock.advance(10 * MINUTE);
  server.plays(answerKeys({ jwk: { ...C.jwk, kid: "a" } }));
  const after = await keys.find("a");
  ok(before !== undefined && after !== undefined && before !== after && before.key !== after.key);
  await close();
});

Deno.test("keys of ten minutes are not used before the issuer was asked again", async () => {
  const { server, keys, clock, close } = await open();
  server.plays(answerKeys(A, B));
  await keys.find("a");
  clock.advance(10 * MINUTE);
  server.plays(answerKeys(B));
  strictEqual(keys.current("a"), undefined);
  deepStrictEqual((await Promise.all([keys.find("a"), keys.find("b")])).map((key) => key?.algorithm), [
    undefined,
    "ES256",
  ]);
  strictEqual(server.requests.length, 2);
  await close();
});

Deno.test("while the issuer fails, the keys that it told last are used for a day and no longer", async () => {
  const { server, keys, clock, lines, close } = await open();
  server.plays(answerKeys(A));
  await keys.find("a");
  server.plays(answerStatus(500));
  clock.advance(10 * MINUTE);
  ok(await keys.find("a") !== undefined);
  strictEqual(server.requests.length, 2);
  ok(keys.current("a") !== undefined);
  await faultOf(keys.find("unknown"), "unavailable");
  // From then on nobody waits: it is asked in the background, every five seconds at most.
  clock.advance(5000);
  server.plays(hangBeforeHead());
  ok(await keys.find("a") !== undefined);
  await server.request(2);
  ok(await keys.find("a") !== undefined);
  strictEqual(server.requests.length, 3);
  clock.advance(24 * 60 * MINUTE - 10 * MINUTE - 5001);
  ok(keys.current("a") !== undefined);
  clock.advance(1);
  strictEqual(keys.current("a"), undefined);
  await keys.close();
  strictEqual((await lines()).filter(({ event }) => event === "issuer.keys_unavailable").length, 1);
  await close();
});

Deno.test("after a day without the issuer an innocent token is unavailable, not unknown", async () => {
  const { server, keys, clock, close } = await open();
  server.plays(answerKeys(A));
  await keys.find("a");
  server.plays(answerStatus(503));
  clock.advance(24 * 60 * MINUTE);
  await faultOf(keys.find("a"), "unavailable");
  await close();
});

Deno.test("nothing of what an issuer answered stands in a Fault or in the log", async () => {
  const { server, keys, clock, lines, close } = await open();
  const secret = "swordfish-9f3a";
  for (
    const script of [
      answerBytes(secret, "text/plain"),
      answerBytes(secret, "text/plain", 500, { "x-reason": secret }),
      answerJson({ keys: secret }),
      redirectTo(`http://127.0.0.1:1/${secret}`),
      sendRaw(`${secret}\r\n\r\n`),
      sendRaw(`HTTP/1.1 200 ${secret}\r\n${secret}\r\n\r\n`),
      sendRaw(`HTTP/1.1 200 OK\r\nContent-Length: ${secret}\r\n\r\n`),
    ]
  ) {
    server.plays(script);
    const { message } = await faultOf(keys.find("a"), "unavailable");
    ok(!message.includes(secret), message);
    clock.advance(5000);
  }
  ok(!JSON.stringify(await lines()).includes(secret));
  await close();
});

Deno.test("close ends what is under way, and nothing is asked for afterwards", async () => {
  const { server, keys, clock, lines, close } = await open();
  server.plays(hangBeforeHead());
  const waiting = faultOf(keys.find("a"), "stopping");
  await server.request(0);
  await keys.close();
  await waiting;
  clock.advance(60 * MINUTE);
  await faultOf(keys.find("a"), "stopping");
  strictEqual(server.requests.length, 1);
  deepStrictEqual(await lines(), []);
  await close();
});
