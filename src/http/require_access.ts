// Require access: the step from a decision to its refusal, for the gate and for handlers that have found their object.
import type { Action } from "../access/action.ts";
import { type AccessRefusal, decide, type Resource } from "../access/decide.ts";
import type { Principal } from "../access/principal.ts";
import { Fault } from "../faults/fault.ts";

/**
 * @param resource what the action is done to; absent while it is not known yet
 * @throws Fault `not_found` when the caller may not know of the resource (the same words as for one that does not exist) ·
 * `scope_insufficient` when the roles would allow it and the credential does not · `forbidden`
 */
export function requireAccess(principal: Principal, action: Action, resource?: Resource): void {
  const decision = decide(principal, action, resource);
  if (!decision.ok) throw refusal(principal, action, decision.reason);
}

/** What the caller is told of an object that is not there, or not there for them. */
export function objectNotFound(reason: string): Fault {
  return new Fault("not_found", `Cannot find an object: ${reason}`, {
    detail: "There is no such object, or it is not open to you.",
  });
}

function refusal({ credential }: Principal, action: Action, reason: AccessRefusal): Fault {
  const challenge = { scopeNeeded: action, scheme: credential.boundTo === null ? "Bearer" : "DPoP" } as const;
  switch (reason) {
    case "hidden":
      return objectNotFound("it is hidden from the caller");
    case "scope_lacks_action":
      return new Fault(
        "scope_insufficient",
        `Cannot allow ${action}: the credential's scope lacks it`,
        challenge,
      );
    case "role_lacks_action":
      return new Fault("forbidden", `Cannot allow ${action}: ${reason}`, challenge);
    case "not_on_this":
      return new Fault("forbidden", `Cannot allow ${action}: not on this object`, {
        ...challenge,
        detail: "You may see this object, and not do this with it.",
      });
  }
}
