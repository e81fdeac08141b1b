// Read a model: what every route that tells of one model does first.
import { findModel } from "../inference/find_model.ts";
import type { Catalog } from "../registry/catalog.ts";
import type { ModelCard } from "../registry/model_card.ts";
import { type Exchange, principalOf } from "./exchange.ts";

/** The card of the model that the path names as `{id}`, once its reading is recorded. Throws the Faults of `findModel`. */
export async function readModel(catalog: Catalog, exchange: Exchange): Promise<ModelCard> {
  const { card } = findModel(catalog, principalOf(exchange), "model:read", exchange.parameters.id ?? "");
  await exchange.record.allowed("model:read", card.id);
  return card;
}
