// Tests of the master key in a key service, against a real implementation of its protocol: acts, versions, refusals, faults.
import { deepStrictEqual, doesNotMatch, match, ok, rejects, strictEqual } from "node:assert/strict";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openTransitMasterKey, type TransitSettings } from "../../src/vault/transit_master_key.ts";
import { makeSelfSignedCertificate } from "../support/self_signed_certificate.ts";
import { masterKeyPolicy, startTransitServer, type TransitServer } from "../support/transit_server.ts";

const TOKEN = "hvs.first";
const RAW = crypto.getRandomValues(new Uint8Array(32));

function startService(options: Parameters<typeof startTransitServer>[0] = {}): TransitServer {
  const service = startTransitServer(options);
  service.makeKey("portcullis");
  service.allow(TOKEN, masterKeyPolicy("portcullis"));
  return service;
}

function settingsOf(service: TransitServer, others: Partial<TransitSettings> = {}): TransitSettings {
  return { url: service.url, mount: "transit", key: "portcullis", readToken: () => TOKEN, ...others };
}

/** The reason of the refusal, which must be a Fault of the kind that answers 503. */
async function refusalOf(act: Promise<unknown>): Promise<string> {
  let reason = "";
  await rejects(act, (thrown) => {
    ok(thrown instanceof Fault, String(thrown));
    strictEqual(thrown.kind, "unavailable");
    reason = thrown.message;
    return true;
  });
  ok(!reason.includes(TOKEN) && !reason.includes(RAW.toBase64()), reason);
  return reason;
}

Deno.test("a wrapped key unwraps to the same bytes, and neither in another place nor altered", async () => {
  const service = startService();
  const master = await openTransitMasterKey(settingsOf(service));
  try {
    const wrapped = await master.wrap("data_keys/seal.key_1", RAW);
    match(new TextDecoder().decode(wrapped), /^vault:v1:/);
    deepStrictEqual(await master.unwrap("data_keys/seal.key_1", wrapped), RAW);
    match(await refusalOf(master.unwrap("data_keys/seal.key_2", wrapped)), /altered or moved/);
    const altered = wrapped.slice();
    altered[30] = altered[30] === 65 ? 66 : 65;
    match(await refusalOf(master.unwrap("data_keys/seal.key_1", altered)), /altered or moved/);
    match(
      await refusalOf(master.unwrap("data_keys/seal.key_1", encodeUtf8("\u0001\u0006master…"))),
      /no key service wrapped it/,
    );
  } finally {
    master.close();
    await service.close();
  }
});

Deno.test("a rotation in the service is learned by renew or by the next wrap; older versions unwrap until the service forbids them", async () => {
  const service = startService();
  const master = await openTransitMasterKey(settingsOf(service));
  try {
    const old = await master.wrap("p", RAW);
    strictEqual(master.id, "transit/portcullis:v1");
    strictEqual(await master.isCurrent(old), true);
    service.rotate("portcullis");
    await master.renew();
    strictEqual(master.id, "transit/portcullis:v2");
    strictEqual(await master.isCurrent(old), false);
    deepStrictEqual(await master.unwrap("p", old), RAW);
    const rewrapped = await master.wrap("p", await master.unwrap("p", old));
    strictEqual(await master.isCurrent(rewrapped), true);
    await master.settle();
    service.setMinDecryptionVersion("portcullis", 2);
    match(await refusalOf(master.unwrap("p", old)), /min_decryption_version/);
    deepStrictEqual(await master.unwrap("p", rewrapped), RAW);
    service.rotate("portcullis");
    strictEqual(await master.isCurrent(await master.wrap("p", RAW)), true);
    strictEqual(await master.isCurrent(rewrapped), false);
  } finally {
    master.close();
    await service.close();
  }
});

Deno.test("a start knows the newest version, also of what an earlier process wrapped", async () => {
  const service = startService();
  try {
    const before = await openTransitMasterKey(settingsOf(service));
    const old = await before.wrap("p", RAW);
    before.close();
    service.rotate("portcullis");
    const after = await openTransitMasterKey(settingsOf(service));
    strictEqual(await after.isCurrent(old), false);
    after.close();
  } finally {
    await service.close();
  }
});

Deno.test("a refusal says what to do: token, policy, key, mount, namespace, either of the two acts", async () => {
  const service = startService({ namespace: "team" });
  service.allow("half", { update: ["transit/encrypt/portcullis"] });
  service.allow("other", {
    update: ["transit/encrypt/none", "transit/decrypt/none", "moved/encrypt/portcullis"],
  });
  const refusal = (others: Partial<TransitSettings>) =>
    refusalOf(openTransitMasterKey(settingsOf(service, { namespace: "team", ...others })));
  try {
    match(
      await refusal({ readToken: () => "unknown" }),
      /status 403: permission denied; invalid token.*"update" on transit\/encrypt\/portcullis/,
    );
    match(await refusal({ readToken: () => "half" }), /"update" on transit\/decrypt\/portcullis/);
    match(
      await refusal({ readToken: () => "other", key: "none" }),
      /encryption key not found.*vault write -f transit\/keys\/none type=aes256-gcm96/,
    );
    match(await refusal({ readToken: () => "other", mount: "moved" }), /knows no moved\/encrypt\/portcullis/);
    match(await refusal({ namespace: undefined }), /check mount, key and namespace/);
  } finally {
    await service.close();
  }
});

Deno.test("a start waits for a service that is sealed, and no use while serving does", async () => {
  const service = startService();
  service.seal();
  const opening = openTransitMasterKey(settingsOf(service));
  try {
    while (service.calls.length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
    service.unseal();
    const master = await opening;
    const calls = service.calls.length;
    service.seal();
    match(await refusalOf(master.wrap("p", RAW)), /sealed or under maintenance.*unseal it/);
    strictEqual(service.calls.length, calls + 1);
    master.close();
  } finally {
    await service.close();
  }
});

Deno.test("what passes is told from what does not: an overload and a failure of the service are tried again at a start", async () => {
  const service = startService();
  try {
    for (const status of [429, 500, 502, 503, 472, 307]) {
      service.answers(() => {
        service.answers(undefined);
        return new Response("{}", { status, headers: { location: "http://127.0.0.1:1/" } });
      });
      (await openTransitMasterKey(settingsOf(service))).close();
    }
  } finally {
    await service.close();
  }
});

Deno.test("an answer that is no answer of the service is refused: no JSON, no data, no ciphertext, too long, another plaintext", async () => {
  const service = startService();
  const refusal = () => refusalOf(openTransitMasterKey(settingsOf(service)));
  try {
    service.answers(() => new Response("<html>"));
    match(await refusal(), /no JSON object with data/);
    service.answers(() => Response.json({ data: [] }));
    match(await refusal(), /no JSON object with data/);
    service.answers(() => Response.json({ data: { ciphertext: "vault:v0:AAAA" } }));
    match(await refusal(), /holds no ciphertext/);
    service.answers(() => Response.json({ data: { ciphertext: `vault:v1:${"A".repeat(70_000)}` } }));
    match(await refusal(), /too long/);
    service.answers(() =>
      Response.json({ data: { ciphertext: `vault:v1:${"A".repeat(80)}`, plaintext: "AAAA" } })
    );
    match(await refusal(), /does not decrypt to what it encrypted/);
  } finally {
    await service.close();
  }
});

Deno.test("a token that was written anew into its file is taken up when the old one is refused", async () => {
  const service = startService();
  let token = TOKEN;
  const master = await openTransitMasterKey(settingsOf(service, { readToken: () => token }));
  try {
    service.revoke(TOKEN);
    match(await refusalOf(master.wrap("p", RAW)), /does not let this token in/);
    token = "hvs.second";
    service.allow(token, masterKeyPolicy("portcullis"));
    const wrapped = await master.wrap("p", RAW);
    deepStrictEqual(await master.unwrap("p", wrapped), RAW);
    strictEqual(service.calls.at(-1)?.token, token);
  } finally {
    master.close();
    await service.close();
  }
});

Deno.test("ASVS V16.2.5: a token that no header can carry is refused, at the start and from its file later, and stands in no message", async () => {
  const service = startService();
  const secret = "hvs.SECRETTOKEN";
  let token = TOKEN;
  const readToken = () => token;
  const master = await openTransitMasterKey(settingsOf(service, { readToken }));
  try {
    service.revoke(TOKEN);
    for (const malformed of [`${secret}\nline 2`, `${secret}\u20ac`, `${secret}\0`, ""]) {
      token = malformed;
      for (
        const act of [
          () => master.wrap("p", RAW),
          () => openTransitMasterKey(settingsOf(service, { readToken })),
        ]
      ) {
        const words = await refusalOf(act());
        match(words, /its token is malformed/);
        doesNotMatch(words, /SECRET/);
      }
    }
  } finally {
    master.close();
    await service.close();
  }
});

Deno.test("calls go over TLS to a service whose authority the settings name, with its namespace, and to no other", async () => {
  const certificate = await makeSelfSignedCertificate();
  const service = startService({ certificate, namespace: "team/one" });
  try {
    const master = await openTransitMasterKey(
      settingsOf(service, { caCertificates: certificate.certificatePem, namespace: "team/one" }),
    );
    deepStrictEqual(await master.unwrap("p", await master.wrap("p", RAW)), RAW);
    strictEqual(service.calls.at(-1)?.namespace, "team/one");
    master.close();
  } finally {
    await service.close();
  }
});
