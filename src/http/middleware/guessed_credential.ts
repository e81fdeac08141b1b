// Guessed credential: which refusals of a credential count towards a ban, and what makes two of them the same guess.
import { hash } from "node:crypto";
import type { AuthenticationRefusal, Recognition } from "../../identity/authenticate.ts";

/**
 * What a credential is refused for before anything of it was found to be genuine. `type_refused` is none of them: the tokens of an
 * issuer that are meant for somebody else (ID tokens) end there too. Nor is `issuer_unknown`: whoever invents an issuer guesses
 * nothing, and whoever's issuer was taken away holds what was good.
 */
const BEFORE_ANYTHING_IS_GENUINE: ReadonlySet<AuthenticationRefusal> = new Set(
  [
    "scheme_unknown",
    "malformed",
    "header_refused",
    "algorithm_refused",
    "signature_wrong",
    "key_malformed",
    "key_wrong",
  ] as const,
);

/**
 * Whether what was sent is nothing that this server, or an issuer that it trusts, ever gave out. All else was given to somebody
 * once, and may come from a client that has not noticed its end: that must not cost its address the access.
 */
export function isGuessedCredential(
  { reason, whose, claimed }: Extract<Recognition, { readonly ok: false }>,
): boolean {
  if (whose !== undefined) return false;
  // Tokens whose key is unknown come from honest clients too, while an issuer changes its keys. Of an API key it is the id.
  if (reason === "key_unknown") return claimed !== undefined;
  return BEFORE_ANYTHING_IS_GENUINE.has(reason);
}

/**
 * 96 bits that tell one credential from another, so that the same one again is no new guess: a client that goes on with what is
 * over does not cost everybody behind its address the access.
 *
 * @param parts the texts of the credential; it is not kept
 */
export function guessDigest(...parts: readonly string[]): string {
  return hash("sha256", JSON.stringify(parts), "base64url").slice(0, 16);
}
