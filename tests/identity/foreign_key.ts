// A foreign key: a key pair of somebody else, as a JWK and as a signer that writes whatever it is told.
import { constants, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import type { SignatureAlgorithm } from "../../src/identity/public_key.ts";
import type { Signer } from "./forge_token.ts";

export interface ForeignKey {
  readonly publicJwk: Readonly<Record<string, string>>;
  readonly privateJwk: Readonly<Record<string, string>>;
  readonly publicPem: string;
  readonly signer: Signer;
}

/** Makes a key pair and its signer. */
export function makeForeignKey(algorithm: SignatureAlgorithm, rsaBits = 3072): ForeignKey {
  return foreignKey(algorithm, generate(algorithm, rsaBits));
}

/** A key for each algorithm; the two of RSA share theirs, for one is dear to make. */
export function makeForeignKeys(): Readonly<Record<SignatureAlgorithm, ForeignKey>> {
  const rsa = generate("RS256", 3072);
  return {
    EdDSA: makeForeignKey("EdDSA"),
    Ed25519: makeForeignKey("Ed25519"),
    ES256: makeForeignKey("ES256"),
    ES384: makeForeignKey("ES384"),
    RS256: foreignKey("RS256", rsa),
    PS256: foreignKey("PS256", rsa),
  };
}

function foreignKey(
  algorithm: SignatureAlgorithm,
  { publicKey, privateKey }: { publicKey: KeyObject; privateKey: KeyObject },
): ForeignKey {
  return {
    publicJwk: publicKey.export({ format: "jwk" }) as Record<string, string>,
    privateJwk: privateKey.export({ format: "jwk" }) as Record<string, string>,
    publicPem: String(publicKey.export({ type: "spki", format: "pem" })),
    signer: foreignSigner(algorithm, privateKey),
  };
}

function generate(algorithm: SignatureAlgorithm, modulusLength: number) {
  switch (algorithm) {
    case "EdDSA":
    case "Ed25519":
      return generateKeyPairSync("ed25519");
    case "ES256":
      return generateKeyPairSync("ec", { namedCurve: "P-256" });
    case "ES384":
      return generateKeyPairSync("ec", { namedCurve: "P-384" });
    case "RS256":
    case "PS256":
      return generateKeyPairSync("rsa", { modulusLength });
  }
}

function foreignSigner(algorithm: SignatureAlgorithm, key: KeyObject): Signer {
  const hash = algorithm.startsWith("Ed") ? null : algorithm === "ES384" ? "sha384" : "sha256";
  const options = algorithm.startsWith("ES")
    ? { key, dsaEncoding: "ieee-p1363" as const }
    : algorithm === "PS256"
    ? { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }
    : { key };
  return (text) => sign(hash, new TextEncoder().encode(text), options);
}
