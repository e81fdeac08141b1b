// Tests of the API description: that what a route declares is what is described.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { z } from "@hono/zod-openapi";
import type { Exchange } from "../../../src/http/exchange.ts";
import { formBody } from "../../../src/http/oauth/form_body.ts";
import { oauthDialect } from "../../../src/http/oauth/oauth_error.ts";
import { describeRoutes } from "../../../src/http/operations/api_description.ts";
import { pageQuery } from "../../../src/http/page.ts";
import { problemDialect } from "../../../src/http/problem.ts";
import { type AnyRoute, defineRoute } from "../../../src/http/route.ts";

const row = {
  path: "/things/{id}",
  summary: "A thing",
  policy: { kind: "action", action: "key:read" },
  dialect: problemDialect,
  rated: true,
  answers: { 200: { description: "It." } },
  faults: [],
  handle: () => ({ status: 200 }),
} as const;

// deno-lint-ignore no-explicit-any
async function descriptionOf(...routes: AnyRoute[]): Promise<any> {
  const answer = await describeRoutes(routes).handle({} as Exchange, undefined as never);
  return JSON.parse(JSON.stringify(answer.body));
}

Deno.test("every method of a path is described under its own name", async () => {
  const methods = ["GET", "POST", "PUT", "PATCH", "DELETE"] as const;
  const { paths } = await descriptionOf(...methods.map((method) => defineRoute({ ...row, method })));
  deepStrictEqual(
    Object.keys(paths["/things/{id}"]).sort(),
    methods.map((method) => method.toLowerCase()).sort(),
  );
});

Deno.test("a query is described by its schema, beside the parameters of the path", async () => {
  const { paths } = await descriptionOf(defineRoute({ ...row, method: "GET", query: pageQuery }));
  const { parameters } = paths["/things/{id}"].get;
  deepStrictEqual(
    parameters.map((
      parameter: Record<string, unknown>,
    ) => [parameter.name, parameter.in, parameter.required]),
    [["id", "path", true], ["after", "query", false], ["limit", "query", false]],
  );
});

Deno.test("a route of clients is described with Basic, its form, and errors as OAuth has them", async () => {
  const schema = z.object({ token: z.string() });
  const { paths, components } = await descriptionOf(
    defineRoute({
      ...row,
      method: "POST",
      path: "/oauth2/things",
      policy: { kind: "client" },
      dialect: oauthDialect,
      bodyForm: formBody(schema),
    }),
  );
  const { security, requestBody, responses } = paths["/oauth2/things"].post;
  deepStrictEqual(security, [{ clientSecretBasic: [] }, {}]);
  deepStrictEqual(components.securitySchemes.clientSecretBasic, { type: "http", scheme: "basic" });
  deepStrictEqual(Object.keys(requestBody.content), ["application/x-www-form-urlencoded"]);
  deepStrictEqual(responses["401"].content, {
    "application/json": { schema: { $ref: "#/components/schemas/OauthError" } },
  });
  strictEqual(responses["422"], undefined);
});

Deno.test("a route of an action names it and its token; a public one needs neither", async () => {
  const { paths } = await descriptionOf(
    defineRoute({ ...row, method: "GET" }),
    defineRoute({ ...row, method: "GET", path: "/open", policy: { kind: "public" } }),
  );
  deepStrictEqual(paths["/things/{id}"].get.security, [{ accessToken: [] }]);
  strictEqual(paths["/things/{id}"].get["x-portcullis-action"], "key:read");
  deepStrictEqual(paths["/open"].get.security, []);
});
