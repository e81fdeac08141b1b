// Form body: the parameters of an OAuth request (application/x-www-form-urlencoded, RFC 6749 appendix B), read strictly.
import type { z } from "@hono/zod-openapi";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { readBytes, requireReadable } from "../middleware/read_body.ts";
import type { BodyForm } from "../route.ts";

/** For the routes: room for a token and an assertion of the longest. */
export const FORM_BYTES_MAX = 16 * 1024;
const PARAMETERS_MAX = 32;
/** RFC 6749 appendix B: the characters are those of UTF-8, which may be said and need not. */
const FORM_MEDIA_TYPE = /^application\/x-www-form-urlencoded *(?:; *charset="?utf-8"? *)?$/i;
const WANTED = "Send application/x-www-form-urlencoded, uncompressed.";

/**
 * The form of a body whose parameters have a schema. Parameters that it does not know are ignored, as RFC 6749 §3.2 demands.
 * What breaks a rule is a Fault `request_invalid`, for OAuth answers it with 400.
 */
export function formBody<Fields>(schema: z.ZodType<Fields>): BodyForm<Fields> {
  return {
    mediaType: "application/x-www-form-urlencoded",
    schema,
    requireAnnounced(request, bounds) {
      if (!FORM_MEDIA_TYPE.test(request.headers.get("content-type") ?? "")) {
        throw new Fault("media_type_unsupported", "Cannot read a body: it is no form", { detail: WANTED });
      }
      requireReadable(request, bounds, WANTED);
    },
    async read(request, bounds) {
      const text = decodeUtf8(await readBytes(request, bounds));
      if (!text.ok) throw invalid("it is not UTF-8", "The body is not valid UTF-8.");
      const parsed = schema.safeParse(Object.fromEntries(parseParameters(text.value)));
      if (parsed.success) return parsed.data;
      const [issue] = parsed.error.issues;
      // A name of the schema's and words of ours: nothing that a stranger wrote.
      throw invalid(
        "a parameter breaks its rule",
        `The parameter ${String(issue?.path[0])} ${issue?.message}.`,
      );
    },
  };
}

/** A name or value as a form writes it; "malformed" where an escape is none, or its bytes are not UTF-8. */
export function decodeFormText(text: string): Outcome<string, "malformed"> {
  try {
    return ok(decodeURIComponent(text.replaceAll("+", " ")));
  } catch {
    return no("malformed");
  }
}

/** The parameters that have a value. */
function parseParameters(body: string): Map<string, string> {
  const pairs = body.split("&", PARAMETERS_MAX + 1);
  if (pairs.length > PARAMETERS_MAX) {
    throw invalid("it has too many parameters", `The body has more than ${PARAMETERS_MAX} parameters.`);
  }
  const parameters = new Map<string, string>();
  for (const pair of pairs) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const name = decodeFormText(equals === -1 ? pair : pair.slice(0, equals));
    const value = decodeFormText(equals === -1 ? "" : pair.slice(equals + 1));
    if (!name.ok || !value.ok) {
      throw invalid("an escape is malformed", "The body has a malformed percent-encoding.");
    }
    // RFC 6749 §3.2: none more than once; also none that stands empty beside itself, which layers would read differently.
    if (parameters.has(name.value)) {
      throw invalid("a parameter is repeated", "The body has a parameter more than once.");
    }
    parameters.set(name.value, value.value);
  }
  // RFC 6749 §3.2: one without a value counts as left out.
  for (const [name, value] of parameters) if (value === "") parameters.delete(name);
  return parameters;
}

function invalid(state: string, detail: string): Fault {
  return new Fault("request_invalid", `Cannot read a form: ${state}`, { detail });
}
