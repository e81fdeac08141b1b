// Audio container: which files of sound are taken, by the suffix of their name and by their first bytes.

/** Suffixes that OpenAI's reference lists, and what is said of such a file to an engine. */
export const AUDIO_MEDIA_TYPES = {
  flac: "audio/flac",
  mp3: "audio/mpeg",
  mp4: "audio/mp4",
  mpeg: "audio/mpeg",
  mpga: "audio/mpeg",
  m4a: "audio/mp4",
  ogg: "audio/ogg",
  wav: "audio/wav",
  webm: "audio/webm",
} as const;

/** One of the suffixes. */
export type AudioSuffix = keyof typeof AUDIO_MEDIA_TYPES;

/** So many bytes tell the container. */
export const CONTAINER_BYTES = 12;

const MEDIA_TYPE = /^(?:audio\/.*|video\/(?:mp4|mpeg|ogg|webm)|application\/(?:octet-stream|ogg))$/;

/** The suffix of a file's name, in lower case; undefined where it is none of those. */
export function audioSuffixOf(fileName: string): AudioSuffix | undefined {
  const suffix = fileName.slice(fileName.lastIndexOf(".") + 1).toLowerCase();
  return fileName.includes(".") && Object.hasOwn(AUDIO_MEDIA_TYPES, suffix)
    ? suffix as AudioSuffix
    : undefined;
}

/** Whether a file that calls itself so can be sound: clients that do not know say application/octet-stream. */
export function isAudioMediaType(mediaType: string): boolean {
  return MEDIA_TYPE.test(mediaType);
}

/**
 * Whether bytes begin like one of the containers. Which one it is may differ from the name: engines look for themselves, and an
 * `.mp4` that is called `.m4a` is nothing wrong.
 *
 * @param start the first `CONTAINER_BYTES` of a file, or all of a shorter one
 */
export function isAudioStart(start: Uint8Array): boolean {
  const text = String.fromCharCode(...start.subarray(0, CONTAINER_BYTES));
  return text.startsWith("fLaC") || // RFC 9639 §8.1
    text.startsWith("OggS") || // RFC 3533 §6
    text.startsWith("\x1a\x45\xdf\xa3") || // EBML, RFC 8794 §8.1
    text.startsWith("ID3") || // the tag before MPEG audio, and before FLAC at times
    text.startsWith("\x00\x00\x01\xba") || // MPEG program stream, ISO 13818-1 §2.5.3.4
    text.slice(4, 8) === "ftyp" || // ISO 14496-12 §4.3
    (/^(?:RIFF|RF64)/.test(text) && text.slice(8) === "WAVE") ||
    isMpegAudioFrame(start);
}

/** ISO 11172-3 §2.4.1.3: 11 bits of sync, then a version and a layer that are not the reserved ones. */
function isMpegAudioFrame([first = 0, second = 0]: Uint8Array): boolean {
  return first === 0xff && (second & 0xe0) === 0xe0 && (second & 0x18) !== 0x08 && (second & 0x06) !== 0;
}
