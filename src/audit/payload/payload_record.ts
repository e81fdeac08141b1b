// Payload record: the payloads of a request, put together again from their entries.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { PayloadPart, SealedPayload } from "./payload_seal.ts";

/** A payload as the trail has it, with whose it is. */
export interface RecordedPayload extends SealedPayload {
  readonly issuer: string | null;
  /** As subjects stand in the trail. */
  readonly subject: string | null;
}

/** The whole payloads among events of one request; one of which a piece is gone is left out. */
export function payloadsIn(
  events: readonly Readonly<Record<string, JsonValue>>[],
): readonly RecordedPayload[] {
  const found = new Map<string, RecordedPayload & { readonly pieces: string[] }>();
  const counts = new Map<string, number>();
  for (const { type, model, part, piece, pieces, cut, key, sealed, issuer, subject } of events) {
    if (type !== "inference.payload") continue;
    const name = `${part} ${key} ${pieces}`;
    const payload = found.get(name) ?? {
      model: String(model),
      part: part as PayloadPart,
      key: String(key),
      cut: cut === true,
      pieces: [],
      issuer: issuer as string | null,
      subject: subject as string | null,
    };
    payload.pieces[Number(piece)] = String(sealed);
    found.set(name, payload);
    counts.set(name, Number(pieces));
  }
  return [...found].filter(([name, { pieces }]) => Object.keys(pieces).length === counts.get(name))
    .map(([, payload]) => payload);
}
