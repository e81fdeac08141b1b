// Issuer under test: a server that publishes a key set as a script says, and keys of every algorithm to sign with.
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { openLog } from "../../../src/telemetry/log.ts";
import type { SignatureAlgorithm } from "../../../src/identity/public_key.ts";
import { manualClock } from "../../support/manual_clock.ts";
import type { Certificate } from "../../support/self_signed_certificate.ts";
import { answerJson, type Script, startScriptedUpstream } from "../../support/scripted_upstream.ts";
import type { Signer } from "../forge_token.ts";

/** Seconds since 1970 at which the tests' clocks stand. */
export const NOW_SECONDS = 1_750_000_000;

/** A key pair under a `kid`. */
export interface TestKey {
  readonly kid: string;
  readonly alg: SignatureAlgorithm;
  /** As an issuer publishes it. */
  readonly jwk: Readonly<Record<string, unknown>>;
  readonly publicKey: KeyObject;
  readonly sign: Signer;
}

/** @param bits of an RSA modulus */
export function makeKey(kid: string, alg: SignatureAlgorithm, bits = 3072): TestKey {
  const { privateKey, publicKey } = alg === "EdDSA"
    ? generateKeyPairSync("ed25519")
    : alg === "ES256" || alg === "ES384"
    ? generateKeyPairSync("ec", { namedCurve: alg === "ES256" ? "P-256" : "P-384" })
    : generateKeyPairSync("rsa", { modulusLength: bits });
  const digest = alg === "EdDSA" ? null : alg === "ES384" ? "sha384" : "sha256";
  // RFC 7518 §3.4, §3.5: r and s side by side; a salt as long as the digest, by MGF1.
  const key = {
    key: privateKey,
    dsaEncoding: "ieee-p1363" as const,
    ...(alg === "PS256" ? { padding: 6, saltLength: 32 } : {}),
  };
  return {
    kid,
    alg,
    jwk: { ...createPublicKey(privateKey).export({ format: "jwk" }), kid, alg, use: "sig" },
    publicKey,
    sign: (text) => sign(digest, new TextEncoder().encode(text), key),
  };
}

/** What the set's address answers. */
export function answerKeys(...keys: readonly { readonly jwk: unknown }[]): Script {
  return answerJson({ keys: keys.map(({ jwk }) => jwk) });
}

/** A server for key sets that keeps every request, whatever its method. */
export const startKeyServer = (certificate?: Certificate) =>
  startScriptedUpstream({
    isHealthCheck: () => false,
    ...(certificate === undefined ? {} : { certificate }),
  });

/** A clock, and a log that is kept. */
export function clockAndLog(startMs: number = NOW_SECONDS * 1000) {
  const clock = manualClock(startMs);
  let written = "";
  const log = openLog({
    level: "debug",
    clock,
    sink: (bytes) => {
      written += new TextDecoder().decode(bytes);
      return Promise.resolve(bytes.length);
    },
  });
  /** The lines so far, in order. */
  async function lines(): Promise<Record<string, unknown>[]> {
    await log.flush();
    return written.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  }
  return { clock, log, lines };
}
