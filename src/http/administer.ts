// Administer: what every handler that changes people, programs and what is theirs asks first, and how it refuses.
import type { Action } from "../access/action.ts";
import { coversAll, decide, type Resource } from "../access/decide.ts";
import { canGive } from "../access/give.ts";
import type { Grant } from "../access/grant.ts";
import type { Principal } from "../access/principal.ts";
import type { IdPrefix } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import type { Kept } from "../identity/kept.ts";
import type { Exchange } from "./exchange.ts";
import { objectNotFound } from "./require_access.ts";

interface Range {
  readonly after?: string;
  readonly limit: number;
}

/** An account of this server, or what belongs to it, as something that is asked for. */
export function accountResource(issuer: string, subject: string, team: string | null): Resource {
  return { kind: "object", owner: { issuer, subject }, team };
}

/** A team, or what belongs to it as a whole; null: to the server as a whole. */
export function teamResource(team: string | null): Resource {
  return { kind: "object", owner: null, team };
}

/** Whether a caller is an account of this server. */
export function isOneself({ issuer, subject }: Principal, ownIssuer: string, id: string): boolean {
  return issuer === ownIssuer && subject === id;
}

/**
 * A page of accounts for a caller to be filtered: whoever sees nothing but what is their own does not walk through everybody's.
 *
 * @param action what the filter asks for
 */
export async function listFor<Account>(
  { list, read }: {
    list(range: Range): Promise<readonly Account[]>;
    read(id: string): Promise<Kept<Account> | undefined>;
  },
  principal: Principal,
  action: Action,
  range: Range,
): Promise<readonly Account[]> {
  if (seesOthers(principal, action)) return await list(range);
  const own = range.after === undefined ? await read(principal.subject) : undefined;
  return own === undefined ? [] : [own.value];
}

/** Whether a caller may see anything of this kind that belongs to others. */
export function seesOthers(principal: Principal, action: Action): boolean {
  return decide(principal, action, teamResource(principal.team)).ok;
}

/** The id in the path. Throws Fault `not_found` where it is none of its kind: nothing else reaches the store. */
export function idInPath({ parameters: { id = "" } }: Exchange, prefix: IdPrefix): string {
  if (!/^[a-z]{3}_[0-9a-hjkmnp-tv-z]{26}$/.test(id) || !id.startsWith(prefix)) {
    throw objectNotFound("the path holds no id of its kind");
  }
  return id;
}

/** For a role: throws Fault `forbidden` unless the caller has all of it, for members of that team. */
export function requireGivable(principal: Principal, grants: readonly Grant[], toTeam: string | null): void {
  if (!canGive(principal, grants, toTeam)) throw notYours();
}

/** For a scope, which only narrows what its owner has: throws Fault `forbidden` unless the caller has all of it. */
export function requireCovered(principal: Principal, scope: readonly Grant[]): void {
  if (!coversAll(principal, scope)) throw notYours();
}

function notYours(): Fault {
  return new Fault("forbidden", "Cannot hand out grants: the caller lacks some of them", {
    detail: "You cannot give what you do not have.",
  });
}

/** So that there is always an admin left. */
export function notOneself(what: string): Fault {
  return new Fault("conflict", `Cannot change ${what}: it is the caller`, {
    detail: "Somebody else has to do that.",
  });
}

/** The refusal of a compare-and-set. */
export function changedMeanwhile(what: string): Fault {
  return new Fault("conflict", `Cannot change ${what}: it was changed meanwhile`, {
    detail: "It was changed meanwhile. Read it again.",
  });
}

/** A field whose form is right and which still cannot be. `path` is a JSON Pointer. */
export function fieldRefused(path: string, message: string): Fault {
  return new Fault("fields_invalid", `Cannot accept a body: ${path} ${message}`, {
    fields: [{ path, message }],
  });
}

/** Whole seconds since 1970, as answers have times. */
export function inSeconds(ms: number): number {
  return Math.floor(ms / 1000);
}

/** The same of a moment that may never have been. */
export function inSecondsOrNull(ms: number | null): number | null {
  return ms === null ? null : inSeconds(ms);
}
