// Protobuf's wire format, writing only (https://protobuf.dev/programming-guides/encoding/).
import { encodeUtf8 } from "../../encoding/utf8.ts";

/**
 * A message, or a part of one: byte strings that follow each other. They are joined once, at the end, so that large
 * tensors inside nested messages are copied once only.
 */
export interface Message {
  readonly parts: readonly Uint8Array[];
  readonly byteLength: number;
}

/** The wire types that are used here; the low three bits of a field's tag. */
const VARINT = 0;
const LENGTH_DELIMITED = 2;

/** A message of these fields, in this order. */
export function message(...fields: readonly Message[]): Message {
  return {
    parts: fields.flatMap((field) => field.parts),
    byteLength: fields.reduce((sum, field) => sum + field.byteLength, 0),
  };
}

/** A field of type int32, int64, bool or enum. */
export function integerField(fieldNumber: number, value: number | bigint): Message {
  return ofBytes(encodeVarint(tag(fieldNumber, VARINT)), encodeVarint(value));
}

/** A field of type bytes. The bytes are referred to, not copied, until `toBytes`. */
export function bytesField(fieldNumber: number, bytes: Uint8Array): Message {
  return ofBytes(encodeVarint(tag(fieldNumber, LENGTH_DELIMITED)), encodeVarint(bytes.byteLength), bytes);
}

/** A field of type string. */
export function textField(fieldNumber: number, text: string): Message {
  return bytesField(fieldNumber, encodeUtf8(text));
}

/** A field that is a message itself. */
export function messageField(fieldNumber: number, inner: Message): Message {
  const head = ofBytes(
    encodeVarint(tag(fieldNumber, LENGTH_DELIMITED)),
    encodeVarint(inner.byteLength),
  );
  return message(head, inner);
}

/** The message as one byte string. */
export function toBytes(whole: Message): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(whole.byteLength);
  let offset = 0;
  for (const part of whole.parts) {
    bytes.set(part, offset);
    offset += part.byteLength;
  }
  return bytes;
}

/**
 * An integer in groups of seven bits, lowest group first; the high bit says that more follow. Negative integers are
 * written as their 64-bit two's complement, in ten bytes.
 */
export function encodeVarint(value: number | bigint): Uint8Array {
  const groups: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest > 0x7fn) {
    groups.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  groups.push(Number(rest));
  return Uint8Array.from(groups);
}

function tag(fieldNumber: number, wireType: number): number {
  return fieldNumber * 8 + wireType;
}

function ofBytes(...parts: readonly Uint8Array[]): Message {
  return { parts, byteLength: parts.reduce((sum, part) => sum + part.byteLength, 0) };
}
