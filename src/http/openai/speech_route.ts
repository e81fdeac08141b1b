// Speech route: text to sound, sent as it comes.
import { z } from "@hono/zod-openapi";
import type { SpeechRequest } from "../../engines/task.ts";
import { byteStreamAnswer } from "../event_stream.ts";
import { INFERENCE_FAULTS } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import { modelField, stated } from "./sampling_fields.ts";

const MEDIA_TYPES: Readonly<Record<SpeechRequest["format"], string>> = {
  mp3: "audio/mpeg",
  opus: "audio/ogg",
  aac: "audio/aac",
  flac: "audio/flac",
  wav: "audio/wav",
  pcm: "audio/pcm",
};

/** What an engine may say of its bytes: browsers must not take them for a page. */
const AUDIO_TYPE = /^audio\/[a-z0-9][a-z0-9.+-]{0,63}$/;

const speechRequest = z.strictObject({
  model: modelField,
  input: z.string().min(1, "is empty").max(4096),
  voice: z.string({ error: "is not the name of a voice" }).regex(
    /^[A-Za-z0-9_.-]{1,64}$/,
    "is no name of 1 to 64 letters, digits, _, . and -",
  ),
  response_format: z.enum(["mp3", "opus", "aac", "flac", "wav", "pcm"]).default("mp3"),
  speed: z.number().min(0.25).max(4).optional(),
  instructions: z.string().max(4096).optional(),
  stream_format: z.literal("audio", { error: "is not audio: sound is sent as it comes, not as events" })
    .optional(),
});

/** Both paths of the neutral request that differ from the body's. */
const placeField = fieldPlacer({ text: "input", format: "response_format" });

/** `POST /v1/audio/speech`. */
export function speechRoute({ door }: Pick<GenerationParts, "door">): AnyRoute {
  return defineRoute({
    method: "POST",
    path: "/v1/audio/speech",
    summary: "Speak a text",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body: speechRequest,
    answers: { 200: { description: "The sound, in the format that was asked for." } },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "speech");
      const { response_format: format, speed, instructions } = body;
      const request: SpeechRequest = {
        task: "speech",
        text: body.input,
        voice: body.voice,
        format,
        ...stated({ speed, instructions }),
      };
      const stream = await door.stream<"speech">(exchange, model.id, request, placeField);
      const mediaType = AUDIO_TYPE.test(stream.mediaType ?? "") ? stream.mediaType : undefined;
      return { ...byteStreamAnswer(stream), headers: { "Content-Type": mediaType ?? MEDIA_TYPES[format] } };
    },
  });
}
