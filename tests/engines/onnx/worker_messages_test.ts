// Tests of the worker messages: what a hostile worker might send is not taken for an answer.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import {
  packRows,
  parseReport,
  parseTokens,
  parseVectors,
} from "../../../src/engines/onnx/worker_messages.ts";

const shared = (bytes: number) => new SharedArrayBuffer(bytes);

Deno.test("packed rows of several texts parse as the tokens of as many", () => {
  const rows = packRows([Int32Array.of(7, 8), new Int32Array(), Int32Array.of(9)]);
  deepStrictEqual(rows, { ids: Int32Array.of(7, 8, 9), lengths: Int32Array.of(2, 0, 1) });
  deepStrictEqual(parseTokens({ kind: "tokens", ...rows }, 3), rows);
});

Deno.test("tokens of another shape, another number of texts, below zero or in shared memory are refused", () => {
  const ids = Int32Array.of(7, 8, 9), lengths = Int32Array.of(2, 1);
  for (
    const data of [
      undefined,
      null,
      "tokens",
      [],
      { ids, lengths },
      { kind: "vectors", ids, lengths },
      { kind: "tokens", ids: [7, 8, 9], lengths },
      { kind: "tokens", ids, lengths: Int32Array.of(3) },
      { kind: "tokens", ids, lengths: Int32Array.of(2, 2) },
      { kind: "tokens", ids, lengths: Int32Array.of(4, -1) },
      { kind: "tokens", ids: Int32Array.of(7, -8, 9), lengths },
      { kind: "tokens", ids: new Int32Array(shared(12)), lengths },
      { kind: "tokens", ids, lengths: new Int32Array(shared(8)) },
    ]
  ) strictEqual(parseTokens(data, 2), undefined);
});

Deno.test("vectors of another length, not finite or in shared memory are refused", () => {
  deepStrictEqual(
    parseVectors({ kind: "vectors", vectors: Float32Array.of(1, 2) }, 2),
    Float32Array.of(1, 2),
  );
  for (
    const vectors of [
      undefined,
      [1, 2],
      new Float64Array(2),
      Float32Array.of(1),
      Float32Array.of(1, 2, 3),
      Float32Array.of(1, NaN),
      Float32Array.of(Infinity, 1),
      new Float32Array(shared(8)),
    ]
  ) strictEqual(parseVectors({ kind: "vectors", vectors }, 2), undefined);
});

Deno.test("a report has a known kind, and a refusal's reason is text and short", () => {
  deepStrictEqual(parseReport({ kind: "started", more: 1 }), { kind: "started" });
  deepStrictEqual(parseReport({ kind: "refused", reason: "x".repeat(1000) }), {
    kind: "refused",
    reason: "x".repeat(300),
  });
  for (
    const data of [null, "started", { kind: "refused" }, { kind: "refused", reason: {} }, { kind: "ended" }]
  ) {
    strictEqual(parseReport(data), undefined);
  }
});
