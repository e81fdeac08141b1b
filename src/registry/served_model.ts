// Served model: what the gate knows of a model, wherever it computes.
import type { ModelCard } from "./model_card.ts";

/** What a model can be asked to do. */
export const CAPABILITIES = [
  "chat",
  "completion",
  "embedding",
  "rerank",
  "moderation",
  "speech",
  "transcription",
  "image",
  "tensor",
] as const;

/** One of them. */
export type Capability = typeof CAPABILITIES[number];

/** What tokens cost, in the currency of whoever runs the server. */
export interface TokenPrices {
  readonly inputPerMillion: number;
  readonly outputPerMillion: number;
}

/** A model that callers can name. */
export interface ServedModel {
  readonly id: string;
  /** Other names that callers may use. */
  readonly aliases: readonly string[];
  readonly capabilities: readonly Capability[];
  /** OpenAI's `owned_by`. */
  readonly ownedBy: string;
  /** Whole seconds since 1970. */
  readonly createdSeconds: number;
  /** Built-in roles that see and that use it, and the teams that it is for; teams null: all of them. */
  readonly access: {
    readonly see: readonly string[];
    readonly use: readonly string[];
    readonly teams: readonly string[] | null;
  };
  /** False where an artefact was refused: the model is known, and cannot be run. */
  readonly accepted: boolean;
  /** Digest of the weights where they are ours to know; null for upstream models. */
  readonly sha256: string | null;
  readonly limits: {
    readonly textsPerRequestMax: number;
    /** UTF-16 code units of one text. */
    readonly charactersPerTextMax: number;
    /** Input and output together; null where nobody said. */
    readonly contextTokensMax: number | null;
    /** Output of one choice; null where nobody said. */
    readonly outputTokensMax: number | null;
  };
  /** Length of a vector; null where the model embeds nothing or nobody said. */
  readonly dimensions: number | null;
  /** Whether a caller may ask for shorter vectors. */
  readonly dimensionsReducible: boolean;
  /** Engine-specific request fields that are let through. */
  readonly passFields: readonly string[];
  readonly prices: TokenPrices | null;
  /** Models to try, in order, when this one cannot answer. */
  readonly fallbacks: readonly string[];
}

/** What a card of this machine says, in the terms of the gate. */
export function servedModelOfCard(card: ModelCard, accepted: boolean): ServedModel {
  const { textsPerRequestMax, charactersPerTextMax, tokensPerTextMax } = card.limits;
  return {
    id: card.id,
    aliases: [],
    capabilities: [card.task],
    ownedBy: card.source,
    createdSeconds: card.createdSeconds,
    access: { see: card.access.see, use: card.access.use, teams: card.access.teams ?? null },
    accepted,
    sha256: card.artefacts.graph.sha256,
    limits: {
      textsPerRequestMax,
      charactersPerTextMax,
      contextTokensMax: tokensPerTextMax,
      outputTokensMax: null,
    },
    dimensions: card.dimensions,
    dimensionsReducible: card.dimensionsReducible,
    passFields: [],
    prices: card.prices ?? null,
    fallbacks: [],
  };
}
