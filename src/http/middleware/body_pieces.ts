// Body pieces: a request's body as it comes, within bounds.
import { Fault } from "../../faults/fault.ts";

/** Bounds of a body. */
export interface BodyBounds {
  readonly bodyBytesMax: number;
  readonly bodyTimeoutMs: number;
  /** Hears how large the body was, once it has been read as a whole. */
  readonly onRead?: (bytes: number) => void;
}

/** Each piece costs a turn of the event loop, however small it is: a body of single bytes would hold a core for many seconds. */
const PIECES_FREE = 1000;
const PIECE_BYTES_MEAN_MIN = 256;

/** One body, read once. */
export class BodyPieces {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #signal: AbortSignal;
  readonly #bounds: BodyBounds;
  #pieces = 0;
  #bytes = 0;
  #endedBy: Fault | undefined;

  constructor(request: Request, bounds: BodyBounds) {
    this.#reader = request.body?.getReader();
    this.#signal = request.signal;
    this.#bounds = bounds;
  }

  /**
   * The next piece; undefined after the last. Not to be called again before it has settled.
   *
   * @throws Fault `body_too_large` · `body_timeout` when a single piece does not come in time · `request_invalid` ·
   * `client_left` · what `end` was called with
   */
  async next(): Promise<Uint8Array | undefined> {
    if (this.#endedBy !== undefined) throw this.#endedBy;
    if (this.#reader === undefined) return undefined;
    const timer = setTimeout(() => this.end(tooSlow()), this.#bounds.bodyTimeoutMs);
    try {
      const { value: piece, done } = await this.#reader.read();
      // Whoever ended it made the read under way end as well.
      if (this.#endedBy !== undefined) throw this.#endedBy;
      if (done) return undefined;
      this.#count(piece);
      return piece;
    } catch (thrown) {
      const fault = this.#endedBy ?? (thrown instanceof Fault ? thrown : brokenOff(this.#signal));
      this.end(fault);
      throw fault;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Gives up on the rest: the read under way and all later ones throw the fault. Harmless after the end. */
  end(fault: Fault): void {
    this.#endedBy ??= fault;
    // Not awaited: a peer that stopped sending would hold the answer back.
    this.#reader?.cancel().catch(() => undefined);
  }

  #count(piece: Uint8Array): void {
    const { bodyBytesMax } = this.#bounds;
    this.#bytes += piece.length;
    if (this.#bytes > bodyBytesMax) throw tooLarge(bodyBytesMax);
    if (++this.#pieces > PIECES_FREE + this.#bytes / PIECE_BYTES_MEAN_MIN) {
      throw new Fault("request_invalid", "Cannot read a body: it comes in too many small pieces", {
        detail: "The body comes in too many small pieces.",
      });
    }
  }
}

/** A client that left while it sent, or framing that the runtime refuses (RFC 9112 §7.1). */
export function brokenOff(signal: AbortSignal): Fault {
  return signal.aborted
    ? new Fault("client_left", "Cannot read a body: the client left")
    : new Fault("request_invalid", "Cannot read a body: it broke off or its framing is wrong", {
      detail: "The body could not be read.",
    });
}

/** What a body is refused with that is announced or comes larger than allowed. */
export function tooLarge(bodyBytesMax: number): Fault {
  return new Fault("body_too_large", "Cannot read a body: it is too large", {
    detail: `The body is larger than ${bodyBytesMax} bytes.`,
  });
}

/** What a body is given up with that does not come in time. */
export function tooSlow(): Fault {
  return new Fault("body_timeout", "Cannot read a body: it did not arrive in time");
}
