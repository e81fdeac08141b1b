// Sampling fields: what OpenAI's chat and legacy completions both say about how tokens are drawn and sent, and its neutral form.
import { z } from "@hono/zod-openapi";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { Sampling } from "../../engines/chat.ts";
import { Fault } from "../../faults/fault.ts";

/** What a model may be called: longer than any name of ours, so that an unknown one is answered as unknown. */
export const modelField = z.string().min(1).max(256);
/** Tokens of an answer. What a caller may really ask for is bounded by its role and by the model. */
export const tokensMaxField = z.int().min(1).max(100_000_000).nullish();
/** A prompt, a message, the arguments of a call: OpenAI's own bound. */
export const TEXT_CHARACTERS_MAX = 10_485_760;
/** A label of the caller's own. */
export const labelField = z.string().max(256).nullish().describe(
  "Accepted for compatibility and not used: who asks is known from the token.",
);

const STOP_MAX = 16;
const STOP_CHARACTERS_MAX = 256;
const BIASES_MAX = 1024;
const TOP_K_MAX = 1_000_000;

const stopText = z.string({ error: "is not a text" }).min(1, "is empty").max(
  STOP_CHARACTERS_MAX,
  `has more than ${STOP_CHARACTERS_MAX} characters`,
);

const stop = z.union([stopText, z.array(stopText).max(STOP_MAX, `has more than ${STOP_MAX} texts`)], {
  error: ({ input }) =>
    typeof input === "string"
      ? `is empty or has more than ${STOP_CHARACTERS_MAX} characters`
      : Array.isArray(input)
      ? `has more than ${STOP_MAX} texts`
      : "is neither a text nor a list of texts",
});

/** As in OpenAI's reference, where `null` says the same as an absent field. */
export const samplingFields = {
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  n: z.int().min(1).max(128).nullish(),
  stop: stop.nullish(),
  seed: z.int().nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  logit_bias: z.record(z.string().regex(/^(0|[1-9]\d{0,6})$/), z.number().min(-100).max(100), {
    error: ({ code }) => code === "invalid_key" ? "is no token id" : "is no object of biases by token id",
  }).refine((biases) => Object.keys(biases).length <= BIASES_MAX, `has more than ${BIASES_MAX} biases`)
    .nullish(),
  max_tokens: tokensMaxField,
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_usage: z.boolean().nullish() }).nullish(),
  user: labelField,
};

const samplingBody = z.object(samplingFields);
type SamplingBody = z.infer<typeof samplingBody>;

/** Adds the mistake of a body that has options for a stream and asks for none. */
export function checkStreamOptions(body: SamplingBody, context: z.core.$RefinementCtx): void {
  if (isStated(body.stream_options) && body.stream !== true) {
    context.addIssue({
      code: "custom",
      path: ["stream_options"],
      message: "is only allowed with stream: true",
    });
  }
}

/** The neutral form. What the two routes call differently comes apart. */
export function samplingOf(body: SamplingBody, apart: {
  readonly outputTokensMax: number | null | undefined;
  readonly logprobs: number | null | undefined;
  readonly extra: Readonly<Record<string, JsonValue>>;
}): Sampling {
  return {
    ...stated({
      outputTokensMax: apart.outputTokensMax,
      temperature: body.temperature,
      topP: body.top_p,
      seed: body.seed,
      presencePenalty: body.presence_penalty,
      frequencyPenalty: body.frequency_penalty,
      logitBias: body.logit_bias,
      logprobs: apart.logprobs,
    }),
    stop: typeof body.stop === "string" ? [body.stop] : body.stop ?? [],
    choices: body.n ?? 1,
    ...topKApart(apart.extra),
  };
}

/**
 * Let-through fields without `top_k`, which has a neutral form: OpenAI has no such field, most engines do.
 *
 * @throws Fault `fields_invalid`
 */
export function topKApart(extra: Readonly<Record<string, JsonValue>>): Pick<Sampling, "topK" | "extra"> {
  const { top_k: topK, ...others } = extra;
  if (!isStated(topK)) return { extra: others };
  if (typeof topK !== "number" || !Number.isInteger(topK) || topK < 1 || topK > TOP_K_MAX) {
    throw new Fault("fields_invalid", "Cannot accept a body: top_k breaks its rule", {
      fields: [{ path: "/top_k", message: `is no whole number from 1 to ${TOP_K_MAX}` }],
    });
  }
  return { topK, extra: others };
}

/** Whether a field says anything. */
export function isStated<Value>(value: Value): value is NonNullable<Value> {
  return value !== undefined && value !== null;
}

/** Those fields that say anything. */
export function stated<Fields extends object>(
  fields: Fields,
): { [Name in keyof Fields]?: NonNullable<Fields[Name]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => isStated(value))) as never;
}
