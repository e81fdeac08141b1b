// Account principal: whom a token is made for, or who asks about one, with all that its roles give at this moment.
import { coversAll } from "../../access/decide.ts";
import { type Grant, grantsIn } from "../../access/grant.ts";
import type { Principal } from "../../access/principal.ts";
import type { RoleBook } from "../../access/role_book.ts";
import { Fault } from "../../faults/fault.ts";
import type { Client } from "../../identity/clients.ts";
import type { Standing } from "../../identity/standings.ts";

/** What a principal is made of here. */
export interface AccountPrincipalParts {
  readonly issuer: string;
  readonly roleBook: RoleBook;
}

const SCOPE_CHARACTERS_MAX = 2000;

/** A client that has proved itself. */
export function clientPrincipal(parts: AccountPrincipalParts, { id, team, roles }: Client): Principal {
  return accountPrincipal(parts, id, { kind: "client", team, roles });
}

/** An account of this server, narrowed by nothing. */
export function accountPrincipal(
  { issuer, roleBook }: AccountPrincipalParts,
  subject: string,
  { kind, team, roles }: Pick<Standing, "kind" | "team" | "roles">,
): Principal {
  return {
    issuer,
    subject,
    kind,
    team,
    roles,
    grants: roleBook.grantsOf(team, roles),
    scope: null,
    credential: { kind: "access_token", id: subject, expiresAtSeconds: null, session: null, boundTo: null },
  };
}

/**
 * What a `scope` parameter (RFC 6749 §3.3) narrows a token to; null where there is none.
 *
 * @throws Fault `scope_refused` where a word is no grant, or gives more than the account has
 */
export function narrowScope(principal: Principal, asked: string | undefined): readonly Grant[] | null {
  if (asked === undefined) return null;
  const words = asked.length > SCOPE_CHARACTERS_MAX ? [""] : asked.split(" ");
  const grants = grantsIn(words);
  if (grants.length < words.length) throw scopeRefused("a word of it is no grant");
  if (!coversAll(principal, grants)) throw scopeRefused("the account does not have all of it");
  return grants;
}

function scopeRefused(state: string): Fault {
  return new Fault("scope_refused", `Cannot narrow a token to a scope: ${state}`);
}
