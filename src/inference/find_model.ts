// Find a model for a caller: what the caller may not see does not exist.
import type { Action } from "../access/action.ts";
import { decide, type Resource } from "../access/decide.ts";
import type { Principal } from "../access/principal.ts";
import { Fault } from "../faults/fault.ts";
import type { Catalog } from "../registry/catalog.ts";
import type { Capability, ServedModel } from "../registry/served_model.ts";

/**
 * The model that a caller names.
 *
 * @throws Fault `model_not_found` when there is none or the caller may not see it (the same words for both) · `forbidden`
 * when the caller sees it but may not do this with it · `unavailable` when its files were refused
 */
export function findModel(catalog: Catalog, principal: Principal, action: Action, name: string): ServedModel {
  const model = catalog.find(name);
  if (model === undefined) throw new Fault("model_not_found", "Cannot find a model: the name is unknown");
  const decision = decide(principal, action, resourceOf(model));
  if (!decision.ok && decision.reason === "hidden") {
    throw new Fault("model_not_found", `Cannot use ${model.id}: hidden from the caller`);
  }
  if (!decision.ok) {
    throw new Fault("forbidden", `Cannot use ${model.id}: ${decision.reason}`, {
      detail: "Your role does not allow this action on this model.",
      scopeNeeded: action,
    });
  }
  if (!model.accepted) {
    throw new Fault("unavailable", `Cannot use ${model.id}: its files were refused`, {
      detail: "The model is not available now.",
    });
  }
  return model;
}

/** @throws Fault `capability_missing` when a model does not do what is asked of it */
export function requireCapability(model: ServedModel, capability: Capability): void {
  if (model.capabilities.includes(capability)) return;
  throw new Fault("capability_missing", `Cannot use ${model.id} for ${capability}: it lacks the capability`, {
    detail: `The model ${model.id} does: ${
      model.capabilities.join(", ")
    }. This route asks for: ${capability}.`,
  });
}

/** The models that a caller may see and that can be run. */
export function listModels(catalog: Catalog, principal: Principal): readonly ServedModel[] {
  return catalog.list().filter((model) =>
    model.accepted && decide(principal, "model:read", resourceOf(model)).ok
  );
}

function resourceOf({ id, access }: ServedModel): Resource {
  return { kind: "model", id, see: access.see, use: access.use, teams: access.teams };
}
