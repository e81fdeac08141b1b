// Parse fields: untrusted JSON against a strict schema; every mistake with its place.
import type { z } from "@hono/zod-openapi";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { Fault, type FieldMistake } from "../../faults/fault.ts";
import { MISTAKES_MAX } from "./bounded_list.ts";
/** A name that a client made up is repeated to it, for it must find it; at most so much of it. */
const NAME_CHARACTERS_MAX = 64;

/** The typed body. Throws Fault `fields_invalid` naming each field by its JSON Pointer (RFC 6901). */
export function parseFields<Body>(schema: z.ZodType<Body>, value: JsonValue): Body {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.flatMap((issue) => mistakesOf(issue)).slice(0, MISTAKES_MAX);
  throw new Fault("fields_invalid", "Cannot accept a body: fields break their rules", { fields });
}

function mistakesOf(issue: z.core.$ZodIssue, above: readonly PropertyKey[] = []): FieldMistake[] {
  const place = [...above, ...issue.path];
  if (issue.code === "unrecognized_keys") {
    return issue.keys.slice(0, MISTAKES_MAX).map((key) => ({
      path: pointer([...place, key]),
      message: "is not a known field",
    }));
  }
  if (issue.code === "invalid_union") {
    // Of a union's branches, the one that failed deeper inside is the one that was meant.
    const meant = issue.errors.find((branch) => branch.some((inner) => inner.path.length > 0));
    if (meant !== undefined) return meant.flatMap((inner) => mistakesOf(inner, place));
  }
  return [{ path: pointer(place), message: issue.message }];
}

function pointer(path: readonly PropertyKey[]): string {
  return path.map((part) =>
    `/${String(part).slice(0, NAME_CHARACTERS_MAX).replaceAll("~", "~0").replaceAll("/", "~1")}`
  ).join("");
}
