// Transcriptions route: sound to text, from a form whose file is passed on as it comes.
import { z } from "@hono/zod-openapi";
import { encodeUtf8 } from "../../encoding/utf8.ts";
import type { Transcription, TranscriptionRequest } from "../../engines/task.ts";
import { INFERENCE_FAULTS } from "../inference_door.ts";
import { BodyBudget } from "../middleware/body_budget.ts";
import { requireMultipartAnnounced } from "../middleware/multipart.ts";
import { type Answer, type AnyRoute, defineRoute } from "../route.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import { stated } from "./sampling_fields.ts";
import { transcriptionFormSchema } from "./transcription_form.ts";
import { readTranscriptionUpload, type TranscriptionUpload } from "./transcription_upload.ts";

/** What the route needs. */
export interface TranscriptionParts extends Pick<GenerationParts, "door"> {
  /** Largest body of an upload. */
  readonly uploadBytesMax: number;
  /** For all of an upload that is read before an engine begins; absent: 10 minutes. */
  readonly uploadTimeoutMs?: number;
  /** Files up to this are held until the whole form is there; absent: 1 MiB. */
  readonly smallFileBytesMax?: number;
}

const UPLOAD_TIMEOUT_MS = 600_000;
const SMALL_FILE_BYTES_MAX = 1024 * 1024;
/** So many of the largest uploads may wait in memory for the name of their model; one of them for one user. */
const UPLOADS_HELD_MAX = 4;
const MODEL_FIRST = "Send the field model before the file, or try again shortly.";

const transcription = z.looseObject({ text: z.string() }).describe(
  "With response_format text, srt or vtt: text/plain instead.",
);

const placeField = fieldPlacer({
  format: "response_format",
  timestampGranularities: "timestamp_granularities[]",
});

/** `POST /v1/audio/transcriptions`. */
export function transcriptionsRoute(parts: TranscriptionParts): AnyRoute {
  const {
    door,
    uploadBytesMax,
    uploadTimeoutMs = UPLOAD_TIMEOUT_MS,
    smallFileBytesMax = SMALL_FILE_BYTES_MAX,
  } = parts;
  const bounds = { uploadTimeoutMs, smallFileBytesMax };
  const budget = new BodyBudget({
    bytesMax: UPLOADS_HELD_MAX * uploadBytesMax,
    callerBytesMax: uploadBytesMax,
    shareUsedUp: `Too many of your uploads wait for the name of their model. ${MODEL_FIRST}`,
    allUsedUp: `Too many uploads wait for the name of their model. ${MODEL_FIRST}`,
  });
  return defineRoute<TranscriptionUpload>({
    method: "POST",
    path: "/v1/audio/transcriptions",
    summary: "Write down what is said in a file of sound",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    bodyForm: {
      mediaType: "multipart/form-data",
      schema: transcriptionFormSchema,
      requireAnnounced: requireMultipartAnnounced,
      heldBytesMax: smallFileBytesMax,
      read: (request, bodyBounds, caller) =>
        readTranscriptionUpload(request, { ...bodyBounds, ...bounds }, budget, caller),
    },
    bodyBytesMax: uploadBytesMax,
    answers: { 200: { description: "What was said.", schema: transcription } },
    faults: INFERENCE_FAULTS,
    async handle(exchange, upload) {
      try {
        const model = door.find(exchange, upload.fields.model, "transcription");
        const request = transcriptionRequest(upload);
        const { answer } = await door.whole<"transcription">(exchange, model.id, request, placeField);
        const brokenBy = upload.brokenBy();
        if (brokenBy !== undefined) throw brokenBy;
        return describeTranscription(answer);
      } catch (thrown) {
        // Whatever an engine made of a form that broke: what broke is the reason.
        throw upload.brokenBy() ?? thrown;
      } finally {
        upload.close();
      }
    },
  });
}

function transcriptionRequest({ fields, file }: TranscriptionUpload): TranscriptionRequest {
  const { language, prompt, temperature } = fields;
  return {
    task: "transcription",
    file,
    ...stated({ language, prompt, temperature }),
    format: fields.response_format,
    timestampGranularities: fields["timestamp_granularities[]"],
  };
}

function describeTranscription({ content }: Transcription): Answer {
  if ("json" in content) return { status: 200, body: content.json };
  return {
    status: 200,
    headers: { "Content-Type": "text/plain; charset=utf-8" },
    bytes: encodeUtf8(content.text),
  };
}
