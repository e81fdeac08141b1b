import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import type { Datatype } from "../../src/engines/tensor.ts";
import {
  elementCount,
  findJsonMistake,
  findRawMistake,
  float32Bytes,
  readFloat32,
  readTexts,
  textBytes,
} from "../../src/engines/tensor_data.ts";
import { anyText } from "../support/any_text.ts";

const json = (elements: readonly JsonValue[], datatype: Datatype, shape: readonly number[]): string => {
  const mistake = findJsonMistake(elements, datatype, shape);
  return mistake === undefined ? "accepted" : `${mistake.path} ${mistake.message}`;
};

Deno.test("an element is accepted up to the very bounds of its datatype, and no further", () => {
  const bounds: readonly (readonly [Datatype, readonly JsonValue[], readonly JsonValue[]])[] = [
    ["BOOL", [true, false], [0, 1, "true", null, []]],
    ["UINT8", [0, 255], [-1, 256, 0.5, "1", true, null]],
    ["UINT16", [0, 65535], [-1, 65536]],
    ["UINT32", [0, 4294967295], [-1, 4294967296]],
    ["UINT64", [0, Number.MAX_SAFE_INTEGER], [-1, 2 ** 53, 1.5, "1"]],
    ["INT8", [-128, 127], [-129, 128]],
    ["INT16", [-32768, 32767], [-32769, 32768]],
    ["INT32", [-2147483648, 2147483647], [-2147483649, 2147483648]],
    ["INT64", [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER], [-(2 ** 53), 2 ** 53, 0.5]],
    ["FP32", [0, -0, 3.4028234663852886e38, 1e-50], [3.5e38, -1e39, Infinity, NaN, "1", null, true]],
    ["FP64", [1.7976931348623157e308, -5e-324], [Infinity, -Infinity, NaN, "1"]],
    ["FP16", [1.5], [Infinity, "1"]],
    ["BF16", [1.5], [NaN, {}]],
    ["BYTES", ["", "a", "\u0000"], [1, null, ["a"]]],
  ];
  for (const [datatype, good, bad] of bounds) {
    for (const element of good) {
      strictEqual(json([element], datatype, [1]), "accepted", `${datatype} ${element}`);
    }
    for (const element of bad) {
      strictEqual(json([element], datatype, [1]).startsWith("/0 is n"), true, `${datatype} ${element}`);
    }
  }
  strictEqual(
    json([2 ** 53], "INT64", [1]),
    "/0 is no integer that JSON carries exactly (at most 2^53 - 1): larger ones go as binary data",
  );
});

Deno.test("flat and nested elements must have the lengths of the shape", () => {
  strictEqual(json([1, 2, 3, 4], "INT8", [2, 2]), "accepted");
  strictEqual(json([[1, 2], [3, 4]], "INT8", [2, 2]), "accepted");
  strictEqual(json([[[1], [2]]], "INT8", [1, 2, 1]), "accepted");
  strictEqual(json([7], "INT8", []), "accepted");
  strictEqual(json([], "INT8", [0, 3]), "accepted");
  strictEqual(json([[], []], "INT8", [2, 0]), "accepted");
  strictEqual(json([], "INT8", [2, 0]), "accepted");

  strictEqual(json([], "INT8", []), " has 0 elements where the shape says 1");
  strictEqual(json([1, 2, 3], "INT8", [2, 2]), " has 3 elements where the shape says 4");
  strictEqual(json([[1, 2]], "INT8", [2, 2]), " has 1 elements where the shape says 2");
  strictEqual(json([[1, 2], [3]], "INT8", [2, 2]), "/1 has 1 elements where the shape says 2");
  strictEqual(json([[1, 2], 3], "INT8", [2, 2]), "/1 is no array, where the shape has a further dimension");
  strictEqual(json([1, [2], 3, 4], "INT8", [2, 2]), "/1 is no integer from -128 to 127");
  strictEqual(json([[1], [2]], "INT8", [2]), "/0 is no integer from -128 to 127");
  strictEqual(json([[7]], "INT8", []), "/0 is no integer from -128 to 127");
  strictEqual(json([[[1, 300]]], "INT16", [1, 1, 2]), "accepted");
  strictEqual(json([[[1, 300]]], "INT8", [1, 1, 2]), "/0/0/1 is no integer from -128 to 127");
});

Deno.test("raw bytes must have the size of the elements, and lengths that fill them exactly", () => {
  strictEqual(findRawMistake(new Uint8Array(12), "FP32", [3]), undefined);
  strictEqual(
    findRawMistake(new Uint8Array(13), "FP32", [3]),
    "has 13 bytes where datatype and shape say 12",
  );
  strictEqual(findRawMistake(new Uint8Array([1, 0]), "BOOL", [2]), undefined);
  strictEqual(
    findRawMistake(new Uint8Array([1, 255]), "BOOL", [2]),
    "has a byte that is neither 0 nor 1",
  );
  const two = textBytes(["a", "bc"]);
  deepStrictEqual([...two], [1, 0, 0, 0, 97, 2, 0, 0, 0, 98, 99]);
  strictEqual(findRawMistake(two, "BYTES", [2]), undefined);
  strictEqual(findRawMistake(two, "BYTES", [2, 1]), undefined);
  const inexact = (count: number) => `is not filled exactly by the lengths of its ${count} elements`;
  strictEqual(findRawMistake(two, "BYTES", [1]), inexact(1));
  strictEqual(findRawMistake(two.subarray(0, 10), "BYTES", [2]), inexact(2));
  strictEqual(findRawMistake(two, "BYTES", [3]), "ends before its 3 elements do");
  strictEqual(findRawMistake(two.subarray(0, 7), "BYTES", [2]), "ends before its 2 elements do");
  strictEqual(findRawMistake(new Uint8Array([255, 255, 255, 255]), "BYTES", [1]), inexact(1));
  strictEqual(
    findRawMistake(new Uint8Array(8), "BYTES", [2 ** 31]),
    "ends before its 2147483648 elements do",
  );
  strictEqual(findRawMistake(new Uint8Array(0), "BYTES", [0]), undefined);
});

Deno.test("vectors come out of raw bytes wherever they begin, and out of flat and nested JSON", () => {
  const values = new Float32Array([1, -2.5, 3, Infinity]);
  const body = new Uint8Array(19);
  body.set(float32Bytes(values), 3);
  const described = { name: "x", datatype: "FP32", shape: [2, 2] } as const;
  const copy = readFloat32({ ...described, data: { bytes: body.subarray(3) } });
  deepStrictEqual(copy, values);
  body.fill(0);
  deepStrictEqual(copy, values); // memory of its own
  deepStrictEqual(
    readFloat32({ ...described, data: { json: [1, -2.5, 3, 0.1] } }),
    new Float32Array([1, -2.5, 3, 0.1]),
  );
  deepStrictEqual(
    readFloat32({ ...described, data: { json: [[1, 2], [3, 4]] } }),
    new Float32Array([1, 2, 3, 4]),
  );
});

Deno.test("texts come out of raw bytes as they went in, and malformed UTF-8 is told", () => {
  const described = { name: "x", datatype: "BYTES" } as const;
  fc.assert(fc.property(fc.array(anyText), (texts) => {
    const bytes = textBytes(texts);
    strictEqual(findRawMistake(bytes, "BYTES", [texts.length]), undefined);
    deepStrictEqual(readTexts({ ...described, shape: [texts.length], data: { bytes } }), {
      ok: true,
      value: texts,
    });
  }));
  deepStrictEqual(readTexts({ ...described, shape: [2, 1], data: { json: [["a"], ["b"]] } }), {
    ok: true,
    value: ["a", "b"],
  });
  deepStrictEqual(
    readTexts({ ...described, shape: [1], data: { bytes: new Uint8Array([1, 0, 0, 0, 0xff]) } }),
    { ok: false, reason: "not_utf8" },
  );
});

Deno.test("the count of elements is the product of the shape", () => {
  strictEqual(elementCount([]), 1);
  strictEqual(elementCount([2, 3, 4]), 24);
  strictEqual(elementCount([2, 0]), 0);
});
