// Sink: the port to a receiver of copies, and the one failure that it knows.
import { Fault } from "../../faults/fault.ts";

/** Somewhere that items of one kind are sent to: entries of the trail, or its signed checkpoints. */
export interface Sink<Item> {
  /**
   * Sends items in their order. Some of them, or all, may come to the receiver twice.
   *
   * @throws SinkFault when they were not taken, or nobody knows whether they were
   */
  send(items: readonly Item[]): Promise<void>;
  /** Whether `send` resolves only when the receiver has said that it has the items. */
  readonly acknowledges: boolean;
  /**
   * Of a sink that does not acknowledge: why what was sent before may be lost. Told once: the next `send` begins anew. Before it was
   * told, `send` throws it and sends nothing.
   */
  lost?(): string | undefined;
  /** Ends it in order. Resolves with whether all that was sent has come to the receiver, where that can be known. */
  close(): Promise<boolean>;
}

/** What may be told of a failure besides its reason. */
export interface SinkFaultDetails {
  /** The receiver is well and says no to these very items: fewer of them may pass. */
  readonly isRefusal?: boolean;
  /** Not before so many milliseconds, says the receiver. */
  readonly retryAfterMs?: number;
}

/** A sink's failure. Its reason holds nothing of what was sent or answered. */
export class SinkFault extends Fault {
  readonly isRefusal: boolean;
  readonly retryAfterMs: number;

  /** @param state completes "Cannot ship: …" */
  constructor(state: string, { isRefusal = false, retryAfterMs = 0 }: SinkFaultDetails = {}) {
    super("unavailable", state);
    this.isRefusal = isRefusal;
    this.retryAfterMs = retryAfterMs;
  }
}
