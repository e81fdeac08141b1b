// Admin parts: what the routes need that look after people, programs, roles, teams and keys.
import type { RoleBook } from "../../access/role_book.ts";
import type { ApiKeys } from "../../identity/api_keys.ts";
import type { Clients } from "../../identity/clients.ts";
import type { Sessions } from "../../identity/sessions.ts";
import type { SignIn } from "../../identity/sign_in.ts";
import type { SigningKeys } from "../../identity/signing_keys.ts";
import type { Teams } from "../../identity/teams.ts";
import type { Users } from "../../identity/users.ts";
import type { Limiter } from "../../limits/limiter.ts";
import type { BanList } from "../../limits/ban_list.ts";
import type { Clock } from "../../time/clock.ts";
import type { AuditParts } from "./audit_routes.ts";
import type { ModelAdminParts } from "./model_routes.ts";
import type { PayloadParts } from "./payload_routes.ts";
import type { VaultAdminParts } from "./vault_routes.ts";

/** The parts. */
export interface AdminParts extends AuditParts, PayloadParts, ModelAdminParts, VaultAdminParts {
  /** What our own tokens have in `iss`: the issuer of every account of this server. */
  readonly issuer: string;
  readonly users: Users;
  readonly teams: Teams;
  readonly clients: Clients;
  readonly sessions: Sessions;
  readonly signIn: SignIn;
  readonly apiKeys: ApiKeys;
  readonly roleBook: RoleBook;
  readonly signingKeys: SigningKeys;
  readonly limiter: Pick<Limiter, "sums">;
  readonly bans: BanList;
  readonly clock: Clock;
  /** How an address stands in the audit trail. */
  readonly labelAddress: (address: string) => string;
  /** A keyed pseudonym of an account's name, for the audit trail. */
  readonly labelAccount: (username: string) => string;
}
