// Find a model for a caller: what the caller may not see does not exist.
import { decideOnModel } from "../access/decide.ts";
import type { Action } from "../access/action.ts";
import { Fault } from "../faults/fault.ts";
import type { Principal } from "../identity/principal.ts";
import type { Catalog, CatalogModel } from "../registry/catalog.ts";

/**
 * The model that a caller names.
 *
 * @throws Fault `model_not_found` when there is none or the caller may not see it (the same words for both) · `forbidden`
 * when the caller sees it but may not do this with it · `unavailable` when its files were refused
 */
export function findModel(catalog: Catalog, principal: Principal, action: Action, id: string): CatalogModel {
  const model = catalog.find(id);
  if (model === undefined) throw new Fault("model_not_found", "Cannot find a model: the id is unknown");
  const decision = decideOnModel(principal, action, model.card.access);
  if (!decision.ok && decision.reason === "model_hidden") {
    throw new Fault("model_not_found", `Cannot use ${id}: hidden from the caller's roles`);
  }
  if (!decision.ok) {
    throw new Fault("forbidden", `Cannot use ${id}: ${decision.reason}`, {
      detail: "Your role does not allow this action on this model.",
    });
  }
  if (!model.accepted) {
    throw new Fault("unavailable", `Cannot use ${id}: its files were refused`, {
      detail: "The model is not available now.",
    });
  }
  return model;
}

/** The models that a caller may see and that can be run. */
export function listModels(catalog: Catalog, principal: Principal): readonly CatalogModel[] {
  return catalog.list().filter((model) =>
    model.accepted && decideOnModel(principal, "model:read", model.card.access).ok
  );
}
