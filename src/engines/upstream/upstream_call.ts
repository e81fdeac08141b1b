// Upstream call: one request to an upstream and its answer, within time-outs and sizes, that ends when its caller leaves.
import { abortedBy, type RunBounds } from "../engine.ts";
import { Fault, toFault } from "../../faults/fault.ts";
import type { Clock } from "../../time/clock.ts";
import { ERROR_BODY_BYTES_MAX, errorBodyMatters, faultOfErrorAnswer } from "./error_answer.ts";
import { UpstreamFault } from "./upstream_fault.ts";
import type { UpstreamSettings } from "./upstream_settings.ts";
import type { WireRequest } from "./wire.ts";

/** Whom calls go to. */
export interface CallTarget {
  readonly settings: UpstreamSettings;
  /** The base address in normal form, without a slash at its end. */
  readonly base: string;
  readonly client: Deno.HttpClient;
  /** Headers of every call, the credential among them. */
  readonly headers: Readonly<Record<string, string>>;
  readonly clock: Clock;
  /** Whether the server takes connections. */
  reachable(): Promise<boolean>;
  /** Is given what still goes on after a call that ended well. */
  lingers(work: Promise<void>): void;
}

/** The head of an answer with a good status and an accepted media type. */
export interface AnswerHead {
  /** In lower case, without parameters. */
  readonly mediaType: string;
  readonly headers: Headers;
}

/** How a call ended: its Fault, or well, or given up by its reader without one. */
export type CallEnd = Fault | "done" | "cancelled";

/** What else bounds a call; the target's settings say the rest. */
export interface CallBounds extends Pick<RunBounds, "signal" | "deadlineMs"> {
  /** Largest answer, bytes, where the settings would let a larger one pass. */
  readonly answerBytesMax?: number;
}

/** Bodies of so many bytes are read as one. */
const SMALL_BYTES_MAX = 64 * 1024;
const BUFFER_BYTES_FIRST = 4096;
const BUFFER_BYTES_MAX = 64 * 1024;
/** After an answer's end mark, the end of its body is awaited for so long: only then can the connection be used again. */
const READ_OUT_MS = 100;
/** So much of what may still come then, and nobody wants, is read. */
const READ_OUT_BYTES_MAX = 1024;

/**
 * One call. `open` once, then `read` to the end, then `finish`; `fail` and `cancel` end it early, as do time-outs and the caller.
 * However it ends, `onEnd` hears of it exactly once, and the connection is then free or closed.
 */
export class UpstreamCall {
  readonly #target: CallTarget;
  readonly #bounds: CallBounds;
  readonly #onEnd: (end: CallEnd) => void;
  readonly #controller = new AbortController();
  readonly #startedMs: number;
  readonly #bytesMax: number;
  #end: CallEnd | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #probed = false;
  #headCame = false;
  #firstByteCame = false;
  /** When the read under way began; silence counts only while somebody listens. */
  #readingSinceMs: number | undefined;
  #response: Response | undefined;
  #reader: ReadableStreamBYOBReader | undefined;
  /** Read into again and again: the runtime's own buffers are of 64 KiB for each piece. */
  #buffer = new ArrayBuffer(BUFFER_BYTES_FIRST);
  #bodyEnded = false;
  #bytes = 0;

  constructor(target: CallTarget, bounds: CallBounds, onEnd: (end: CallEnd) => void) {
    this.#target = target;
    this.#bounds = bounds;
    this.#onEnd = onEnd;
    this.#startedMs = target.clock.monotonic();
    this.#bytesMax = Math.min(target.settings.answerBytesMax, bounds.answerBytesMax ?? Infinity);
  }

  /**
   * Sends the request and waits for a good answer's head.
   *
   * @throws Fault what the upstream or the way there failed with; `client_left`, `stopping`, `deadline_exceeded`
   */
  async open(request: WireRequest): Promise<AnswerHead> {
    try {
      const response = await this.#send(request);
      if (response.status < 200 || response.status > 299) throw await this.#readError(response);
      const mediaType = mediaTypeOf(response.headers);
      this.#checkHead(response.headers, mediaType, request.accept);
      return { mediaType, headers: response.headers };
    } catch (thrown) {
      throw this.fail(toFault(thrown));
    }
  }

  /**
   * Sends a request whose answer matters by its status alone, and ends the call.
   *
   * @throws Fault as `open`, but for no status
   */
  async status(request: WireRequest): Promise<number> {
    try {
      const { status } = await this.#send(request);
      this.finish();
      return status;
    } catch (thrown) {
      throw this.fail(toFault(thrown));
    }
  }

  /**
   * The next piece of the body, or undefined after its end. The piece is good until the next call.
   *
   * @throws Fault as `open`; `client_left` after `cancel()`
   */
  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    this.#requireWanted();
    const reader = this.#reader ??= this.#response?.body?.getReader({ mode: "byob" });
    if (this.#end === "done" || reader === undefined) return undefined;
    this.#readingSinceMs = this.#target.clock.monotonic();
    let piece: { readonly done: boolean; readonly value?: Uint8Array<ArrayBuffer> | undefined };
    try {
      piece = await reader.read(new Uint8Array(this.#buffer));
    } catch {
      throw this.fail(this.#brokenOff());
    }
    this.#readingSinceMs = undefined;
    // Where the call ended while this read waited, that is what made the read come back.
    this.#requireWanted();
    if (piece.done || piece.value === undefined) {
      this.#bodyEnded = true;
      return undefined;
    }
    const { buffer } = piece.value;
    // A piece that fills the buffer is one of a large answer.
    this.#buffer = piece.value.length === buffer.byteLength && buffer.byteLength < BUFFER_BYTES_MAX
      ? new ArrayBuffer(2 * buffer.byteLength)
      : buffer;
    this.#firstByteCame = true;
    this.#bytes += piece.value.length;
    if (this.#bytes > this.#bytesMax) {
      throw this.fail(this.#fault("upstream_answer_invalid", "its answer is too large"));
    }
    return piece.value;
  }

  /**
   * All that `read` would give.
   *
   * @throws Fault as `read`
   */
  async readWhole(): Promise<Uint8Array<ArrayBuffer>> {
    const headers = this.#response?.headers;
    const announced = headers?.get("content-length") ?? null;
    // Beside `Transfer-Encoding` a length is void (RFC 9112 §6.3), and the body may have any.
    const isSmall = announced !== null && Number(announced) <= SMALL_BYTES_MAX;
    if (isSmall && headers?.has("transfer-encoding") === false) return await this.#readSmall();
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for (let piece = await this.read(); piece !== undefined; piece = await this.read()) {
      pieces.push(piece.slice());
    }
    return joined(pieces);
  }

  /**
   * Reads a body whose small length the head told, and which thus was ready before: all of it may take no longer than silence
   * may last. Read as one it costs less than half of what it costs in pieces.
   */
  async #readSmall(): Promise<Uint8Array<ArrayBuffer>> {
    this.#requireWanted();
    this.#firstByteCame = true;
    this.#readingSinceMs = this.#target.clock.monotonic();
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = await this.#response?.bytes() ?? new Uint8Array();
    } catch {
      throw this.fail(this.#brokenOff());
    }
    this.#requireWanted();
    this.#readingSinceMs = undefined;
    this.#bodyEnded = true;
    return bytes;
  }

  /** The answer was whole and good. */
  finish(): void {
    this.#endAs("done");
  }

  /** Nobody wants the rest. */
  cancel(): void {
    this.#endAs("cancelled");
  }

  /** Ends the call with a fault; returns the one that counts: the first. */
  fail(fault: Fault): Fault {
    this.#endAs(fault);
    return this.#end instanceof Fault ? this.#end : givenUp();
  }

  async #send(request: WireRequest): Promise<Response> {
    const { settings, clock, client } = this.#target;
    const { signal, deadlineMs } = this.#bounds;
    if (signal.aborted) throw abortedBy(signal);
    if (clock.monotonic() >= deadlineMs) throw this.#lateFault();
    const url = this.#urlOf(request.path);
    signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#timer = setTimeout(this.#watch, Math.max(1, this.#sleepMs(clock.monotonic())));
    let response: Response;
    try {
      response = await fetch(url, {
        method: request.method,
        headers: { ...request.headers, accept: request.accept.join(", "), ...this.#target.headers },
        ...(request.body === undefined ? {} : { body: this.#bodyOf(request.body) }),
        // A redirect would lead the secret and the prompt to wherever the upstream likes.
        redirect: "manual",
        signal: this.#controller.signal,
        client,
      });
    } catch (thrown) {
      throw this.#end instanceof Fault ? this.#end : faultOfFetch(settings.name, thrown);
    }
    if (this.#end !== undefined) {
      response.body?.cancel().catch(ignore);
      throw this.#end;
    }
    this.#headCame = true;
    this.#response = response;
    return response;
  }

  /** A body in pieces that fails ends the call with its own Fault, which `fetch` would not pass on. */
  #bodyOf(body: NonNullable<WireRequest["body"]>): BodyInit {
    if (!(body instanceof ReadableStream)) return body;
    const reader = body.getReader();
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        try {
          const { done, value } = await reader.read();
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (thrown) {
          this.#endAs(toFault(thrown));
          controller.error(thrown);
        }
      },
      cancel: (reason) => reader.cancel(reason),
    }, { highWaterMark: 0 });
  }

  #requireWanted(): void {
    if (this.#end instanceof Fault) throw this.#end;
    if (this.#end === "cancelled") throw givenUp();
  }

  #urlOf(path: string): string {
    const url = this.#target.base + path;
    // Wires encode names; should one ever fail to, a name must not lead elsewhere (`..`, `?`, `#`, `@`, `\`).
    const parsed = URL.parse(url);
    if (!path.startsWith("/") || parsed?.href !== url || parsed.search !== "" || parsed.hash !== "") {
      throw new Fault(
        "internal",
        `Cannot call ${this.#target.settings.name}: its path is not in normal form`,
      );
    }
    return url;
  }

  async #readError(response: Response): Promise<Fault> {
    const { name } = this.#target.settings;
    const { status, headers } = response;
    if (status >= 300 && status <= 399) {
      return new UpstreamFault(
        "upstream_failed",
        `Cannot run on ${name}: it answered with a redirect`,
        "refusal",
      );
    }
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    if (errorBodyMatters(status)) {
      for (let bytes = 0; bytes < ERROR_BODY_BYTES_MAX;) {
        const piece = await this.read();
        if (piece === undefined) break;
        bytes += piece.length;
        pieces.push(piece.slice());
      }
    }
    const body = joined(pieces).subarray(0, ERROR_BODY_BYTES_MAX);
    return faultOfErrorAnswer(name, { status, headers, body }, this.#target.clock);
  }

  #checkHead(headers: Headers, mediaType: string, accept: readonly string[]): void {
    if (!accept.some((accepted) => matches(mediaType, accepted))) {
      throw this.#fault("upstream_answer_invalid", "its answer has another media type than was asked for");
    }
    const encoding = headers.get("content-encoding");
    if (encoding !== null && encoding.toLowerCase() !== "identity") {
      throw this.#fault("upstream_answer_invalid", "its answer is compressed, which was not asked for");
    }
    if (Number(headers.get("content-length") ?? 0) > this.#bytesMax) {
      throw this.#fault("upstream_answer_invalid", "its answer is too large");
    }
  }

  readonly #onAbort = (): void => {
    this.#endAs(abortedBy(this.#bounds.signal));
  };

  /**
   * The one timer of a call. It is not set anew for each piece: it wakes now and then, looks whether something is overdue, and
   * sleeps again, never for longer than silence may last.
   */
  readonly #watch = (): void => {
    const { settings, clock } = this.#target;
    const now = clock.monotonic();
    const passedMs = now - this.#startedMs;
    if (now >= this.#wholeUntilMs()) return this.#endAs(this.#lateFault());
    if (!this.#firstByteCame) {
      if (passedMs >= settings.firstByteTimeoutMs) {
        return this.#endAs(this.#fault("upstream_timeout", "no answer began in time", "before_answer"));
      }
      if (!this.#headCame && !this.#probed && passedMs >= settings.connectTimeoutMs) this.#probe();
    } else if (this.#readingSinceMs !== undefined) {
      if (now - this.#readingSinceMs >= settings.betweenBytesTimeoutMs) {
        return this.#endAs(this.#fault("upstream_timeout", "its answer fell silent"));
      }
    }
    this.#timer = setTimeout(this.#watch, Math.max(1, this.#sleepMs(now)));
  };

  #sleepMs(now: number): number {
    const { settings } = this.#target;
    let until = Math.min(this.#wholeUntilMs(), now + settings.betweenBytesTimeoutMs);
    if (!this.#firstByteCame) {
      until = Math.min(until, this.#startedMs + settings.firstByteTimeoutMs);
      if (!this.#headCame && !this.#probed) {
        until = Math.min(until, this.#startedMs + settings.connectTimeoutMs);
      }
    } else if (this.#readingSinceMs !== undefined) {
      until = Math.min(until, this.#readingSinceMs + settings.betweenBytesTimeoutMs);
    }
    return Math.ceil(until - now);
  }

  #wholeUntilMs(): number {
    return Math.min(this.#bounds.deadlineMs, this.#startedMs + this.#target.settings.wholeTimeoutMs);
  }

  #lateFault(): Fault {
    if (this.#bounds.deadlineMs <= this.#startedMs + this.#target.settings.wholeTimeoutMs) {
      return this.#fault("deadline_exceeded", "the request's time is over");
    }
    return this.#fault("upstream_timeout", "the whole answer took too long");
  }

  #brokenOff(): UpstreamFault {
    return this.#fault("upstream_unreachable", "the connection broke off within the answer", "on_the_way");
  }

  /** The head is late: is the model thinking, or is nobody there? */
  #probe(): void {
    this.#probed = true;
    this.#target.reachable().then((reachable) => {
      if (reachable || this.#headCame) return;
      this.#endAs(this.#fault("upstream_timeout", "no connection came to stand in time", "on_the_way"));
    });
  }

  #fault(
    kind: "upstream_unreachable" | "upstream_answer_invalid" | "upstream_timeout" | "deadline_exceeded",
    state: string,
    origin?: "on_the_way" | "before_answer",
  ): UpstreamFault {
    return new UpstreamFault(kind, `Cannot run on ${this.#target.settings.name}: ${state}`, origin);
  }

  #endAs(end: CallEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    clearTimeout(this.#timer);
    this.#bounds.signal.removeEventListener("abort", this.#onAbort);
    if (end === "done") {
      const reader = this.#bodyEnded
        ? undefined
        : this.#reader ?? this.#response?.body?.getReader({ mode: "byob" });
      if (reader !== undefined) this.#target.lingers(readOut(reader));
    } else if (!this.#bodyEnded) {
      // The abort's reason is what `fetch` rejects with. Once there is a reader, only its cancelling is sure to close the connection.
      this.#controller.abort(end);
      this.#reader?.cancel().catch(ignore);
    }
    this.#onEnd(end);
  }
}

/** Reads what is left of an answer that is complete, which should be no more than the end of its body; cancels what is more. */
async function readOut(reader: ReadableStreamBYOBReader): Promise<void> {
  const cancel = (): Promise<void> => reader.cancel().catch(ignore);
  const timer = setTimeout(cancel, READ_OUT_MS);
  try {
    // Engines write their end mark apart from what came before it.
    for (let bytes = 0; bytes <= READ_OUT_BYTES_MAX;) {
      const { done, value } = await reader.read(new Uint8Array(READ_OUT_BYTES_MAX));
      if (done || value === undefined) return;
      bytes += value.length;
    }
    await cancel();
  } catch {
    // The answer is complete; how its connection ends is nobody's loss.
  } finally {
    clearTimeout(timer);
  }
}

/** Why `fetch` failed, by words of the runtime. Its message is not passed on: it names addresses. */
function faultOfFetch(upstream: string, thrown: unknown): Fault {
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  const words = [thrown, cause].map((error) => error instanceof Error ? `${error.name} ${error.message}` : "")
    .join(" ");
  if (words.includes(" parsed")) {
    return new UpstreamFault("upstream_answer_invalid", `Cannot run on ${upstream}: its answer is no HTTP`);
  }
  const state = FETCH_FAILURES.find(([sign]) => words.includes(sign))?.[1] ?? "it could not be reached";
  return new UpstreamFault("upstream_unreachable", `Cannot run on ${upstream}: ${state}`, "on_the_way");
}

const FETCH_FAILURES: readonly (readonly [sign: string, state: string])[] = [
  ["Connection refused", "it refuses connections"],
  ["dns error", "its name is not known"],
  ["certificate", "its certificate is not trusted"],
  ["tls", "no TLS came to stand"],
  ["NotCapable", "this process may not connect to it"],
  ["are blocked", "its port is one that must not be called"],
  ["connection closed", "it closed the connection before it answered"],
  ["Connection reset", "it reset the connection before it answered"],
];

function mediaTypeOf(headers: Headers): string {
  const [mediaType = ""] = (headers.get("content-type") ?? "").split(";", 1);
  return mediaType.trim().toLowerCase();
}

function matches(mediaType: string, accepted: string): boolean {
  return accepted.endsWith("/*") ? mediaType.startsWith(accepted.slice(0, -1)) : mediaType === accepted;
}

function joined(pieces: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const [only] = pieces;
  if (only !== undefined && pieces.length === 1) return only;
  const whole = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

function givenUp(): Fault {
  return new Fault("client_left", "Cannot go on: the answer was given up");
}

function ignore(): void {}
