// Multipart: a multipart/form-data body (RFC 7578, RFC 2046 §5.1) part by part as it comes, strictly; no part is held.
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { parsePartHead, type PartHead } from "./part_head.ts";
import type { BodyBounds } from "./body_pieces.ts";
import { requireReadable } from "./read_body.ts";

const PARTS_MAX = 32;
const HEAD_BYTES_MAX = 8192;
const TEXT_BYTES_MAX = 65_536;
const WANTED = "Send multipart/form-data, uncompressed.";

const CR = 0x0d, LF = 0x0a, DASH = 0x2d;
const HEAD_END = encodeUtf8("\r\n\r\n");
const NOTHING = new Uint8Array();

/** It says nothing here, and is harmless. */
const CHARSET = `(?:;[ \\t]*charset="?utf-8"?[ \\t]*)?`;
/**
 * RFC 2046 §5.1.1: 1 to 70 of its characters, the last no space; quoted where they make no token. Some clients write a bare `/`,
 * `:`, `=` or `?` all the same.
 */
const CONTENT_TYPE = new RegExp(
  `^multipart/form-data[ \\t]*${CHARSET};[ \\t]*boundary=` +
    `(?:"([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])"|([0-9A-Za-z'+_./:=?-]{1,70}))[ \\t]*${CHARSET}$`,
  "i",
);

/**
 * Refuses a body by what its headers say of it.
 *
 * @throws Fault `media_type_unsupported` · `body_too_large` · `request_invalid`
 */
export function requireMultipartAnnounced(request: Request, bounds: BodyBounds): void {
  const contentType = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data[ \t]*(?:;|$)/i.test(contentType)) {
    throw new Fault("media_type_unsupported", "Cannot read a body: it is not multipart/form-data", {
      detail: WANTED,
    });
  }
  requireReadable(request, bounds, WANTED);
  boundaryOf(contentType);
}

/**
 * The boundary in a `Content-Type` header.
 *
 * @throws Fault `request_invalid`
 */
export function boundaryOf(contentType: string): string {
  const match = CONTENT_TYPE.exec(contentType);
  const boundary = match?.[1] ?? match?.[2];
  if (boundary === undefined) {
    throw invalid("its boundary is malformed", "The Content-Type has no valid boundary.");
  }
  return boundary;
}

/**
 * Reads one body. Calls follow each other: `nextPart`, then `nextPiece` until it says undefined (or `text`), then `nextPart`
 * again. All throw Fault `request_invalid` for what breaks the format, and whatever `nextBytes` throws.
 */
export class MultipartReader {
  readonly #nextBytes: () => Promise<Uint8Array | undefined>;
  readonly #delimiter: Uint8Array;
  /** What has come and was not taken. No CRLF stands before the first delimiter; it is put there. */
  #buffer: Uint8Array = Uint8Array.of(CR, LF);
  #inPart = false;
  #parts = 0;

  /** @param nextBytes the bytes of the body in any pieces; undefined after the last */
  constructor(boundary: string, nextBytes: () => Promise<Uint8Array | undefined>) {
    this.#delimiter = encodeUtf8(`\r\n--${boundary}`);
    this.#nextBytes = nextBytes;
  }

  /** The head of the next part, whatever of the part before was not read; undefined after the last part and the body's end. */
  async nextPart(): Promise<PartHead | undefined> {
    if (this.#parts === 0) await this.#takeFirstDelimiter();
    while (this.#inPart) await this.nextPiece();
    const [first, second] = await this.#take(2);
    if (first === DASH && second === DASH) return await this.#requireEnd();
    if (first !== CR || second !== LF) {
      throw malformed("a boundary is followed by something else than a line end");
    }
    if (++this.#parts > PARTS_MAX) throw malformed(`it has more than ${PARTS_MAX} parts`);
    const head = parsePartHead(await this.#takeHead());
    if (!head.ok) throw malformed(`a part ${head.reason}`);
    this.#inPart = true;
    return head.value;
  }

  /** The next bytes of the part, at least one; undefined after the last. They are a view of what the source gave. */
  async nextPiece(): Promise<Uint8Array | undefined> {
    while (this.#inPart) {
      const at = indexOf(this.#buffer, this.#delimiter);
      if (at > 0) {
        const piece = this.#buffer.subarray(0, at);
        this.#buffer = this.#buffer.subarray(at);
        return piece;
      }
      if (this.#buffer.length >= this.#delimiter.length) {
        this.#buffer = this.#buffer.subarray(this.#delimiter.length);
        this.#inPart = false;
      } else await this.#fill();
    }
    return undefined;
  }

  /** The whole part as text. */
  async text(): Promise<string> {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for (let piece = await this.nextPiece(); piece !== undefined; piece = await this.nextPiece()) {
      bytes += piece.length;
      if (bytes > TEXT_BYTES_MAX) {
        throw malformed(`a part that is no file has more than ${TEXT_BYTES_MAX} bytes`);
      }
      pieces.push(piece);
    }
    const text = decodeUtf8(join(pieces, bytes));
    if (!text.ok) throw malformed("a part that is no file is not valid UTF-8");
    return text.value;
  }

  /** RFC 2046 §5.1.1 lets text stand before it, for readers that know no MIME; nobody writes any, and it could only hide something. */
  async #takeFirstDelimiter(): Promise<void> {
    const start = await this.#take(this.#delimiter.length);
    if (indexOf(start, this.#delimiter) !== 0) throw malformed("it does not begin with its boundary");
  }

  async #takeHead(): Promise<Uint8Array> {
    for (;;) {
      const at = indexOf(this.#buffer, HEAD_END);
      const isWhole = at + HEAD_END.length <= this.#buffer.length;
      if (at > HEAD_BYTES_MAX) throw malformed(`a part has headers of more than ${HEAD_BYTES_MAX} bytes`);
      if (isWhole) return (await this.#take(at + HEAD_END.length)).subarray(0, at);
      await this.#fill();
    }
  }

  /** Behind the closing delimiter: nothing, or the line end that most clients write. */
  async #requireEnd(): Promise<undefined> {
    for (;;) {
      const [first = CR, second = LF, third] = this.#buffer;
      if (first !== CR || second !== LF || third !== undefined) {
        throw malformed("something follows its closing boundary");
      }
      const bytes = await this.#nextBytes();
      if (bytes !== undefined) this.#append(bytes);
      else if (this.#buffer.length === 1) throw malformed("something follows its closing boundary");
      else return undefined;
    }
  }

  /** The next bytes, exactly so many. */
  async #take(count: number): Promise<Uint8Array> {
    while (this.#buffer.length < count) await this.#fill();
    const taken = this.#buffer.subarray(0, count);
    this.#buffer = this.#buffer.subarray(count);
    return taken;
  }

  async #fill(): Promise<void> {
    const bytes = await this.#nextBytes();
    if (bytes === undefined) throw malformed("it ends before its closing boundary");
    this.#append(bytes);
  }

  /** What is left over is less than a delimiter or a part's headers: little is copied. */
  #append(bytes: Uint8Array): void {
    this.#buffer = this.#buffer.length === 0
      ? bytes
      : join([this.#buffer, bytes], this.#buffer.length + bytes.length);
  }
}

/**
 * Where a mark begins, which starts with CR: the first place where all of it stands, or as much of it as there are bytes; the
 * length of the bytes where it is nowhere. What was found alike is not looked at again, so that no byte costs more for a boundary
 * that a client made up: a boundary holds no CR, and the second one of `HEAD_END` begins a mark only before the LF that was missing.
 */
function indexOf(bytes: Uint8Array, mark: Uint8Array): number {
  const { length } = bytes;
  for (let at = 0; at < length;) {
    if (bytes[at] !== CR) {
      at++;
      continue;
    }
    const markEnd = Math.min(mark.length, length - at);
    let same = 1;
    while (same < markEnd && bytes[at + same] === mark[same]) same++;
    if (same === markEnd) return at;
    at += same;
  }
  return length;
}

function join(pieces: readonly Uint8Array[], length: number): Uint8Array {
  if (pieces.length < 2) return pieces[0] ?? NOTHING;
  const whole = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

function malformed(state: string): Fault {
  return invalid(state, `The body is no valid multipart/form-data: ${state}.`);
}

function invalid(state: string, detail: string): Fault {
  return new Fault("request_invalid", `Cannot read a body: ${state}`, { detail });
}
