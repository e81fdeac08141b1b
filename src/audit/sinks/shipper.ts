// Shipper: brings what a feed has to one sink, in order and at least once, however long the sink is away.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { toFault } from "../../faults/fault.ts";
import type { Clock } from "../../time/clock.ts";
import type { Feed } from "./feed.ts";
import { type Sink, SinkFault } from "./sink.ts";
import type { SinkCursor } from "./sink_cursor.ts";

/** What is told about a sink, each time that it changes. Nothing of what is shipped is in it. */
export interface ShipperWatch {
  /** It takes what it is sent, or why it does not. */
  stateChanged(state: "up" | "down", reason: string | null): void;
  /** It begins anew where its cursor was of no use. */
  rewound(reason: string): void;
  /** Entries that it will never get: they were taken out of the trail before it took them. */
  gone(entries: number): void;
}

/** What a shipper works with. */
export interface ShipperOptions<Position extends JsonValue, Item> {
  readonly feed: Feed<Position, Item>;
  readonly sink: Sink<Item>;
  readonly cursor: SinkCursor;
  readonly from: "start" | "now";
  readonly clock: Clock;
  readonly watch: ShipperWatch;
}

const ITEMS_MAX = 500;
/** How long nothing new is looked for after nothing new was found. */
const IDLE_MS = 200;
/** The cursor is written no oftener: what it lags behind is only sent again. */
const CURSOR_MS = 1000;
/** What a sink that does not acknowledge was sent so long ago, over a connection that still stands, counts as taken. */
const SETTLED_MS = 5000;
const WAIT_MS_FIRST = 250;
const WAIT_MS_MAX = 30_000;
/** Whatever a receiver says, it is asked again after so long. */
const RETRY_AFTER_MS_MAX = 300_000;

/** One sink's own loop. Only positions are remembered, never items: memory is bounded by one piece of the feed. */
export class Shipper<Position extends JsonValue, Item> {
  readonly #options: ShipperOptions<Position, Item>;
  /** Behind what was sent; undefined until the cursor was read. */
  #sent: Position | undefined;
  /** Behind what is known to have come. */
  #taken: Position | undefined;
  /** Sent and not yet counted as taken, oldest first. */
  #unsettled: { readonly position: Position; readonly gone: number; readonly sentMs: number }[] = [];
  #written: Position | undefined;
  #writtenMs = 0;
  #itemsMax = ITEMS_MAX;
  #state: "up" | "down" | undefined;
  #reason: string | null = null;
  #waitMs = WAIT_MS_FIRST;
  #wake: () => void = () => {};
  /** When closing: until when what is left is still shipped. */
  #closeByMs: number | undefined;
  #running: Promise<void> | undefined;

  constructor(options: ShipperOptions<Position, Item>) {
    this.#options = options;
  }

  /** Begins; returns at once. */
  start(): void {
    this.#running ??= this.#run();
  }

  /**
   * Ships what is left where that works at once, closes the sink, writes the cursor. Never rejects.
   *
   * @param graceMs how long what is left may take
   */
  async close(graceMs: number): Promise<void> {
    this.#closeByMs = this.#options.clock.monotonic() + graceMs;
    this.#wake();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), graceMs);
    });
    const ended = await Promise.race([this.#running, late]);
    clearTimeout(timer);
    if (ended !== "late") {
      const hasCome = await this.#options.sink.close().catch(() => false);
      if (hasCome) this.#settleUntil(Infinity);
    }
    try {
      this.#writeCursor();
    } catch {
      // What it lags behind is sent again.
    }
  }

  async #run(): Promise<void> {
    const { clock } = this.#options;
    for (;;) {
      let pauseMs = 0;
      try {
        const isMore = await this.#step();
        this.#waitMs = WAIT_MS_FIRST;
        if (!isMore) {
          if (this.#closeByMs !== undefined) return;
          pauseMs = IDLE_MS;
        }
      } catch (thrown) {
        pauseMs = this.#failed(thrown);
        if (this.#closeByMs !== undefined) return;
      }
      if (this.#closeByMs !== undefined && clock.monotonic() >= this.#closeByMs) return;
      if (pauseMs > 0) await this.#pause(pauseMs);
    }
  }

  /** Sends one piece; whether there may be more. */
  async #step(): Promise<boolean> {
    const { feed, sink, clock } = this.#options;
    const from = this.#sent ??= this.#begin();
    const { items, next, gone } = await feed.read(from, this.#itemsMax);
    if (items.length > 0) {
      await sink.send(items);
      this.#itemsMax = Math.min(2 * this.#itemsMax, ITEMS_MAX);
    } else {
      // Reading alone gives nobody a turn: no other sink, and not the news that a connection has ended.
      await turn();
    }
    const isMore = !sameJson(from, next);
    if (isMore) this.#unsettled.push({ position: next, gone, sentMs: clock.monotonic() });
    this.#sent = next;
    this.#settle();
    // Where nothing is left to send after a failure, that was about something else than sending.
    if (items.length > 0 || (!isMore && this.#state === "down")) this.#setState("up", null);
    return isMore;
  }

  #begin(): Position {
    const { feed, cursor, from, watch } = this.#options;
    const kept = cursor.read();
    let position: Position | undefined;
    if (kept === undefined) {
      position = feed.start(from);
    } else {
      position = kept === "unreadable" ? undefined : feed.resume(kept);
      if (position === undefined) {
        position = feed.start("start");
        watch.rewound(
          kept === "unreadable"
            ? "its cursor is unreadable"
            : "its cursor does not belong to what is here now",
        );
      }
    }
    this.#taken = position;
    // At once: "now" must not be a later moment after a crash.
    this.#writeCursor();
    return position;
  }

  /**
   * Takes note of what has come by now.
   *
   * @throws SinkFault when what was sent before may be lost
   */
  #settle(): void {
    const { sink, clock } = this.#options;
    const lost = sink.lost?.();
    // A connection that ended when all had settled has taken nothing with it.
    if (lost !== undefined && this.#unsettled.length > 0) throw new SinkFault(lost);
    const now = clock.monotonic();
    this.#settleUntil(sink.acknowledges ? now : now - SETTLED_MS);
    if (now - this.#writtenMs >= CURSOR_MS) this.#writeCursor();
  }

  /** What was sent by then has come. What is gone is told now: before, it may be read again. */
  #settleUntil(ms: number): void {
    for (
      let first = this.#unsettled[0];
      first !== undefined && first.sentMs <= ms;
      first = this.#unsettled[0]
    ) {
      this.#unsettled.shift();
      this.#taken = first.position;
      if (first.gone > 0) this.#options.watch.gone(first.gone);
    }
  }

  #writeCursor(): void {
    if (this.#taken === undefined || this.#taken === this.#written) return;
    this.#options.cursor.write(this.#taken);
    this.#written = this.#taken;
    this.#writtenMs = this.#options.clock.monotonic();
  }

  /** Everything not known to have come is sent again; how long to wait before. */
  #failed(thrown: unknown): number {
    const fault = toFault(thrown);
    this.#sent = this.#taken;
    this.#unsettled = [];
    const isRefusal = fault instanceof SinkFault && fault.isRefusal;
    this.#setState("down", fault.message);
    if (isRefusal && this.#itemsMax > 1) {
      // Fewer may pass; if not, it is one entry that the sink stands before.
      this.#itemsMax = Math.ceil(this.#itemsMax / 4);
      return WAIT_MS_FIRST;
    }
    const retryAfterMs = fault instanceof SinkFault ? fault.retryAfterMs : 0;
    const waitMs = Math.max(
      this.#waitMs * (0.5 + randomFraction() / 2),
      Math.min(retryAfterMs, RETRY_AFTER_MS_MAX),
    );
    this.#waitMs = Math.min(2 * this.#waitMs, WAIT_MS_MAX);
    return waitMs;
  }

  #setState(state: "up" | "down", reason: string | null): void {
    // Another reason is told too: a full disk after a lost connection is news.
    if (state === this.#state && reason === this.#reason) return;
    this.#state = state;
    this.#reason = reason;
    this.#options.watch.stateChanged(state, reason);
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = () => {};
  }
}

/** Resolves when everything else that waits for the thread has had its turn. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

function sameJson(left: JsonValue, right: JsonValue): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}

/** From 0 to below 1; so that instances do not come back all at once. */
function randomFraction(): number {
  return (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) / 2 ** 32;
}
