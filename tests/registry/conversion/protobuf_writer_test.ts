// Tests of the protobuf writer, by the vectors of the encoding guide.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  bytesField,
  encodeVarint,
  integerField,
  message,
  messageField,
  textField,
  toBytes,
} from "../../../src/registry/conversion/protobuf_writer.ts";

const hex = (bytes: Uint8Array) => bytes.toHex();

Deno.test("encodeVarint writes the vectors of the encoding guide and the borders of each length", () => {
  const vectors: readonly (readonly [number | bigint, string])[] = [
    [0, "00"],
    [1, "01"],
    [127, "7f"],
    [128, "8001"],
    [150, "9601"],
    [300, "ac02"],
    [16_383, "ff7f"],
    [16_384, "808001"],
    [2 ** 31, "8080808008"],
    [2n ** 63n - 1n, "ffffffffffffffff7f"],
    [-1, "ffffffffffffffffff01"],
    [-2, "feffffffffffffffff01"],
    [-(2n ** 63n), "80808080808080808001"],
  ];
  for (const [value, expected] of vectors) strictEqual(hex(encodeVarint(value)), expected, String(value));
});

Deno.test("encodeVarint loses no 64-bit integer and writes no needless group", () => {
  fc.assert(fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (value) => {
    const bytes = encodeVarint(value);
    const decoded = bytes.reduce((sum, byte, index) => sum | BigInt(byte & 0x7f) << BigInt(7 * index), 0n);
    strictEqual(BigInt.asIntN(64, decoded), value);
    bytes.forEach((byte, index) => strictEqual(byte > 0x7f, index < bytes.length - 1));
    strictEqual(bytes.length > 1 && bytes.at(-1) === 0, false);
  }));
});

Deno.test("the fields of the encoding guide come out as the guide shows them", () => {
  // Its Test1 (a = 150), Test2 (b = "testing") and Test3 (c = Test1).
  const test1 = integerField(1, 150);
  strictEqual(hex(toBytes(test1)), "089601");
  strictEqual(hex(toBytes(textField(2, "testing"))), "120774657374696e67");
  strictEqual(hex(toBytes(messageField(3, test1))), "1a03089601");
});

Deno.test("a message keeps its fields in their order, and counts bytes instead of characters", () => {
  const whole = message(textField(1, "é"), bytesField(16, Uint8Array.of(0, 255)), messageField(2, message()));
  strictEqual(hex(toBytes(whole)), "0a02c3a9" + "820102" + "00ff" + "1200");
  strictEqual(whole.byteLength, toBytes(whole).byteLength);
  deepStrictEqual(toBytes(message()), new Uint8Array());
});
