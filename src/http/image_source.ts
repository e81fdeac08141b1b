// Image source: pictures in a request, checked before an engine gets them.

/** 20 MB of bytes in base64. */
export const IMAGE_CHARACTERS_MAX = 28_000_000;
const ADDRESS_CHARACTERS_MAX = 2048;

/** The formats that are taken, as the second half of their media types (RFC 2046 §4.2). */
export const IMAGE_TYPES = ["png", "jpeg", "webp", "gif"] as const;
/** One of them. */
export type ImageType = typeof IMAGE_TYPES[number];

/**
 * An address that all parsers of URLs read alike: no user, no port, no upper case in the host, a slash behind it, visible ASCII
 * without the backslash that some take for a slash (RFC 3986 §3.2, WHATWG URL §4.4).
 */
const PLAIN_ADDRESS = /^https:\/\/([a-z0-9.-]{1,253})\/[!-[\]-~]*$/;

/** What is wrong with the bytes of an image, in words for the caller; undefined where nothing is. */
export function imageDataMistake(type: ImageType, base64: string): string | undefined {
  if (!isBase64(base64)) return "is no valid base64 (RFC 4648 §4, padded)";
  return startsLike(type, bytesAtStart(base64)) ? undefined : `is no ${type} image, as it is said to be`;
}

/**
 * What is wrong with the address of an image, in words for the caller; undefined where nothing is. Engines fetch what is at an
 * address: from hosts that nobody allowed, that would reach into the networks behind them.
 *
 * @param hosts in lower case
 */
export function imageAddressMistake(url: string, hosts: ReadonlySet<string>): string | undefined {
  const host = url.length > ADDRESS_CHARACTERS_MAX ? undefined : PLAIN_ADDRESS.exec(url)?.[1];
  if (host === undefined) {
    return "is no plain https address: host in lower case, no user, no port, a path, " +
      `at most ${ADDRESS_CHARACTERS_MAX} characters of ASCII`;
  }
  return hosts.has(host)
    ? undefined
    : "is at a host that this server takes no images from; send the image itself";
}

const PIECE_CHARACTERS = 65_536;
/** One for all: much quicker than to make the bytes of a large image only to drop them. */
const buffer = new Uint8Array(PIECE_CHARACTERS / 4 * 3);

/** Whether a text is base64 of at least one byte (RFC 4648 §4): padded, no white space, no bits that stand for nothing. */
export function isBase64(text: string): boolean {
  if (text === "") return false;
  for (let start = 0; start < text.length; start += PIECE_CHARACTERS) {
    const piece = text.slice(start, start + PIECE_CHARACTERS);
    const bytes = decode(piece);
    // The decoder skips white space, and padding may end the last piece only: both show in the length.
    const isLast = start + PIECE_CHARACTERS >= text.length;
    if (bytes === undefined || piece.length !== (isLast ? Math.ceil(bytes / 3) : bytes / 3) * 4) return false;
  }
  return true;
}

/** Decodes into the buffer; how many bytes it took, undefined where the text is no base64. */
function decode(text: string): number | undefined {
  try {
    return buffer.setFromBase64(text, { lastChunkHandling: "strict" }).written;
  } catch {
    return undefined;
  }
}

/** The first bytes, as Latin-1 text. */
function bytesAtStart(base64: string): string {
  const length = decode(base64.slice(0, 16)) ?? 0;
  return String.fromCharCode(...buffer.subarray(0, length));
}

/** By the marks at the start of each format: PNG §5.2, JPEG B.1.1.3, RIFF with WEBP, GIF §17. */
function startsLike(type: ImageType, start: string): boolean {
  switch (type) {
    case "png":
      return start.startsWith("\x89PNG\r\n\x1a\n");
    case "jpeg":
      return start.startsWith("\xff\xd8\xff");
    case "webp":
      return start.startsWith("RIFF") && start.slice(8, 12) === "WEBP";
    case "gif":
      return start.startsWith("GIF87a") || start.startsWith("GIF89a");
  }
}
