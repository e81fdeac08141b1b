// Media fields: pictures and sound as OpenAI's clients send them, in data URLs and in base64.
import {
  IMAGE_CHARACTERS_MAX,
  imageAddressMistake,
  imageDataMistake,
  type ImageType,
} from "../image_source.ts";

const DATA_URL_HEAD = /^data:image\/(png|jpeg|webp|gif);base64,/;
const DATA_URL_HEAD_CHARACTERS_MAX = 32;
/** A picture's base64 and the head before it. */
export const IMAGE_URL_CHARACTERS_MAX = IMAGE_CHARACTERS_MAX + DATA_URL_HEAD_CHARACTERS_MAX;
/** 25 MB of bytes in base64. */
export const AUDIO_CHARACTERS_MAX = 35_000_000;

/**
 * What is wrong with the address of an image, in words for the caller; undefined where nothing is.
 *
 * @param hosts in lower case
 */
export function imageUrlMistake(url: string, hosts: ReadonlySet<string>): string | undefined {
  // Matched on its start alone: the whole may be many megabytes.
  const head = DATA_URL_HEAD.exec(url.slice(0, DATA_URL_HEAD_CHARACTERS_MAX));
  if (head !== null) return imageDataMistake(head[1] as ImageType, url.slice(head[0].length));
  if (url.startsWith("data:")) {
    return "is a data URL of another form than data:image/TYPE;base64, with png, jpeg, webp or gif as TYPE";
  }
  if (!url.startsWith("https://")) return "is neither a data URL of an image nor an https address";
  return imageAddressMistake(url, hosts);
}
