// Prove key: the proof of possession that comes with a request for a token (RFC 9449 §5).
import { Fault } from "../faults/fault.ts";
import type { DpopProofs } from "../identity/dpop_proof.ts";
import type { Exchange } from "./exchange.ts";

/**
 * The thumbprint of the key that a request proves, to bind a token to; null where it proves none. Whoever proves is given the
 * nonce, be it for the next time (RFC 9449 §8.2).
 *
 * @param path the endpoint's own
 * @throws Fault `proof_nonce_needed` · `proof_refused`
 */
export async function proveKey(
  { request, answerHeaders }: Exchange,
  proofs: DpopProofs,
  path: string,
): Promise<string | null> {
  const proof = request.headers.get("dpop");
  if (proof === null) return null;
  answerHeaders["DPoP-Nonce"] = proofs.nonce();
  const proved = await proofs.verify(proof, { method: request.method, path }, undefined);
  if (proved.ok) return proved.value;
  const { reason } = proved;
  const needsNonce = reason === "proof_nonce_missing" || reason === "proof_nonce_wrong";
  throw new Fault(
    needsNonce ? "proof_nonce_needed" : "proof_refused",
    `Cannot bind a token to a key: ${reason}`,
  );
}
