// Read a model: what every route that tells of one model does first.
import { findModel } from "../inference/find_model.ts";
import type { Catalog } from "../registry/catalog.ts";
import type { ServedModel } from "../registry/served_model.ts";
import { type Exchange, principalOf } from "./exchange.ts";

/** The model that the path names as `{id}`, once its reading is recorded. Throws the Faults of `findModel`. */
export async function readModel(catalog: Catalog, exchange: Exchange): Promise<ServedModel> {
  const model = findModel(catalog, principalOf(exchange), "model:read", exchange.parameters.id ?? "");
  await exchange.record.allowed("model:read", model.id);
  return model;
}
