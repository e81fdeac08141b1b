// Tests of OAuth's forms: what is refused, what is ignored, and that what clients write comes back as it was.
import { deepStrictEqual, rejects, throws } from "node:assert/strict";
import fc from "fast-check";
import { z } from "@hono/zod-openapi";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { decodeFormText, formBody } from "../../../src/http/oauth/form_body.ts";
import { anyText } from "../../support/any_text.ts";

const BOUNDS = { bodyBytesMax: 16 * 1024, bodyTimeoutMs: 1000 };
const form = formBody(z.object({ a: z.string({ error: "is missing" }), b: z.string().optional() }));

const requestOf = (body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}): Request =>
  new Request("https://ai.example.com/", {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded", ...headers },
    body,
  });
const read = async (body: string | Uint8Array<ArrayBuffer>): Promise<unknown> =>
  await form.read(requestOf(body), BOUNDS, "somebody");
const isFault = (kind: FaultKind, words?: RegExp) => (thrown: unknown): boolean =>
  thrown instanceof Fault && thrown.kind === kind && (words ?? /./).test(thrown.details.detail ?? "");

for (
  const [what, body, expected] of [
    ["values with escapes, plus signs and characters beyond ASCII", "a=%C3%A9+1%2B%26", { a: "é 1+&" }],
    ["parameters that it does not know, without them", "a=1&resource=x&__proto__=y", { a: "1" }],
    ["a parameter without a value as one that is left out", "a=1&b=", { a: "1" }],
    ["a parameter without an equals sign as one that is left out", "a=1&b", { a: "1" }],
    ["an equals sign within a value", "a=b=c", { a: "b=c" }],
    ["empty pairs as none", "&a=1&&", { a: "1" }],
    [
      "thirty-two parameters",
      `a=1&${Array.from({ length: 31 }, (_, index) => `x${index}=1`).join("&")}`,
      { a: "1" },
    ],
  ] as const
) {
  Deno.test(`a form reads ${what}`, async () => deepStrictEqual(await read(body), expected));
}

for (
  const [what, body, words] of [
    ["a parameter that is there twice", "a=1&a=2", /more than once/],
    ["a parameter that is there twice, once under an escaped name", "a=1&%61=2", /more than once/],
    ["an unknown parameter that is there twice", "a=1&x=1&x=1", /more than once/],
    ["a parameter that stands empty beside itself", "a=&a=1", /more than once/],
    ["a malformed escape", "a=%zz", /percent-encoding/],
    ["an escape that is cut off", "a=%4", /percent-encoding/],
    ["an escape in a name that is malformed", "a=1&%=2", /percent-encoding/],
    ["escapes of bytes that are not UTF-8", "a=%ff", /percent-encoding/],
    ["escapes of a surrogate", "a=%ED%A0%80", /percent-encoding/],
    ["bytes that are not UTF-8", Uint8Array.of(0x61, 0x3d, 0xff), /UTF-8/],
    [
      "thirty-three parameters",
      `a=1&${Array.from({ length: 32 }, (_, index) => `x${index}=1`).join("&")}`,
      /more than 32/,
    ],
    ["a parameter behind more than thirty-two that are empty", `${"&".repeat(32)}a=1`, /more than 32/],
    ["a required parameter that is not there", "b=1", /^The parameter a is missing\.$/],
    ["a required parameter without a value", "a=", /^The parameter a is missing\.$/],
    ["an empty body", "", /^The parameter a is missing\.$/],
    ["JSON", '{"a":"1"}', /^The parameter a is missing\.$/],
  ] as const
) {
  Deno.test(`a form refuses ${what} as request_invalid`, async () => {
    await rejects(() => read(body), isFault("request_invalid", words));
  });
}

Deno.test("a form gives back what URLSearchParams wrote, whatever the text", async () => {
  await fc.assert(fc.asyncProperty(anyText, async (text) => {
    deepStrictEqual(await read(new URLSearchParams({ a: `x${text}` }).toString()), { a: `x${text}` });
  }));
});

Deno.test("decodeFormText() reads what encodeURIComponent wrote, and refuses a lone percent sign wherever it stands", () => {
  fc.assert(fc.property(anyText, anyText, (left, right) => {
    const [before, behind] = [encodeURIComponent(left), encodeURIComponent(right)];
    deepStrictEqual(decodeFormText(before), { ok: true, value: left });
    deepStrictEqual(decodeFormText(`${before}%g${behind}`), { ok: false, reason: "malformed" });
  }));
});

for (
  const type of [
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded;charset=UTF-8",
    'APPLICATION/X-WWW-FORM-URLENCODED ; charset="utf-8"',
  ]
) {
  Deno.test(`a form may be announced as ${type}`, () => {
    form.requireAnnounced(requestOf("a=1", { "content-type": type }), BOUNDS);
  });
}
for (
  const type of [
    "",
    "application/json",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded; charset=iso-8859-1",
    "application/x-www-form-urlencoded, application/json",
  ]
) {
  Deno.test(`a form may not be announced as ${type === "" ? "nothing" : type}`, () => {
    throws(
      () => form.requireAnnounced(requestOf("a=1", { "content-type": type }), BOUNDS),
      isFault("media_type_unsupported", /x-www-form-urlencoded/),
    );
  });
}

Deno.test("a form that is announced larger than the route takes, or compressed, is refused before it is read", () => {
  throws(
    () => form.requireAnnounced(requestOf("a=1", { "content-length": "20000" }), BOUNDS),
    isFault("body_too_large"),
  );
  throws(
    () => form.requireAnnounced(requestOf("a=1", { "content-encoding": "gzip" }), BOUNDS),
    isFault("media_type_unsupported", /x-www-form-urlencoded/),
  );
});
