// Manifest: the digests of a model's files, signed with Ed25519 in the format of OpenSSF model signing (v1.0): a Sigstore bundle
// around a DSSE envelope around an in-toto statement.
import { hash } from "node:crypto";
import { z } from "zod";
import { canonicalJson } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";

/** What is said of a model. */
export interface ModelStatement {
  readonly model: string;
  /** SHA-256 of each plain file by its name, lower-case hexadecimal. */
  readonly files: ReadonlyMap<string, string>;
  /** Counts up with each version of a model; null where a foreign signer counts none. */
  readonly serial: number | null;
  readonly license: string | null;
  /** RFC 3339, UTC. */
  readonly addedAt: string | null;
}

/** What somebody trusted has said of a model. */
export interface Manifest extends ModelStatement {
  /** Id of the key that signed it. */
  readonly signer: string;
  /** Of the manifest's own file, lower-case hexadecimal. */
  readonly sha256: string;
}

/** Why a manifest is not believed. */
export type ManifestRefusal =
  | "manifest_malformed"
  | "signer_unknown"
  | "signature_wrong"
  | "manifest_inconsistent";

/** Public Ed25519 keys by their ids. */
export type TrustedSigners = ReadonlyMap<string, CryptoKey>;

/** A key that signs manifests. */
export interface ModelSigner {
  readonly id: string;
  readonly privateKey: CryptoKey;
}

const BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE = "https://model_signing/signature/v1.0";
const DEPTH_MAX = 16;
/** Room for what others count by, such as milliseconds since 1970, and far from where a number is no longer exact and none comes after. */
export const SERIAL_MAX = 2 ** 48;
const SPKI_PREFIX = Uint8Array.fromHex("302a300506032b6570032100");

const sha256Text = z.string().regex(/^[0-9a-f]{64}$/);
// What is not known is left aside: both formats leave room for more.
const bundleSchema = z.object({
  mediaType: z.literal(BUNDLE_TYPE),
  verificationMaterial: z.object({ publicKey: z.object({ hint: sha256Text }) }),
  dsseEnvelope: z.object({
    payload: z.string(),
    payloadType: z.literal(PAYLOAD_TYPE),
    // One: a Sigstore bundle has no more.
    signatures: z.array(z.object({ sig: z.string() })).length(1),
  }),
});
const statementSchema = z.object({
  _type: z.literal(STATEMENT_TYPE),
  subject: z.array(z.object({ name: z.string(), digest: z.object({ sha256: sha256Text }) })).length(1),
  predicateType: z.literal(PREDICATE_TYPE),
  predicate: z.object({
    serialization: z.object({ method: z.literal("files"), hash_type: z.literal("sha256") }),
    resources: z.array(z.object({ name: z.string(), algorithm: z.literal("sha256"), digest: sha256Text }))
      .min(1),
    portcullis: z.object({
      serial: z.int().min(1).max(SERIAL_MAX),
      license: z.string().max(100).optional(),
      added: z.iso.datetime().optional(),
    }).optional(),
  }),
});

/**
 * Signs a statement.
 *
 * @returns the bytes of `model.sig`
 */
export async function signManifest(
  statement: ModelStatement & { readonly serial: number },
  signer: ModelSigner,
): Promise<Uint8Array<ArrayBuffer>> {
  const payload = encodeUtf8(statementText(statement));
  const signature = new Uint8Array(
    await crypto.subtle.sign("Ed25519", signer.privateKey, preAuthenticationEncoding(payload)),
  );
  const bundle = {
    mediaType: BUNDLE_TYPE,
    verificationMaterial: { publicKey: { hint: signer.id }, tlogEntries: [] },
    dsseEnvelope: {
      payload: payload.toBase64(),
      payloadType: PAYLOAD_TYPE,
      signatures: [{ sig: signature.toBase64(), keyid: "" }],
    },
  };
  return encodeUtf8(`${JSON.stringify(bundle, undefined, 2)}\n`);
}

/** What a manifest's bytes say, if one of these signers has signed it. Nothing of it is read before the signature is proved. */
export async function verifyManifest(
  bytes: Uint8Array,
  signers: TrustedSigners,
): Promise<Outcome<Manifest, ManifestRefusal>> {
  const bundle = bundleSchema.safeParse(jsonOf(bytes));
  if (!bundle.success) return no("manifest_malformed");
  const { dsseEnvelope, verificationMaterial } = bundle.data;
  const payload = base64Bytes(dsseEnvelope.payload);
  const signature = base64Bytes(dsseEnvelope.signatures[0]?.sig ?? "");
  if (payload === undefined || signature === undefined) return no("manifest_malformed");
  const signer = verificationMaterial.publicKey.hint;
  const key = signers.get(signer);
  if (key === undefined) return no("signer_unknown");
  const signed = preAuthenticationEncoding(payload);
  if (!await crypto.subtle.verify("Ed25519", key, signature, signed)) return no("signature_wrong");

  const statement = statementSchema.safeParse(jsonOf(payload));
  if (!statement.success) return no("manifest_malformed");
  const [subject] = statement.data.subject;
  const { resources, portcullis } = statement.data.predicate;
  const files = new Map(resources.map(({ name, digest }) => [name, digest]));
  const root = rootDigest(resources.map(({ digest }) => digest));
  if (subject === undefined || subject.digest.sha256 !== root || files.size !== resources.length) {
    return no("manifest_inconsistent");
  }
  return ok({
    model: subject.name,
    files,
    serial: portcullis?.serial ?? null,
    license: portcullis?.license ?? null,
    addedAt: portcullis?.added ?? null,
    signer,
    sha256: hash("sha256", bytes, "hex"),
  });
}

/** The id of a public key: SHA-256 of its PEM, as the reference tool has it in its hints. `raw` has 32 bytes. */
export function signerId(raw: Uint8Array): string {
  return hash("sha256", signerPem(raw), "hex");
}

/** A public key as PEM (RFC 8410 §4). `raw` has 32 bytes. */
export function signerPem(raw: Uint8Array): string {
  const der = new Uint8Array(SPKI_PREFIX.length + raw.length);
  der.set(SPKI_PREFIX);
  der.set(raw, SPKI_PREFIX.length);
  return `-----BEGIN PUBLIC KEY-----\n${der.toBase64()}\n-----END PUBLIC KEY-----\n`;
}

/** The digest that stands for all files: over their digests, in the order of the statement. */
export function rootDigest(digests: readonly string[]): string {
  return hash("sha256", Uint8Array.fromHex(digests.join("")), "hex");
}

function statementText({ model, files, serial, license, addedAt }: ModelStatement): string {
  const sorted = [...files].sort(([left], [right]) => left < right ? -1 : 1);
  return canonicalJson({
    _type: STATEMENT_TYPE,
    subject: [{ name: model, digest: { sha256: rootDigest(sorted.map(([, digest]) => digest)) } }],
    predicateType: PREDICATE_TYPE,
    predicate: {
      serialization: { method: "files", hash_type: "sha256", allow_symlinks: false },
      resources: sorted.map(([name, digest]) => ({ name, algorithm: "sha256", digest })),
      // Verifiers of v1.0 ignore members of the predicate that they do not know.
      ...serial === null ? {} : {
        portcullis: {
          serial,
          ...license === null ? {} : { license },
          ...addedAt === null ? {} : { added: addedAt },
        },
      },
    },
  });
}

/** What is signed (DSSE v1.0.0, protocol.md). */
function preAuthenticationEncoding(payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = encodeUtf8(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `);
  const bytes = new Uint8Array(head.length + payload.length);
  bytes.set(head);
  bytes.set(payload, head.length);
  return bytes;
}

function jsonOf(bytes: Uint8Array): unknown {
  const text = decodeUtf8(bytes);
  const json = text.ok ? parseStrictJson(text.value, DEPTH_MAX) : text;
  return json.ok ? json.value : undefined;
}

function base64Bytes(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
  } catch {
    return undefined;
  }
}
