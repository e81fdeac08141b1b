// Transcription form: the fields of `POST /v1/audio/transcriptions`, from the texts of a form to typed values.
import { z } from "@hono/zod-openapi";
import { Fault } from "../../faults/fault.ts";
import { parseFields } from "../middleware/parse_fields.ts";
import { modelField } from "./sampling_fields.ts";

const GRANULARITIES = ["word", "segment"] as const;
/** Forms have lists by this name. */
const GRANULARITIES_FIELD = "timestamp_granularities[]";

const temperature = z.string().max(32).regex(/^\d*\.?\d+(?:e-\d+)?$/, "is no number from 0 to 1").transform(
  Number,
)
  .refine((value) => value <= 1, "is no number from 0 to 1");

const formFields = {
  model: modelField,
  language: z.string().regex(/^[a-z]{2,3}(?:-[A-Za-z]{2,4})?$/, "is no language tag such as en or pt-BR")
    .optional(),
  prompt: z.string().max(4096).optional(),
  response_format: z.enum(["json", "text", "srt", "verbose_json", "vtt"]).default("json"),
  temperature: temperature.optional(),
  [GRANULARITIES_FIELD]: z.array(z.enum(GRANULARITIES)).max(GRANULARITIES.length)
    .refine((values) => new Set(values).size === values.length, "says the same twice").default([]),
  stream: z.literal("false", { error: "is not false: the answer comes whole here" }).optional(),
};

const form = z.strictObject(formFields).refine(
  (fields) => fields[GRANULARITIES_FIELD].length === 0 || fields.response_format === "verbose_json",
  { path: [GRANULARITIES_FIELD], message: "is only allowed with response_format verbose_json" },
);

/** For the API description. */
export const transcriptionFormSchema = z.strictObject({
  file: z.string().openapi({ format: "binary" }).describe(
    "flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm.",
  ),
  ...formFields,
  temperature: z.number().min(0).max(1).optional(),
});

/** The fields, typed. */
export type TranscriptionFields = z.infer<typeof form>;

/** The texts of a form, as they come. */
export class TranscriptionForm {
  readonly #texts = new Map<string, string[]>();

  has(name: string): boolean {
    return this.#texts.has(name);
  }

  /**
   * Refuses a field by its name, before its text is read.
   *
   * @throws Fault `fields_invalid` where the form has no such field, or has it already
   */
  requireNew(name: string): void {
    if (!Object.hasOwn(formFields, name)) throw fieldMistake(name, "is not a known field");
    if (this.has(name) && name !== GRANULARITIES_FIELD) throw fieldMistake(name, "is there more than once");
  }

  add(name: string, text: string): void {
    const texts = this.#texts.get(name) ?? [];
    if (texts.length > GRANULARITIES.length) throw fieldMistake(name, "is there too often");
    this.#texts.set(name, [...texts, text]);
  }

  /** @throws Fault `fields_invalid` */
  parse(): TranscriptionFields {
    return parseFields(
      form as z.ZodType<TranscriptionFields>,
      Object.fromEntries(
        [...this.#texts].map((
          [name, texts],
        ) => [name, name === GRANULARITIES_FIELD ? texts : texts[0] ?? ""]),
      ),
    );
  }
}

/** Refuses fields that say something else than what an engine was told before they came. */
export function requireSame(told: TranscriptionFields, all: TranscriptionFields): void {
  for (const name of Object.keys(all) as (keyof TranscriptionFields)[]) {
    // What it says is said by default already: JSON, no stream.
    if (name === "stream" || JSON.stringify(all[name]) === JSON.stringify(told[name])) continue;
    throw fieldMistake(
      name,
      "comes behind the file, whose transcription has begun without it; send it before the file",
    );
  }
}

/** A Fault `fields_invalid` about one field. */
export function fieldMistake(name: string, message: string): Fault {
  const path = `/${name.slice(0, 64).replaceAll("~", "~0").replaceAll("/", "~1")}`;
  return new Fault("fields_invalid", "Cannot accept a form: a field breaks its rule", {
    fields: [{ path, message }],
  });
}
