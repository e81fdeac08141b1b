// UTF-8, strict: malformed bytes are an outcome, never replacement characters.
import { no, ok, type Outcome } from "../faults/outcome.ts";

const encoder = new TextEncoder();
// ignoreBOM keeps a byte order mark as U+FEFF, where the JSON grammar then refuses it (RFC 8259 §8.1).
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Text to UTF-8 bytes. */
export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text);
}

/** UTF-8 bytes to text; "not_utf8" where a byte is malformed. */
export function decodeUtf8(bytes: Uint8Array): Outcome<string, "not_utf8"> {
  try {
    return ok(decoder.decode(bytes));
  } catch {
    return no("not_utf8");
  }
}
