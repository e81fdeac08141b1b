// Image: a prompt as POST /images/generations, and the pictures.
import type { ImageRequest, Images } from "../../task.ts";
import {
  answerInvalid,
  type AnswerObject,
  listOf,
  objectOf,
  readAnswerObject,
  textOf,
  wholeNumberOf,
} from "../answer_json.ts";
import type { WholeCall, WireOptions } from "../wire.ts";
import { JSON_ONLY, jsonRequest } from "./json_request.ts";
import { readUsage } from "./usage.ts";

/** Prompt to pictures. */
export function imageCall(request: ImageRequest, { model }: WireOptions): WholeCall<"image"> {
  return {
    request: jsonRequest("/images/generations", JSON_ONLY, {
      model,
      prompt: request.prompt,
      n: request.images,
      size: request.size,
      quality: request.quality,
      style: request.style,
      background: request.background,
      output_format: request.outputFormat,
      // OpenAI's newer models send nothing but bytes and refuse the field; all others would send addresses.
      response_format: model.startsWith("gpt-image") ? undefined : "b64_json",
      stream: undefined,
    }, request.extra),
    read: ({ bytes }) => readImages(readAnswerObject(bytes), request.images),
  };
}

function readImages(body: AnswerObject, imagesMax: number): Images {
  const list = listOf(body.data, "its list of pictures");
  // Engines that do not know `n` make one.
  if (list.length < 1 || list.length > imagesMax) throw answerInvalid("it has too few or many pictures");
  const images = list.map((each) => {
    const { b64_json, revised_prompt } = objectOf(each, "a picture");
    const base64 = textOf(b64_json, "a picture");
    if (base64 === undefined || !isBase64(base64)) throw answerInvalid("a picture is no base64");
    const revisedPrompt = textOf(revised_prompt, "a revised prompt");
    return revisedPrompt === undefined ? { base64 } : { base64, revisedPrompt };
  });
  return {
    createdSeconds: wholeNumberOf(body.created ?? 0, Number.MAX_SAFE_INTEGER, "its time"),
    images,
    usage: readUsage(body.usage),
  };
}

/** Whether a text is padded base64 (RFC 4648 §4) of something, without white space. */
function isBase64(text: string): boolean {
  if (text === "") return false;
  try {
    const { length } = Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
    return text.length === Math.ceil(length / 3) * 4;
  } catch {
    return false;
  }
}
