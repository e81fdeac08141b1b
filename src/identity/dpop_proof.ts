// DPoP proofs: that whoever sends a request holds a key, now, for this request and this token (RFC 9449).
import { createHmac, hash } from "node:crypto";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { Clock } from "../time/clock.ts";
import { importPublicKey, isSignatureAlgorithm, type SignatureAlgorithm, thumbprint } from "./public_key.ts";
import type { ReplayStore } from "./replay_store.ts";
import { isIdText, isSeconds, parseJws, type UntrustedObject, verifyJws } from "./strict_jws.ts";

/** Why a proof was refused; for the audit trail. The two of the nonce are answered with `use_dpop_nonce` (RFC 9449 §8). */
export type DpopRefusal =
  | "proof_malformed"
  | "proof_header_refused"
  | "proof_key_refused"
  | "proof_signature_wrong"
  | "proof_claims_wrong"
  | "proof_for_other_request"
  | "proof_time_wrong"
  | "proof_nonce_missing"
  | "proof_nonce_wrong"
  | "proof_token_wrong"
  | "proof_replayed";

/** Checks proofs, and gives the nonces that they must hold. */
export interface DpopProofs {
  /**
   * Checks one proof in full (RFC 9449 §4.3). Throws nothing but the replay store's Fault.
   *
   * @param proof the one value of the one `DPoP` header; that there is no second is the caller's to check
   * @param request the method as it came, and the path without query, in the form of the URL standard
   * @param accessToken the token or key that it comes with; undefined at the token endpoint
   * @returns the RFC 7638 thumbprint of its key
   */
  verify(
    proof: string,
    request: { readonly method: string; readonly path: string },
    accessToken: string | undefined,
  ): Promise<Outcome<string, DpopRefusal>>;
  /** The nonce to send in `DPoP-Nonce` (RFC 9449 §8). */
  nonce(): string;
}

const AGE_SECONDS_MAX = 60;
const CLOCK_LEEWAY_SECONDS = 5;
/** A nonce passes for one to two of these. */
const NONCE_WINDOW_MS = 150_000;

/**
 * Opens the verifier.
 *
 * @param options.publicUrl what clients call this server; `htu` is compared with it and never with the Host header, which is the
 * sender's
 * @param options.nonceKey undefined: nonces are of this process, and a restart makes all older proofs worthless, so that `replays`
 * may live in memory. Given (32 bytes): nonces are of all instances that have it. Then proofs outlive each of them, and `replays`
 * must be durable and shared; and as instances share the wall clock alone, a proof can live again where that is set back
 */
export function openDpopProofs(options: {
  readonly publicUrl: string;
  readonly clock: Clock;
  readonly replays: ReplayStore;
  readonly nonceKey: Uint8Array | undefined;
}): DpopProofs {
  const { publicUrl, clock, replays, nonceKey } = options;
  const nonces = nonceKey === undefined ? ownNonces(clock) : sharedNonces(clock, nonceKey);
  const base = publicUrl.replace(/\/$/, "");

  return {
    nonce: nonces.current,
    async verify(proof, { method, path }, accessToken) {
      const jws = parseJws(proof);
      if (!jws.ok) return no("proof_malformed");
      const header = checkHeader(jws.value.header);
      if (!header.ok) return header;
      const { algorithm, jwk } = header.value;
      const key = await importPublicKey(jwk, algorithm);
      const keyId = await thumbprint(jwk);
      if (!key.ok || !keyId.ok) return no("proof_key_refused");
      if (!await verifyJws(jws.value, key.value, algorithm)) return no("proof_signature_wrong");

      const { claims } = jws.value;
      const form = checkForm(claims);
      if (!form.ok) return form;
      const { jti, htm, url, iat } = form.value;
      // A path such as `@evil.example/` behind a bare origin would change the host.
      if (!path.startsWith("/") || url !== comparable(`${base}${path}`)) return no("proof_for_other_request");
      if (htm !== method) return no("proof_for_other_request");
      const nowSeconds = clock.now() / 1000;
      if (iat < nowSeconds - AGE_SECONDS_MAX || iat > nowSeconds + CLOCK_LEEWAY_SECONDS) {
        return no("proof_time_wrong");
      }
      if (claims.nonce === undefined) return no("proof_nonce_missing");
      if (!nonces.passes(claims.nonce)) return no("proof_nonce_wrong");
      if (!isForToken(claims.ath, accessToken)) return no("proof_token_wrong");

      // Last, so that only genuine proofs take memory; by key, so that nobody uses up the ids of others.
      const use = hash("sha256", `dpop ${keyId.value} ${jti}`, "base64");
      const first = await replays.firstUse(use, (iat + AGE_SECONDS_MAX) * 1000 + 1);
      return first ? keyId : no("proof_replayed");
    },
  };
}

/** `typ`, `alg` and `jwk`, all of them and nothing else: no `crit`, and no second way to name a key (RFC 8725 §3.10, §3.11). */
function checkHeader(
  { typ, alg, jwk, ...rest }: UntrustedObject,
): Outcome<{ algorithm: SignatureAlgorithm; jwk: UntrustedObject }, "proof_header_refused"> {
  if (Object.keys(rest).length > 0) return no("proof_header_refused");
  if (typeof typ !== "string" || typ.toLowerCase() !== "dpop+jwt") return no("proof_header_refused");
  if (!isSignatureAlgorithm(alg)) return no("proof_header_refused");
  if (typeof jwk !== "object" || jwk === null || Array.isArray(jwk)) return no("proof_header_refused");
  return ok({ algorithm: alg, jwk: jwk as UntrustedObject });
}

/** The claims that each proof has (RFC 9449 §4.2), in their forms. Others are ignored (RFC 7519 §4). */
function checkForm(
  { jti, htm, htu, iat }: UntrustedObject,
): Outcome<{ jti: string; htm: string; url: string; iat: number }, "proof_claims_wrong"> {
  const url = typeof htu === "string" ? parseTarget(htu) : undefined;
  return isIdText(jti) && typeof htm === "string" && url !== undefined && isSeconds(iat)
    ? ok({ jti, htm, url, iat })
    : no("proof_claims_wrong");
}

/**
 * An `htu` in comparable form; undefined where it is no URL such as RFC 9449 §4.2 asks for. Query and fragment are refused,
 * though §4.3 would let a server ignore them: §4.2 forbids them, and no client in use sends them.
 */
function parseTarget(htu: string): string | undefined {
  // What the URL standard would bend into shape (white space, backslashes, slashes too few or too many) or drop (a user).
  const strict = /^https?:\/\/[^/@]+(?:\/|$)/i.test(htu) && /^[!-~]+$/.test(htu) && !/[?#\\]/.test(htu);
  return strict ? comparable(htu) : undefined;
}

/** Origin and path, with scheme, host, default port and dot segments in one form (RFC 9449 §4.3: syntax- and scheme-based). */
function comparable(text: string): string | undefined {
  const url = URL.parse(text);
  return url === null ? undefined : url.origin + url.pathname;
}

/** RFC 9449 §4.3: `ath` is the hash of the token that comes with the proof; without a token there is none. */
function isForToken(ath: JsonValue | undefined, accessToken: string | undefined): boolean {
  if (accessToken === undefined) return ath === undefined;
  return isSame(ath, hash("sha256", accessToken, "base64url"));
}

function isSame(value: JsonValue | undefined, expected: string): boolean {
  return typeof value === "string" && constantTimeEqual(encodeUtf8(value), encodeUtf8(expected));
}

interface Nonces {
  current(): string;
  passes(nonce: JsonValue): boolean;
}

/** The key is of this process and the time cannot go back, so that a proof's life ends even where the wall clock jumps. */
function ownNonces(clock: Clock): Nonces {
  return noncesOf(crypto.getRandomValues(new Uint8Array(32)), () => clock.monotonic(), 0);
}

/** One instance's nonce passes at another whose clock is a little behind. */
function sharedNonces(clock: Clock, key: Uint8Array): Nonces {
  return noncesOf(key, () => clock.now(), CLOCK_LEEWAY_SECONDS * 1000);
}

/** Nonces without memory: a keyed hash of the number of a span of time. */
function noncesOf(key: Uint8Array, nowMs: () => number, leewayMs: number): Nonces {
  const windowAt = (atMs: number) => Math.floor(atMs / NONCE_WINDOW_MS);
  const nonceOf = (window: number) => createHmac("sha256", key).update(`${window}`).digest("base64url");
  return {
    current: () => nonceOf(windowAt(nowMs())),
    passes(nonce) {
      const atMs = nowMs();
      const window = windowAt(atMs);
      return [window, window - 1, windowAt(atMs + leewayMs)].some((each) => isSame(nonce, nonceOf(each)));
    },
  };
}
