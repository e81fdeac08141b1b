// Model card: what a folder below models/ says of its model. Parsed strictly: a card is input like any other.
import { z } from "zod";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8 } from "../encoding/utf8.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";

const artefact = z.strictObject({
  /** A file's name inside the model's own folder; never a path. */
  file: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,99}$/),
  /** Of the whole file, lower-case hexadecimal. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  bytes: z.int().min(1),
});

/** The form of `card.json`. */
export const modelCardSchema = z.strictObject({
  id: z.string().regex(/^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/),
  task: z.literal("embedding"),
  name: z.string().min(1).max(200),
  description: z.string().max(2000),
  license: z.string().min(1).max(100),
  source: z.string().min(1).max(300),
  /** When the weights were published: whole seconds since 1970 (OpenAI's `created`). */
  createdSeconds: z.int().min(0),
  artefacts: z.strictObject({
    graph: artefact,
    vocabulary: artefact,
  }),
  /** Length of one vector. */
  dimensions: z.int().min(1).max(65_536),
  /** Whether a caller may ask for a prefix of the vector, re-normalised (Matryoshka training only). */
  dimensionsReducible: z.boolean(),
  limits: z.strictObject({
    textsPerRequestMax: z.int().min(1),
    /** UTF-16 code units of one text. */
    charactersPerTextMax: z.int().min(1),
    tokensPerTextMax: z.int().min(1),
    tokensPerRequestMax: z.int().min(1),
  }),
  /** What tokens cost, in the currency of whoever runs the server; absent: nothing. */
  prices: z.strictObject({
    inputPerMillion: z.number().min(0).max(1e9),
    outputPerMillion: z.number().min(0).max(1e9),
  }).optional(),
  access: z.strictObject({
    /** Roles that know of the model; for all others it does not exist. */
    see: z.array(z.string()).min(1),
    /** Roles that may run it. */
    use: z.array(z.string()),
    /** Teams that it is for; absent: all of them. */
    teams: z.array(z.string()).min(1).optional(),
  }),
});

/** A model's card. */
export type ModelCard = z.infer<typeof modelCardSchema>;

/** How deep a card's JSON goes at most. */
const DEPTH_MAX = 8;

/** A card from the bytes of its file. */
export function parseModelCard(bytes: Uint8Array): Outcome<ModelCard, "card_not_json" | "card_invalid"> {
  const text = decodeUtf8(bytes);
  const json = text.ok ? parseStrictJson(text.value, DEPTH_MAX) : text;
  if (!json.ok) return no("card_not_json");
  const card = modelCardSchema.safeParse(json.value);
  return card.success ? ok(card.data) : no("card_invalid");
}
