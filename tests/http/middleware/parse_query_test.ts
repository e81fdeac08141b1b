// Tests of queries: known names, each once, each by its rule; nothing of a query is repeated to anybody.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import { z } from "@hono/zod-openapi";
import fc from "fast-check";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { parseQuery } from "../../../src/http/middleware/parse_query.ts";
import { pageQuery } from "../../../src/http/page.ts";

const query = z.strictObject({
  name: z.string().regex(/^[a-z]*$/, "is no name").optional(),
  kind: z.enum(["a", "b"]).optional(),
});

function parse(text: string, schema: z.ZodType = query): unknown {
  return parseQuery(schema, `https://ai.example.com/v1/things${text}`);
}

function refusalOf(text: string, schema?: z.ZodType): Fault {
  try {
    parse(text, schema);
  } catch (thrown) {
    isTrue(thrown instanceof Fault, String(thrown));
    return thrown;
  }
  throw new Error(`${text} was accepted`);
}

const refused = (kind: FaultKind, texts: readonly string[]) => {
  for (const text of texts) strictEqual(refusalOf(text).kind, kind, text);
};

Deno.test("a query becomes what its schema makes of it", () => {
  deepStrictEqual(parse("?name=abc&kind=b"), { name: "abc", kind: "b" });
  deepStrictEqual(parse("?kind=b"), { kind: "b" });
  deepStrictEqual(parse("?name="), { name: "" });
  deepStrictEqual(parse("?name"), { name: "" });
  deepStrictEqual(parse("?limit=7", pageQuery), { limit: 7 });
});

Deno.test("no query, and one that holds nothing, is an empty one", () => {
  for (const text of ["", "?", "?&", "?&&&"]) deepStrictEqual(parse(text), {}, text);
});

Deno.test("ASVS V2.2.1: a name that is not known is refused, however it is written", () => {
  refused("query_unknown", [
    "?other=1",
    "?Name=a",
    "?name%20=a",
    "?%6Eame%00=a",
    "?name[]=a",
    "?name.x=a",
    "?=a",
    "?debug",
    "?access_token=ey",
    "?name=a&other=1",
    "??name=a",
    "?%ff=1",
    "?name=a&amp;kind=b",
  ]);
});

Deno.test("ASVS V15.3.6: names of what every object has are not known either, and change no object", () => {
  refused("query_unknown", [
    "?__proto__=1",
    "?__proto__[polluted]=1",
    "?constructor=1",
    "?constructor.prototype.polluted=1",
    "?toString=1",
    "?hasOwnProperty=1",
    "?name=a&__proto__=1",
  ]);
  strictEqual(Reflect.get({}, "polluted"), undefined);
});

Deno.test("ASVS V15.3.7: a parameter that is repeated is refused, known or not, the same or not, however it is written", () => {
  for (
    const text of [
      "?name=a&name=b",
      "?name=a&name=a",
      "?name=a&%6e%61%6de=b",
      "?name=&name",
      "?kind=a&name=a&kind=b",
      "?x=1&x=2",
      "?__proto__=1&__proto__=2",
    ]
  ) {
    const fault = refusalOf(text);
    strictEqual(fault.kind, "request_invalid", text);
    strictEqual(fault.details.detail, "A query parameter is repeated.");
  }
});

Deno.test("a value that breaks its rule is refused with the name and the rule", () => {
  const fault = refusalOf("?name=A1");
  strictEqual(fault.kind, "request_invalid");
  strictEqual(fault.details.detail, "The query parameter name is no name.");
  strictEqual(
    refusalOf("?limit=0", pageQuery).details.detail,
    "The query parameter limit is no whole number from 1 to 200.",
  );
  strictEqual(
    refusalOf("?after=%20", pageQuery).details.detail,
    "The query parameter after is no `next` of a page.",
  );
  refused("request_invalid", [
    "?kind=c",
    "?kind=",
    "?kind=a,b",
    "?name=a b",
    "?name=%C3%A4",
    "?name=%FF",
    "?kind=a;name=b",
    "?name=a%00",
  ]);
});

Deno.test("ASVS V1.1.1: a value is decoded once", () => {
  const anything = z.strictObject({ name: z.string() });
  deepStrictEqual(parse("?name=%252e%252e%252f", anything), { name: "%2e%2e%2f" });
  deepStrictEqual(parse("?name=a+b%2Bc", anything), { name: "a b+c" });
  deepStrictEqual(parse("?name=a%26kind%3Db", anything), { name: "a&kind=b" });
  deepStrictEqual(parse("?name=a?b=c", anything), { name: "a?b=c" });
  deepStrictEqual(parse("?name=a=b", anything), { name: "a=b" });
});

Deno.test("a parameter that is due and missing is refused by its name", () => {
  const due = z.strictObject({ name: z.string("is missing") });
  const fault = refusalOf("", due);
  strictEqual(fault.kind, "request_invalid");
  strictEqual(fault.details.detail, "The query parameter name is missing.");
});

Deno.test("ASVS V14.2.1: whatever a query holds, nothing of it is in the refusal", () => {
  const secret = fc.string({ unit: fc.constantFrom(..."XYZQ789"), minLength: 6, maxLength: 12 });
  fc.assert(
    fc.property(secret, secret, fc.constantFrom("name", "kind", "limit", "after"), (name, value, known) => {
      for (const text of [`?${name}=${value}`, `?${known}=${value}`, `?${known}=${value}&${known}=${name}`]) {
        for (const schema of [query, pageQuery]) {
          if (schema === pageQuery && text === `?after=${value}`) continue;
          const fault = refusalOf(text, schema);
          for (const told of [fault.message, JSON.stringify(fault.details)]) {
            strictEqual(told.includes(name) || told.includes(value), false, told);
          }
        }
      }
    }),
  );
});

Deno.test("property: whatever the query, there is a value of the schema or one of two refusals, and nothing else is thrown", () => {
  const piece = fc.oneof(
    fc.constantFrom("name", "kind", "a", "=", "&", "%", "%ff", "+", "?", "#", "__proto__", "limit=5"),
    fc.string({ maxLength: 3 }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      try {
        isTrue(query.safeParse(parse(`?${pieces.join("")}`)).success);
      } catch (thrown) {
        isTrue(thrown instanceof Fault, String(thrown));
        isTrue(thrown.kind === "query_unknown" || thrown.kind === "request_invalid");
      }
    }),
    { numRuns: 500 },
  );
});
