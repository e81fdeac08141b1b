// Public keys of others: what a stranger's JWK must be before a signature is checked with it (RFC 7517, RFC 7518 §6, RFC 8037 §2).
import { createPublicKey } from "node:crypto";
import { calculateJwkThumbprint } from "jose";
import { decodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { UntrustedObject } from "./strict_jws.ts";

/** The signatures of others that are checked here; neither `none` nor one with a shared secret (RFC 8725 §3.2). */
export const ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "ES384", "RS256", "PS256"] as const;
/** One of them. */
export type SignatureAlgorithm = typeof ALGORITHMS[number];

/** Whether a header names one of `ALGORITHMS`. */
export function isSignatureAlgorithm(value: JsonValue | undefined): value is SignatureAlgorithm {
  return ALGORITHMS.some((algorithm) => algorithm === value);
}

/** One algorithm under two names: RFC 9864 §2.2 calls Ed25519 what RFC 8037 called EdDSA, and does the same. */
export function isSameAlgorithm(one: JsonValue | undefined, other: SignatureAlgorithm): boolean {
  return one === other || (one === "EdDSA" && other === "Ed25519") ||
    (one === "Ed25519" && other === "EdDSA");
}

/** A key's public members and nothing else: of a stranger's object no more goes on. */
type PublicMembers =
  | { readonly kty: "OKP"; readonly crv: "Ed25519"; readonly x: string }
  | { readonly kty: "EC"; readonly crv: "P-256" | "P-384"; readonly x: string; readonly y: string }
  | { readonly kty: "RSA"; readonly n: string; readonly e: string };

/** RFC 8725 §3.1: each algorithm has its kind of key, told by the curve's name, and no other. */
const KINDS: Readonly<
  Record<
    SignatureAlgorithm,
    { crv: string; parameters: EcKeyImportParams | RsaHashedImportParams | "Ed25519" }
  >
> = {
  Ed25519: { crv: "Ed25519", parameters: "Ed25519" },
  EdDSA: { crv: "Ed25519", parameters: "Ed25519" },
  ES256: { crv: "P-256", parameters: { name: "ECDSA", namedCurve: "P-256" } },
  ES384: { crv: "P-384", parameters: { name: "ECDSA", namedCurve: "P-384" } },
  RS256: { crv: "none", parameters: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } },
  PS256: { crv: "none", parameters: { name: "RSA-PSS", hash: "SHA-256" } },
};

const PRIVATE_MEMBERS = ["d", "p", "q", "dp", "dq", "qi", "k", "oth"];
/** RFC 7518 §6.2.1.2: a coordinate has all octets of its curve, zeros in front included. */
const COORDINATE_BYTES = { "Ed25519": 32, "P-256": 32, "P-384": 48 } as const;
/** ASVS V11.2.3: 128 bits of security. The runtime verifies nothing with a modulus above 4096 bits. */
const RSA_BITS_MIN = 3072, RSA_BITS_MAX = 4096;
/** 65537: what key generators write, and what bounds the cost of a check. FIPS 186-5 allows none below it. */
const RSA_EXPONENT = "AQAB";
/**
 * Ed25519 keys under which a signature proves nothing, sign bit cleared: the points of small order (y = 0, 1, -1 and the two
 * of order 8), whose signatures anyone can write and the runtime accepts; and y ≥ 2^255 - 19, a second text for one key (RFC 8032 §5.1.3).
 */
const ED25519_WORTHLESS = new RegExp(
  "^(?:0[01](?:00){31}|(?:e[c-f]|f.)(?:ff){30}7f" +
    "|26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05" +
    "|c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a)$",
);

/**
 * Imports a stranger's key for one algorithm. Refused are: another type or curve than the algorithm's, RSA below 3072 or above
 * 4096 bits or with an exponent other than 65537, points that are on no curve or of small order, private members, members
 * that say it is for something else (`use`, `alg`, `key_ops`), and values in any but their one canonical form.
 */
export async function importPublicKey(
  jwk: UntrustedObject,
  algorithm: SignatureAlgorithm,
): Promise<Outcome<CryptoKey, "key_refused">> {
  const members = publicMembers(jwk);
  const { crv, parameters } = KINDS[algorithm];
  if (members === undefined || !isMeantFor(jwk, algorithm)) return no("key_refused");
  if (("crv" in members ? members.crv : "none") !== crv || !isSound(members)) return no("key_refused");
  try {
    return ok(await crypto.subtle.importKey("jwk", members, parameters, false, ["verify"]));
  } catch {
    return no("key_refused");
  }
}

/** RFC 7638: the SHA-256 thumbprint of a public key, in base64url. One key has one: other forms of its members are refused. */
export async function thumbprint(jwk: UntrustedObject): Promise<Outcome<string, "key_refused">> {
  const members = publicMembers(jwk);
  return members === undefined ? no("key_refused") : ok(await calculateJwkThumbprint(members));
}

function publicMembers(jwk: UntrustedObject): PublicMembers | undefined {
  if (PRIVATE_MEMBERS.some((member) => Object.hasOwn(jwk, member))) return undefined;
  const { kty, crv, x, y, n, e } = jwk;
  if (kty === "OKP" && crv === "Ed25519") {
    return hasBytes(x, COORDINATE_BYTES[crv]) ? { kty, crv, x } : undefined;
  }
  if (kty === "EC" && (crv === "P-256" || crv === "P-384")) {
    const bytes = COORDINATE_BYTES[crv];
    return hasBytes(x, bytes) && hasBytes(y, bytes) ? { kty, crv, x, y } : undefined;
  }
  return kty === "RSA" && isUint(n) && isUint(e) ? { kty, n, e } : undefined;
}

/** RFC 7517 §4.2–§4.5: what the key says of its own use, where it says something. */
function isMeantFor({ use, alg, kid, key_ops }: UntrustedObject, algorithm: SignatureAlgorithm): boolean {
  return (use === undefined || use === "sig") && (alg === undefined || isSameAlgorithm(alg, algorithm)) &&
    (kid === undefined || typeof kid === "string") &&
    (key_ops === undefined ||
      Array.isArray(key_ops) && key_ops.includes("verify") && new Set(key_ops).size === key_ops.length &&
        key_ops.every((operation) => typeof operation === "string"));
}

function isSound(members: PublicMembers): boolean {
  if (members.kty === "RSA") {
    const modulus = bytesOf(members.n);
    const bits = modulus.byteLength * 8 - (Math.clz32(modulus[0] ?? 0) - 24);
    const isOdd = (modulus.at(-1) ?? 0) % 2 === 1;
    return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX && isOdd && members.e === RSA_EXPONENT;
  }
  if (members.kty === "OKP") {
    const y = bytesOf(members.x).slice();
    y[31] = (y[31] ?? 0) & 0x7f;
    if (ED25519_WORTHLESS.test(y.toHex())) return false;
  }
  // The runtime's WebCrypto takes points that are on no curve and notices at the first signature; this door looks at once.
  try {
    createPublicKey({ key: members, format: "jwk" });
    return true;
  } catch {
    return false;
  }
}

function bytesOf(text: string): Uint8Array {
  const bytes = decodeBase64url(text);
  return bytes.ok ? bytes.value : new Uint8Array();
}

function hasBytes(value: JsonValue | undefined, count: number): value is string {
  return typeof value === "string" && bytesOf(value).byteLength === count;
}

/** RFC 7518 §2, Base64urlUInt: no more octets than the number needs. */
function isUint(value: JsonValue | undefined): value is string {
  return typeof value === "string" && (bytesOf(value)[0] ?? 0) > 0;
}
