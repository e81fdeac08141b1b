// Tests of manifests: the format of OpenSSF model signing, read and written, and what is not believed.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { createHash, createPublicKey, generateKeyPairSync, sign, verify } from "node:crypto";
import {
  type ModelStatement,
  rootDigest,
  signerId,
  signerPem,
  signManifest,
  type TrustedSigners,
  verifyManifest,
} from "../../src/registry/manifest.ts";
import { foreignSigner } from "./sealed_model.ts";

const STATEMENT: ModelStatement & { readonly serial: number } = {
  model: "a",
  files: new Map([["vocabulary.json", "22".repeat(32)], ["card.json", "00".repeat(32)], [
    "graph.onnx",
    "11".repeat(32),
  ]]),
  serial: 7,
  license: "MIT",
  addedAt: "2026-01-02T03:04:05.000Z",
};
const PAYLOAD_TYPE = "application/vnd.in-toto+json";

const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytesOf = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

/** A key pair of node's, so that nothing of the code under test makes or checks these signatures. */
function otherTool() {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
  const raw = publicKey.export({ type: "spki", format: "der" }).subarray(-32);
  return { privateKey, publicKey, pem, raw, hint: createHash("sha256").update(pem).digest("hex") };
}

/** A bundle as another tool writes it. */
function bundleOf(
  statement: unknown,
  { privateKey, hint }: Pick<ReturnType<typeof otherTool>, "privateKey" | "hint">,
) {
  const payload = bytesOf(statement);
  const signed = new TextEncoder().encode(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `);
  return {
    mediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
    verificationMaterial: { publicKey: { hint }, tlogEntries: [] },
    dsseEnvelope: {
      payload: payload.toBase64(),
      payloadType: PAYLOAD_TYPE,
      signatures: [{
        sig: sign(null, new Uint8Array([...signed, ...payload]), privateKey).toString("base64"),
        keyid: "",
      }],
    },
  };
}

function statementOf(
  resources: readonly (readonly [string, string])[],
  predicate: Record<string, unknown> = {},
) {
  return {
    _type: "https://in-toto.io/Statement/v1",
    subject: [{ name: "a", digest: { sha256: rootDigest(resources.map(([, digest]) => digest)) } }],
    predicateType: "https://model_signing/signature/v1.0",
    predicate: {
      serialization: { method: "files", hash_type: "sha256", allow_symlinks: false },
      resources: resources.map(([name, digest]) => ({ name, algorithm: "sha256", digest })),
      ...predicate,
    },
  };
}

async function trusting(...raws: readonly Uint8Array[]): Promise<TrustedSigners> {
  return new Map(
    await Promise.all(
      raws.map(async (raw) =>
        [
          signerId(raw),
          await crypto.subtle.importKey("raw", new Uint8Array(raw), "Ed25519", true, ["verify"]),
        ] as const
      ),
    ),
  );
}

Deno.test("the digest over all files is the reference tool's, by the vector of its own tests", () => {
  const digests = [
    "fdd8925354242a7fd1515e79534317b800015607a609cd306e0b4dcfe6c92249",
    "e16940b5e44ce981150bda37c4ba95881a749a521b4a297c5cdf97bdcfe965e6",
    "407822246ea8f9e26380842c3f4cd10d7b23e78f1fe7c74c293608682886a426",
    "6a3b08b5df77c4d418ceee1ac136a9ad49fc7c41358b5e82c1176daccb21ff3f",
    "a484b3d8ea5e99b75f9f123f9a42c882388693edc7d85d82ccba54834712cadf",
    "8f577930f5f40c2c2133cb299d36f9527fde98c1608569017cae6b5bcd01abb3",
    "997b37cc51f1ca1c7a270466607e26847429cd7264c30148c1b9352e224083fc",
    "c88a04d48353133fb065ba2c8ab369abab21395b9526aa20373ad828915fa7ae",
    "700e3ba5065d8dd47e41fd928ea086670d628f891ba363be0ca3c31d20d7d719",
    "912bcf5ebdf44dc7b4085b07940e0a81d157fba24b276e73fd911121d4544c4a",
  ];
  strictEqual(rootDigest(digests), "143cc682e555951649f18e2761c3d526d2502996f5e32dc187ef7f8a614f8df7");
});

Deno.test("a signer's id is the hash of its PEM, as the reference tool's hints are", () => {
  const { pem, raw, hint } = otherTool();
  deepStrictEqual([signerPem(raw), signerId(raw)], [pem, hint]);
});

Deno.test("what was signed is read back, and another implementation of Ed25519 finds signature and format in order", async () => {
  const signer = await foreignSigner();
  const raw = Uint8Array.fromBase64(signer.setting, { alphabet: "base64url" });
  const bytes = await signManifest(STATEMENT, signer);
  deepStrictEqual(await verifyManifest(bytes, await trusting(raw)), {
    ok: true,
    value: {
      ...STATEMENT,
      files: new Map([...STATEMENT.files].sort()),
      signer: signer.id,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    },
  });
  const { mediaType, verificationMaterial, dsseEnvelope } = JSON.parse(textOf(bytes));
  const payload = Uint8Array.fromBase64(dsseEnvelope.payload);
  const encoded = new Uint8Array([
    ...new TextEncoder().encode(`DSSEv1 28 ${dsseEnvelope.payloadType} ${payload.length} `),
    ...payload,
  ]);
  ok(verify(
    null,
    encoded,
    createPublicKey(signerPem(raw)),
    Uint8Array.fromBase64(dsseEnvelope.signatures[0].sig),
  ));
  deepStrictEqual([mediaType, verificationMaterial, dsseEnvelope.payloadType, JSON.parse(textOf(payload))], [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    { publicKey: { hint: signer.id }, tlogEntries: [] },
    PAYLOAD_TYPE,
    statementOf([["card.json", "00".repeat(32)], ["graph.onnx", "11".repeat(32)], [
      "vocabulary.json",
      "22".repeat(32),
    ]], {
      portcullis: { serial: 7, license: "MIT", added: "2026-01-02T03:04:05.000Z" },
    }),
  ]);
});

Deno.test("a bundle of another tool is believed where its signer is, with members that we do not know and without a serial", async () => {
  const tool = otherTool();
  const trusted = await trusting(tool.raw);
  const bundle = bundleOf(statementOf([["d/x", "ab".repeat(32)]], { more: 1 }), tool);
  const read = await verifyManifest(bytesOf({ ...bundle, more: 1 }), trusted);
  deepStrictEqual(
    read.ok && [read.value.serial, read.value.license, read.value.signer, [...read.value.files]],
    [null, null, tool.hint, [["d/x", "ab".repeat(32)]]],
  );
});

Deno.test("what is no bundle of a trusted signer, or not as it was signed, is not believed", async () => {
  const tool = otherTool();
  const trusted = await trusting(tool.raw);
  const good = statementOf([["a", "ab".repeat(32)], ["b", "cd".repeat(32)]]);
  const reasonOf = async (bytes: Uint8Array) => {
    const read = await verifyManifest(bytes, trusted);
    return read.ok ? "ok" : read.reason;
  };
  const signed = (statement: unknown) => reasonOf(bytesOf(bundleOf(statement, tool)));
  strictEqual(await signed(good), "ok");

  const stranger = bundleOf(good, otherTool());
  strictEqual(await reasonOf(bytesOf(stranger)), "signer_unknown");
  strictEqual(
    await reasonOf(bytesOf(bundleOf(good, { ...otherTool(), hint: tool.hint }))),
    "signature_wrong",
  );
  const bundle = bundleOf(good, tool);
  const otherPayload = bundleOf(statementOf([["a", "00".repeat(32)]]), tool).dsseEnvelope.payload;
  strictEqual(
    await reasonOf(bytesOf({ ...bundle, dsseEnvelope: { ...bundle.dsseEnvelope, payload: otherPayload } })),
    "signature_wrong",
  );

  strictEqual(
    await signed({ ...good, subject: [{ name: "a", digest: { sha256: "00".repeat(32) } }] }),
    "manifest_inconsistent",
  );
  strictEqual(
    await signed(statementOf([["a", "ab".repeat(32)], ["a", "cd".repeat(32)]])),
    "manifest_inconsistent",
  );
  for (
    const statement of [
      { ...good, _type: "https://in-toto.io/Statement/v0.1" },
      { ...good, predicateType: "https://model_signing/Digests/v0.1" },
      { ...good, subject: [...good.subject, ...good.subject] },
      statementOf([["a", "AB".repeat(32)]]),
      statementOf([]),
      statementOf([["a", "ab".repeat(32)]], { serialization: { method: "shards", hash_type: "sha256" } }),
      statementOf([["a", "ab".repeat(32)]], { portcullis: { serial: 0 } }),
      statementOf([["a", "ab".repeat(32)]], { portcullis: { serial: 1.5 } }),
      statementOf([["a", "ab".repeat(32)]], { portcullis: { serial: 2 ** 48 + 1 } }),
      null,
    ]
  ) strictEqual(await signed(statement), "manifest_malformed", JSON.stringify(statement));

  for (
    const broken of [
      "",
      "{",
      `${JSON.stringify(bundle)}{}`,
      JSON.stringify(bundle).replace("{", '{"mediaType":"x",'),
      { ...bundle, mediaType: "application/json" },
      { ...bundle, verificationMaterial: {} },
      { ...bundle, dsseEnvelope: { ...bundle.dsseEnvelope, payloadType: "application/json" } },
      { ...bundle, dsseEnvelope: { ...bundle.dsseEnvelope, payload: "*" } },
      { ...bundle, dsseEnvelope: { ...bundle.dsseEnvelope, signatures: [] } },
      { ...bundle, dsseEnvelope: { ...bundle.dsseEnvelope, signatures: [{ sig: "AA==" }, { sig: "AA==" }] } },
    ]
  ) {
    const bytes = typeof broken === "string" ? new TextEncoder().encode(broken) : bytesOf(broken);
    strictEqual(await reasonOf(bytes), "manifest_malformed", textOf(bytes).slice(0, 60));
  }
  const short = { ...bundle, dsseEnvelope: { ...bundle.dsseEnvelope, signatures: [{ sig: "AAAA" }] } };
  strictEqual(await reasonOf(bytesOf(short)), "signature_wrong");
});
