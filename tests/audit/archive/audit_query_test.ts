// Tests of what can be looked for: which texts of an event count, and the number that stands for a request.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { requestNumber, wordsOf } from "../../../src/audit/archive/audit_query.ts";
import { newId } from "../../../src/encoding/ids.ts";

Deno.test("who did it is the subject, and where an actor is named, the actor", () => {
  const request = { type: "request.allowed", issuer: "i", subject: "s", address: "a", action: "key:read" };
  deepStrictEqual(wordsOf(request), ["request.allowed", "s", "i", "a", undefined, undefined, "key:read"]);
  const made = { type: "user.created", subject: "s", actor: "first start" };
  deepStrictEqual(wordsOf(made).slice(0, 2), ["user.created", "first start"]);
});

Deno.test("an outcome is that of an inference or the code of a refusal", () => {
  strictEqual(wordsOf({ type: "inference.finished", outcome: "completed" })[5], "completed");
  strictEqual(wordsOf({ type: "request.refused", status: 403, code: "forbidden" })[5], "forbidden");
});

Deno.test("what is no text is no word, so that no event can break the index", () => {
  deepStrictEqual(
    wordsOf({ type: 1, subject: null, issuer: ["x"], address: {}, model: true }),
    Array(7).fill(undefined),
  );
});

Deno.test("numbers of requests are safe integers that grow with the time of the request", () => {
  const times = fc.integer({ min: 1, max: 2 ** 41 - 2 });
  fc.assert(fc.property(times, (ms) => {
    const [one, same, later] = [ms, ms, ms + 1].map((at) => requestNumber(newId("req", at)));
    ok(Number.isSafeInteger(one) && Number.isSafeInteger(same) && Number.isSafeInteger(later));
    ok(Number(later) > Number(one) && Math.abs(Number(same) - Number(one)) < 2 ** 12);
  }));
});

Deno.test("what is no request's id has no number", () => {
  for (const id of ["", "req_", newId("usr", 1), `${newId("req", 1)}0`, newId("req", 1).toUpperCase(), 7]) {
    strictEqual(requestNumber(id), undefined);
  }
});
