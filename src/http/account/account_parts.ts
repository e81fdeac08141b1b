// Account parts: what the routes of one's own account need.
import type { RoleBook } from "../../access/role_book.ts";
import type { AccessTokens } from "../../identity/access_token.ts";
import type { ApiKeys } from "../../identity/api_keys.ts";
import type { DpopProofs } from "../../identity/dpop_proof.ts";
import type { Revocations } from "../../identity/revocation.ts";
import type { Sessions } from "../../identity/sessions.ts";
import type { SignIn } from "../../identity/sign_in.ts";
import type { Standings } from "../../identity/standings.ts";
import type { Users } from "../../identity/users.ts";
import type { ReadyPolicy } from "../../limits/limit_policy.ts";
import type { Limiter } from "../../limits/limiter.ts";
import type { Clock } from "../../time/clock.ts";

/** The parts. */
export interface AccountParts {
  /** What our own tokens have in `iss`: the issuer of every account of this server. */
  readonly issuer: string;
  readonly users: Users;
  readonly signIn: SignIn;
  readonly sessions: Sessions;
  readonly accessTokens: AccessTokens;
  readonly revocations: Revocations;
  readonly proofs: DpopProofs;
  readonly apiKeys: ApiKeys;
  readonly standings: Standings;
  readonly roleBook: RoleBook;
  readonly limiter: Pick<Limiter, "sums">;
  readonly policies: readonly ReadyPolicy[];
  readonly clock: Clock;
  /** A keyed pseudonym of an account's name, for the audit trail. */
  readonly labelAccount: (username: string) => string;
}
