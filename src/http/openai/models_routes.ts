// Models routes: which models there are for the caller, what each does, and whether it can be served now.
import { z } from "@hono/zod-openapi";
import { listModels } from "../../inference/find_model.ts";
import type { Catalog } from "../../registry/catalog.ts";
import { CAPABILITIES, type ServedModel } from "../../registry/served_model.ts";
import { principalOf } from "../exchange.ts";
import { readModel } from "../read_model.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { openaiDialect } from "./openai_error.ts";

/** What the routes need. */
export interface ModelsParts {
  readonly catalog: Catalog;
  /** Whether one model can be served now. */
  readonly isModelReady: (id: string) => boolean;
}

const model = z.strictObject({
  id: z.string(),
  object: z.literal("model"),
  created: z.int().describe("Seconds since 1970."),
  owned_by: z.string(),
  capabilities: z.array(z.enum(CAPABILITIES)).describe("What the model does."),
  ready: z.boolean().describe("Whether it can be served now."),
});

const modelList = z.strictObject({ object: z.literal("list"), data: z.array(model) });

/** `GET /v1/models` and `GET /v1/models/{id}`. */
export function modelsRoutes({ catalog, isModelReady }: ModelsParts): AnyRoute[] {
  const read = {
    method: "GET",
    policy: { kind: "action", action: "model:read" },
    dialect: openaiDialect,
    rated: true,
  } as const;
  const describe = (served: ServedModel): z.infer<typeof model> => ({
    id: served.id,
    object: "model",
    created: served.createdSeconds,
    owned_by: served.ownedBy,
    capabilities: [...served.capabilities],
    ready: isModelReady(served.id),
  });
  return [
    defineRoute({
      ...read,
      path: "/v1/models",
      summary: "Models that are open to the caller",
      answers: { 200: { description: "The models.", schema: modelList } },
      faults: [],
      async handle(exchange) {
        const models = listModels(catalog, principalOf(exchange));
        await exchange.record.allowed("model:read", null);
        return { status: 200, body: { object: "list", data: models.map(describe) } };
      },
    }),
    defineRoute({
      ...read,
      path: "/v1/models/{id}",
      summary: "One model",
      answers: { 200: { description: "The model.", schema: model } },
      faults: ["model_not_found", "unavailable"],
      handle: async (exchange) => ({ status: 200, body: describe(await readModel(catalog, exchange)) }),
    }),
  ];
}
