// Parse the query: known names, each once, against a strict schema.
import type { z } from "@hono/zod-openapi";
import { Fault } from "../../faults/fault.ts";

/**
 * What the schema makes of a URL's query.
 *
 * @throws Fault `query_unknown` where a name is not known · `request_invalid` where one is repeated (ASVS V15.3.7) or its value
 * breaks its rule
 */
export function parseQuery(schema: z.ZodType, url: string): unknown {
  const values: Record<string, string> = Object.create(null);
  const start = url.indexOf("?");
  for (const [name, value] of new URLSearchParams(start === -1 ? "" : url.slice(start))) {
    if (name in values) {
      throw new Fault("request_invalid", "Cannot accept a query: a parameter is repeated", {
        detail: "A query parameter is repeated.",
      });
    }
    values[name] = value;
  }
  const parsed = schema.safeParse({ ...values });
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  if (issue?.code === "unrecognized_keys") {
    throw new Fault("query_unknown", "Cannot accept a query: a parameter is unknown");
  }
  throw new Fault("request_invalid", "Cannot accept a query: a parameter breaks its rule", {
    detail: `The query parameter ${String(issue?.path[0])} ${issue?.message ?? "is wrong"}.`,
  });
}
