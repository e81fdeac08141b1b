// Model routes: every model with how it stands, served or not, and the acts that serve one and stop serving it.
import { z } from "@hono/zod-openapi";
import type { ManagedCatalog, ModelStanding } from "../../registry/catalog.ts";
import type { Exchange } from "../exchange.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";

/** What the routes need. */
export interface ModelAdminParts {
  readonly models: Pick<ManagedCatalog, "standings" | "standing" | "enable" | "disable">;
  /** Whether one model can be served now. */
  readonly isModelReady: (id: string) => boolean;
}

const modelStanding = z.strictObject({
  id: z.string(),
  kind: z.enum(["local", "upstream"]),
  state: z.enum(["served", "disabled", "refused", "found"]).describe(
    "found: it came into the models folder since the start, and nobody has enabled it.",
  ),
  ready: z.boolean().describe("Whether it can be asked now."),
  reasons: z.array(z.string()).describe("Why it is refused."),
  sealed: z.boolean().describe("Whether its files rest sealed here."),
  signer: z.string().nullable().describe("The id of the key that signed its manifest."),
  serial: z.int().nullable().describe("The manifest's number; it only rises."),
  added_at: z.string().nullable(),
  sha256: z.string().nullable().describe("Digest of the weights, where they are here."),
  license: z.string().nullable(),
  see: z.array(z.string()).nullable().describe("Roles that know of it."),
  use: z.array(z.string()).nullable().describe("Roles that may run it."),
});
const modelList = z.strictObject({ data: z.array(modelStanding) });

/** `GET /admin/v1/models`, `POST /admin/v1/models/{id}/enable` and `…/disable`. */
export function modelRoutes({ models, isModelReady }: ModelAdminParts): AnyRoute[] {
  const common = {
    policy: { kind: "action", action: "model:write" },
    dialect: problemDialect,
    rated: true,
  } as const;

  function view(standing: ModelStanding): z.infer<typeof modelStanding> {
    const { id, kind, state, refusals, isSealed, signer, serial, addedAt, sha256, license, access } =
      standing;
    return {
      id,
      kind,
      state,
      ready: state === "served" && isModelReady(id),
      reasons: [...refusals],
      sealed: isSealed,
      signer,
      serial,
      added_at: addedAt,
      sha256,
      license,
      see: access === null ? null : [...access.see],
      use: access === null ? null : [...access.use],
    };
  }
  async function change(
    { record, parameters: { id = "" } }: Exchange,
    act: "enable" | "disable",
  ): Promise<{ readonly status: 200; readonly body: z.infer<typeof modelStanding> }> {
    const before = models.standing(id);
    if (before === undefined) throw objectNotFound("no such model");
    const { state, serial } = before;
    await record.changing("model:write", `model/${id}`, { state, serial }, { enabled: act === "enable" });
    return { status: 200, body: view(await models[act](id)) };
  }

  return [
    defineRoute({
      ...common,
      method: "GET",
      path: "/admin/v1/models",
      summary: "Every model: served, disabled, refused, or new in the models folder",
      answers: { 200: { description: "The models, in the order of their ids.", schema: modelList } },
      faults: [],
      async handle({ record }) {
        await record.allowed("model:write", null);
        return { status: 200, body: { data: models.standings().map(view) } };
      },
    }),
    defineRoute({
      ...common,
      method: "POST",
      path: "/admin/v1/models/{id}/disable",
      summary: "Serve a model no more; what runs on it ends by itself",
      answers: { 200: { description: "The model as it stands now.", schema: modelStanding } },
      faults: ["not_found"],
      handle: (exchange) => change(exchange, "disable"),
    }),
    defineRoute({
      ...common,
      method: "POST",
      path: "/admin/v1/models/{id}/enable",
      summary: "Serve a model; one of the models folder is read and checked anew",
      answers: { 200: { description: "The model as it stands now.", schema: modelStanding } },
      faults: ["not_found", "conflict"],
      handle: (exchange) => change(exchange, "enable"),
    }),
  ];
}
