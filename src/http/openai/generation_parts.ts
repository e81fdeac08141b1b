// Generation parts: what OpenAI's routes that generate text have in common.
import { encodeBase64url } from "../../encoding/base64url.ts";
import type { InferenceDoor } from "../inference_door.ts";

/** What the routes need. */
export interface GenerationParts {
  readonly door: InferenceDoor;
  /** A new id behind a prefix, which brings its own separator: `chatcmpl-`, `resp_`. */
  readonly newId: (prefix: string) => string;
  /** Whole seconds since 1970. */
  readonly nowSeconds: () => number;
  /** Hosts, in lower case, from which engines may be told to fetch images. */
  readonly imageHosts: ReadonlySet<string>;
  /** Largest body of a request that can carry images and sound. */
  readonly mediaBodyBytesMax: number;
}

/** A multiple of 3, so that no character of the text stands for fewer bits than it could. */
const ID_BYTES = 18;

/** `GenerationParts.newId`: 144 random bits in 24 characters, for nobody may guess the id of another's answer. */
export function newGenerationId(prefix: string): string {
  return prefix + encodeBase64url(crypto.getRandomValues(new Uint8Array(ID_BYTES)));
}
