// Part head: the headers of one part of a multipart/form-data body (RFC 7578 §4), strictly.
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";

/** What the headers say of a part. */
export interface PartHead {
  /** The form field that it is for. */
  readonly name: string;
  /** As the client wrote it: it names nothing on this side. Absent where the part is no file. */
  readonly fileName?: string;
  /** In lower case, without parameters. */
  readonly mediaType?: string;
}

/** Why a part's headers are refused. */
export type PartHeadReason =
  | "is not UTF-8"
  | "has too many header lines"
  | "has a malformed header line"
  | "has a header twice"
  | "has no Content-Disposition"
  | "has a malformed Content-Disposition"
  | "has a malformed Content-Type"
  | "has a transfer encoding";

const HEADERS_MAX = 16;

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
/** RFC 9112 §5: no space before the colon, no folded lines. A letter first, so that none can look like a boundary. */
const HEADER = new RegExp(`^([A-Za-z](?:${TOKEN})?):[ \\t]*`);
/** All but the tab, which stands for a space. */
const CONTROL = /(?!\t)\p{Cc}/u;
const FORM_DATA = /form-data[ \t]*/iy;
/** In a quoted value, a backslash may stand before anything; what it does is up to `unescape`. */
const PARAMETER = new RegExp(
  `;[ \\t]*(${TOKEN})=(?:"([^"\\\\]*(?:\\\\.[^"\\\\]*)*)"|(${TOKEN}))[ \\t]*`,
  "uy",
);
const MEDIA_TYPE = new RegExp(`^(${TOKEN}/${TOKEN})[ \\t]*(?:;|$)`);
/** RFC 2045 §6.2: those that change nothing. RFC 7578 §4.7 deprecates all of them. */
const PLAIN_ENCODING = /^(?:7bit|8bit|binary)[ \t]*$/i;

/**
 * Reads the headers of a part.
 *
 * @param bytes the lines, without the empty one that ends them
 */
export function parsePartHead(bytes: Uint8Array): Outcome<PartHead, PartHeadReason> {
  const text = decodeUtf8(bytes);
  if (!text.ok) return no("is not UTF-8");
  const lines = text.value.split("\r\n");
  if (lines.length > HEADERS_MAX) return no("has too many header lines");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [begin, name] = HEADER.exec(line) ?? [];
    if (begin === undefined || name === undefined || CONTROL.test(line)) {
      return no("has a malformed header line");
    }
    const key = name.toLowerCase();
    if (headers.has(key)) return no("has a header twice");
    headers.set(key, line.slice(begin.length));
  }
  // RFC 7578 §4.8: all other headers are ignored.
  if (!PLAIN_ENCODING.test(headers.get("content-transfer-encoding") ?? "binary")) {
    return no("has a transfer encoding");
  }
  const mediaType = parseMediaType(headers.get("content-type"));
  if (!mediaType.ok) return mediaType;
  const names = parseDisposition(headers.get("content-disposition"));
  return names.ok ? ok({ ...names.value, ...mediaType.value }) : names;
}

function parseMediaType(
  value: string | undefined,
): Outcome<{ readonly mediaType?: string }, "has a malformed Content-Type"> {
  if (value === undefined) return ok({});
  const mediaType = MEDIA_TYPE.exec(value)?.[1]?.toLowerCase();
  return mediaType === undefined ? no("has a malformed Content-Type") : ok({ mediaType });
}

/** RFC 7578 §4.2. */
function parseDisposition(
  value: string | undefined,
): Outcome<
  { readonly name: string; readonly fileName?: string },
  "has no Content-Disposition" | "has a malformed Content-Disposition"
> {
  if (value === undefined) return no("has no Content-Disposition");
  const parameters = new Map<string, string>();
  FORM_DATA.lastIndex = 0;
  let at = FORM_DATA.test(value) ? FORM_DATA.lastIndex : undefined;
  while (at !== undefined && at < value.length) {
    PARAMETER.lastIndex = at;
    const [whole, key, quoted, token] = PARAMETER.exec(value) ?? [];
    if (whole === undefined || key === undefined) return no("has a malformed Content-Disposition");
    at += whole.length;
    const name = key.toLowerCase();
    // `filename*` may not be sent (RFC 7578 §4.2), but .NET sends it beside `filename`, which is the one that is read.
    if (!["name", "filename", "filename*"].includes(name) || parameters.has(name)) {
      return no("has a malformed Content-Disposition");
    }
    parameters.set(name, quoted === undefined ? token ?? "" : unescape(quoted));
  }
  const name = parameters.get("name");
  if (at === undefined || name === undefined) return no("has a malformed Content-Disposition");
  const fileName = parameters.get("filename");
  return ok(fileName === undefined ? { name } : { name, fileName });
}

/**
 * Browsers write a quote as %22 and leave backslashes as they are (WHATWG HTML §4.10.21.8); curl and others escape both with a
 * backslash (RFC 2183 with RFC 822's quoted-string). What both can mean is read.
 */
function unescape(quoted: string): string {
  return quoted.replace(/\\(["\\])/g, "$1").replaceAll("%22", '"');
}
