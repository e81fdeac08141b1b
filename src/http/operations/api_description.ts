// API description: OpenAPI 3.1, generated from the very schemas that validate.
import { OpenAPIHono, z } from "@hono/zod-openapi";
import type { FaultKind } from "../../faults/fault.ts";
import { FAULT_TABLE } from "../../faults/fault_table.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute, type Dialect } from "../route.ts";

const ERROR_SCHEMAS: Readonly<Record<Dialect["name"], z.ZodType>> = {
  problem: z.object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string(),
    errors: z.array(z.strictObject({ pointer: z.string(), detail: z.string() })).optional(),
  }).openapi("Problem"),
  openai: z.strictObject({
    error: z.strictObject({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable(),
    }),
  }).openapi("OpenaiError"),
  anthropic: z.strictObject({
    type: z.literal("error"),
    error: z.strictObject({ type: z.string(), message: z.string() }),
    request_id: z.string(),
  }).openapi("AnthropicError"),
  oip: z.strictObject({ error: z.string() }).openapi("OipError"),
  oauth: z.strictObject({ error: z.string(), error_description: z.string() }).openapi("OauthError"),
};

/** The row of `GET /openapi.json`, over all other rows and itself. */
export function describeRoutes(routes: readonly AnyRoute[]): AnyRoute {
  const self = defineRoute({
    method: "GET",
    path: "/openapi.json",
    summary: "This description",
    policy: { kind: "public" },
    dialect: problemDialect,
    rated: true,
    answers: { 200: { description: "OpenAPI 3.1.", schema: z.looseObject({ openapi: z.string() }) } },
    faults: [],
    handle: () => ({ status: 200, body: description, headers: { "Cache-Control": "public, max-age=300" } }),
  });
  const description = describe([...routes, self]);
  return self;
}

function describe(routes: readonly AnyRoute[]): unknown {
  const app = new OpenAPIHono();
  app.openAPIRegistry.registerComponent("securitySchemes", "accessToken", {
    type: "http",
    scheme: "bearer",
    bearerFormat: "JWT",
  });
  app.openAPIRegistry.registerComponent("securitySchemes", "clientSecretBasic", {
    type: "http",
    scheme: "basic",
  });
  for (const route of routes) {
    const parameters = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? "");
    app.openAPIRegistry.registerPath({
      method: METHODS[route.method],
      path: route.path,
      summary: route.summary,
      security: securityOf(route),
      ...(route.policy.kind === "action" ? { "x-portcullis-action": route.policy.action } : {}),
      request: {
        ...(parameters.length === 0
          ? {}
          : { params: z.strictObject(Object.fromEntries(parameters.map((name) => [name, z.string()]))) }),
        ...(route.query === undefined ? {} : { query: route.query as z.ZodObject }),
        ...describeBody(route),
      },
      responses: { ...describeFaults(route), ...describeAnswers(route) },
    });
  }
  return app.getOpenAPI31Document({ openapi: "3.1.0", info: { title: "Portcullis", version: "1" } });
}

const METHODS = { GET: "get", POST: "post", PUT: "put", PATCH: "patch", DELETE: "delete" } as const;

/** A client can also prove itself in the body, which OpenAPI has no words for: as far as it knows, the header may be absent. */
function securityOf({ policy }: AnyRoute): Record<string, string[]>[] {
  if (policy.kind === "action") return [{ accessToken: [] }];
  return policy.kind === "client" ? [{ clientSecretBasic: [] }, {}] : [];
}

function describeBody(
  { body, bodyForm }: AnyRoute,
): { body?: { required: boolean; content: Record<string, { schema: z.ZodType }> } } {
  const content = bodyForm !== undefined
    ? { [bodyForm.mediaType]: { schema: bodyForm.schema } }
    : body !== undefined
    ? { "application/json": { schema: body } }
    : undefined;
  return content === undefined ? {} : { body: { required: true, content } };
}

interface ResponseDescription {
  description: string;
  content?: Record<string, { schema: z.ZodType }>;
}

function describeAnswers(route: AnyRoute): Record<string, ResponseDescription> {
  return Object.fromEntries(
    Object.entries(route.answers).map(([status, { description, schema, mediaType = "application/json" }]) => [
      status,
      schema === undefined ? { description } : { description, content: { [mediaType]: { schema } } },
    ]),
  );
}

function describeFaults(route: AnyRoute): Record<string, ResponseDescription> {
  const byStatus = new Map<number, string[]>();
  for (const kind of faultsOf(route)) {
    const { status, title } = FAULT_TABLE[kind];
    byStatus.set(status, [...new Set([...byStatus.get(status) ?? [], title])]);
  }
  const content = { [route.dialect.errorType]: { schema: ERROR_SCHEMAS[route.dialect.name] } };
  return Object.fromEntries(
    [...byStatus].map((
      [status, titles],
    ) => [String(status), { description: `${titles.join(" or ")}.`, content }]),
  );
}

/** Every kind of fault that a route can answer: its own, and those that its policy and its body bring. */
function faultsOf(route: AnyRoute): FaultKind[] {
  return [
    "target_invalid",
    "query_unknown",
    "internal",
    ...(route.rated ? ["rate_limited" as const] : []),
    ...(route.body === undefined && route.bodyForm === undefined
      ? ["request_invalid" as const]
      : BODY_FAULTS),
    // OAuth's forms answer 400 for a field as well (RFC 6749 §5.2).
    ...(hasFields(route) ? ["fields_invalid" as const] : []),
    ...(route.policy.kind === "public" ? [] : ["unavailable" as const]),
    ...(route.policy.kind === "action" ? ["unauthenticated" as const, "forbidden" as const] : []),
    ...(route.policy.kind === "client" ? ["client_refused" as const] : []),
    ...route.faults,
  ];
}

function hasFields({ body, bodyForm, policy }: AnyRoute): boolean {
  return body !== undefined || (bodyForm !== undefined && policy.kind !== "client");
}

const BODY_FAULTS: readonly FaultKind[] = [
  "request_invalid",
  "media_type_unsupported",
  "body_too_large",
  "body_timeout",
  "overloaded",
];
