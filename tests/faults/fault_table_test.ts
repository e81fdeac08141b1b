// Tests of the fault table: every row can be answered as a problem (RFC 9457) and as an error of OpenAI's form.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { FAULT_TABLE } from "../../src/faults/fault_table.ts";

const rows = Object.entries(FAULT_TABLE);

Deno.test("each kind's code is its name in kebab case, unique, and safe in a URI", () => {
  for (const [kind, row] of rows) strictEqual(row.code, kind.replaceAll("_", "-"));
  for (const [, row] of rows) match(row.code, /^[a-z]+(-[a-z]+)*$/);
});

Deno.test("each kind's status is an error status, and its title and words are there", () => {
  for (const [kind, row] of rows) {
    ok(Number.isInteger(row.status) && row.status >= 400 && row.status <= 599, kind);
    ok(row.title.length > 0 && row.detail.endsWith("."), kind);
  }
});

Deno.test("titles differ from kind to kind, so that a reader can tell them apart", () => {
  strictEqual(new Set(rows.map(([, row]) => row.title)).size, rows.length);
});

Deno.test("a status of 500 and above is a server_error in OpenAI's envelope, and only there but for 501", () => {
  for (const [kind, { status, openaiType }] of rows) {
    strictEqual(openaiType === "server_error", status >= 500 && status !== 501, kind);
  }
});

Deno.test("what must look alike has the same status", () => {
  const statusOf = (...kinds: (keyof typeof FAULT_TABLE)[]) => kinds.map((kind) => FAULT_TABLE[kind].status);
  deepStrictEqual(statusOf("unauthenticated", "sign_in_refused"), [401, 401]);
  deepStrictEqual(statusOf("not_found", "model_not_found"), [404, 404]);
  deepStrictEqual(statusOf("overloaded", "unavailable"), [503, 503]);
});
