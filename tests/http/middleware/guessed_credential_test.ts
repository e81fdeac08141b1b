// Tests of guessed credentials: what nobody was ever given counts, and nothing that an honest client may hold.
import { match, strictEqual } from "node:assert/strict";
import { guessDigest, isGuessedCredential } from "../../../src/http/middleware/guessed_credential.ts";
import type { AuthenticationRefusal } from "../../../src/identity/authenticate.ts";

const GUESSED: readonly AuthenticationRefusal[] = [
  "scheme_unknown",
  "malformed",
  "header_refused",
  "algorithm_refused",
  "signature_wrong",
  "key_malformed",
  "key_wrong",
];
const HONEST: readonly AuthenticationRefusal[] = [
  // Nothing was sent.
  "missing",
  // A token that has just expired, or is for somebody else.
  ...["expired", "not_yet_valid", "key_expired", "type_refused", "claims_malformed", "issuer_wrong"] as const,
  "issuer_unknown",
  ...["audience_wrong", "lifetime_too_long", "confirmation_refused", "key_unknown"] as const,
  // What was taken back, and where it is used from.
  ...["revoked", "subject_inactive", "address_not_allowed"] as const,
  // What RFC 9449 asks for in the next request.
  ...[
    "proof_missing",
    "not_bound",
    "bound_to_other_key",
    "proof_nonce_missing",
    "proof_nonce_wrong",
  ] as const,
  ...["proof_malformed", "proof_header_refused", "proof_key_refused", "proof_signature_wrong"] as const,
  ...["proof_claims_wrong", "proof_for_other_request", "proof_time_wrong", "proof_token_wrong"] as const,
  "proof_replayed",
];

Deno.test("a credential that nobody was ever given is a guess; none, an expired one, a proof that needs a nonce is not", () => {
  for (const reason of GUESSED) strictEqual(isGuessedCredential({ ok: false, reason }), true, reason);
  for (const reason of HONEST) strictEqual(isGuessedCredential({ ok: false, reason }), false, reason);
});

Deno.test("a genuine credential is no guess, whatever it is refused for", () => {
  const whose = { issuer: "https://ai.example.com", subject: "usr_1", team: "default", credential: "tok_1" };
  for (const reason of [...GUESSED, ...HONEST]) {
    strictEqual(isGuessedCredential({ ok: false, reason, whose }), false, reason);
  }
});

Deno.test("an API key of an unknown id or with a wrong secret is a guess, an expired one is none", () => {
  for (
    const [reason, isGuess] of [["key_unknown", true], ["key_wrong", true], ["key_expired", false]] as const
  ) {
    strictEqual(isGuessedCredential({ ok: false, reason, claimed: "pck_1" }), isGuess, reason);
  }
});

Deno.test("the digest of a guess is short, the same for the same texts, and another wherever one of them or their border differs", () => {
  const digest = guessDigest("admin", "guess");
  match(digest, /^[A-Za-z0-9_-]{16}$/);
  strictEqual(guessDigest("admin", "guess"), digest);
  const others = [["admin", "gues5"], ["admi", "nguess"], ["adminguess"], ["guess", "admin"], [
    'admin","guess',
  ]];
  strictEqual(new Set([digest, ...others.map((texts) => guessDigest(...texts))]).size, others.length + 1);
});
