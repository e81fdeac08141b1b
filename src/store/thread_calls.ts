// Thread calls: an object in a worker, called by the names of its methods; a worker that hangs or dies is told of in bounded time.
import { Fault, type FaultDetails, type FaultKind, toFault } from "../faults/fault.ts";
import { type Clock, systemClock } from "../time/clock.ts";

/** What is called. */
export interface CalledMethod {
  readonly target: string;
  readonly method: string;
  readonly parameters: readonly unknown[];
}

/** One call on its way to the worker. Answers come in the order of the calls. */
export interface ThreadCall extends CalledMethod {
  /** One more than that of the call before. */
  readonly number: number;
  /** The caller's wall time, milliseconds since 1970: the worker has no other. */
  readonly nowMs: number;
}

/** What came of it. */
export type ThreadReply =
  & { readonly number: number }
  & (
    | { readonly ok: true; readonly value: unknown }
    | { readonly ok: false; readonly kind: FaultKind; readonly reason: string }
  );

/** The worker's first message: how far both sides are, in memory that they share, so that a worker that hangs need not be asked. */
export interface ThreadMarks {
  /** `BEGUN`, `ANSWERED` and `GIVEN_UP`, each the number of the last such call. */
  readonly marks: BigInt64Array<SharedArrayBuffer>;
}

/** The worker writes these. */
const BEGUN = 0, ANSWERED = 1;
/** The caller writes this: what the worker has not begun by then, it never begins. */
const GIVEN_UP = 2;

/** The side that calls. */
export interface ThreadCaller {
  /**
   * Calls a method of an object in the worker. Parameters and value are copied.
   *
   * @throws Fault as the method throws · Fault `unavailable` when the worker does not answer in time, or dies. One such call for a
   * hang may be done all the same, now or later, as with any store that is reached over a wire; of the others, which had not
   * begun, nothing is ever done, and their faults say so (`notSent`) · at once while an older call is overdue or too many wait, so
   * that nothing piles up · Fault `internal` when the parameters cannot be copied
   */
  call(target: string, method: string, parameters: readonly unknown[]): Promise<unknown>;
  /** Waits for what was called, within the time of a call, and ends the worker. */
  close(): Promise<void>;
}

/** A worker that starts loads its code first, and opens its files. */
const FIRST_TIMEOUT_MS = 60_000;
/** More than a server has under way at once; without a bound a worker that is too slow would fill the memory. */
const WAITING_MAX = 10_000;

interface Pending extends CalledMethod {
  readonly resolve: (value: unknown) => void;
  readonly reject: (fault: Fault) => void;
  /** By the monotonic clock. */
  deadlineMs: number;
  /** It stays until its answer comes: so long the worker is not to be asked for more. */
  isGivenUp: boolean;
}

/**
 * Opens the side that calls. The worker starts with the first call, and after it died another one with the next.
 *
 * @param options.name what is called, for messages
 * @param options.timeoutMs of a call, from when it was made; the first of a worker has a minute
 * @param options.onUnanswered told of each call that the worker began and that has no answer, just before its caller is
 */
export function openThreadCaller(options: {
  readonly name: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly start: () => Worker;
  readonly onUnanswered?: (called: CalledMethod) => void;
  readonly waitingMax?: number;
}): ThreadCaller {
  const { name, timeoutMs, clock, start, onUnanswered, waitingMax = WAITING_MAX } = options;
  let worker: Worker | undefined;
  /** Of this worker. */
  let marks = newMarks();
  /** Unanswered calls by their numbers, which have no gaps, the oldest first; their deadlines come in the same order. */
  const pending = new Map<number, Pending>();
  let lastNumber = 0;
  /** The last call that was given up; those after it are not. */
  let givenUp = 0;
  /** Whether this worker has answered once. */
  let isStarted = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isClosed = false;
  let onIdle: (() => void) | undefined;

  const fault = (state: string, details?: FaultDetails): Fault =>
    new Fault("unavailable", `Cannot ask ${name}: ${state}`, details);

  function spawn(): Worker {
    const spawned = start();
    marks = newMarks();
    spawned.onmessage = ({ data }: MessageEvent<ThreadReply>) => {
      if (spawned === worker) answered(data);
    };
    spawned.onerror = (event) => {
      event.preventDefault(); // else it ends the server
      if (spawned === worker) died(event.message);
    };
    spawned.postMessage({ marks } satisfies ThreadMarks);
    return spawned;
  }

  function oldest(): Pending | undefined {
    return pending.values().next().value;
  }
  function isOverdue(): boolean {
    return oldest()?.isGivenUp === true;
  }

  function answered(reply: ThreadReply): void {
    const asked = pending.get(reply.number);
    // Whose answer it is nobody knows, nor then of those that follow.
    if (asked === undefined || asked !== oldest()) return died("it answered what it was not asked");
    pending.delete(reply.number);
    if (!isStarted) {
      isStarted = true;
      const deadlineMs = systemClock.monotonic() + timeoutMs;
      for (const each of pending.values()) each.deadlineMs = Math.min(each.deadlineMs, deadlineMs);
    }
    watch();
    if (!asked.isGivenUp) {
      if (reply.ok) asked.resolve(reply.value);
      else asked.reject(new Fault(reply.kind, reply.reason));
    }
    if (pending.size === 0) onIdle?.();
  }

  function died(reason: string): void {
    end(`its thread died: ${reason}`);
    onIdle?.();
  }

  function end(state: string): void {
    worker?.terminate();
    worker = undefined;
    isStarted = false;
    const left = [...pending];
    pending.clear();
    givenUp = lastNumber;
    watch();
    giveUp(left, state);
  }

  /** Whoever asks again from within finds everything in order. */
  function giveUp(calls: readonly (readonly [number, Pending])[], state: string): void {
    const begun = readMark(marks, BEGUN);
    for (const [number, each] of calls) {
      if (each.isGivenUp) continue;
      each.isGivenUp = true;
      if (number <= begun) onUnanswered?.(each);
      each.reject(fault(state, number <= begun ? {} : { notSent: true }));
    }
  }

  /** One timer, for the oldest call that somebody waits for. */
  function watch(): void {
    clearTimeout(timer);
    const next = isOverdue() ? pending.get(givenUp + 1) : oldest();
    if (next === undefined) return;
    timer = setTimeout(expire, Math.max(0, Math.ceil(next.deadlineMs - systemClock.monotonic())));
  }

  function expire(): void {
    const nowMs = systemClock.monotonic();
    // Where this thread was held up, answers are on their way; with each the next call is watched.
    const answered = readMark(marks, ANSWERED);
    const due: [number, Pending][] = [];
    for (let number = Math.max(answered, givenUp) + 1;; number++) {
      const call = pending.get(number);
      if (call === undefined || call.deadlineMs > nowMs) break;
      due.push([number, call]);
    }
    const isOnItsWay = pending.has(answered);
    const last = due.at(-1)?.[0];
    // First this, then to look at what is begun. The worker says what it begins, and then looks at this: of a call that both come
    // to at once, at least one of them knows.
    if (last !== undefined) Atomics.store(marks, GIVEN_UP, BigInt(givenUp = last));
    giveUp(due, `no answer within ${isStarted ? timeoutMs : Math.max(timeoutMs, FIRST_TIMEOUT_MS)} ms`);
    if (!isOnItsWay) watch();
  }

  return {
    call(target, method, parameters) {
      const refused = isClosed
        ? "it is closed"
        : isOverdue()
        ? "it does not answer"
        : pending.size >= waitingMax
        ? `${waitingMax} calls wait for it`
        : undefined;
      if (refused !== undefined) return Promise.reject(fault(refused, { notSent: true }));
      try {
        worker ??= spawn();
      } catch (thrown) {
        const reason = `its thread does not start: ${toFault(thrown).message}`;
        return Promise.reject(fault(reason, { notSent: true, cause: thrown }));
      }
      const number = lastNumber + 1;
      try {
        worker.postMessage({ number, target, method, parameters, nowMs: clock.now() } satisfies ThreadCall);
      } catch (thrown) {
        return Promise.reject(toFault(thrown));
      }
      lastNumber = number;
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      const patienceMs = isStarted ? timeoutMs : Math.max(timeoutMs, FIRST_TIMEOUT_MS);
      const deadlineMs = systemClock.monotonic() + patienceMs;
      pending.set(number, { target, method, parameters, resolve, reject, deadlineMs, isGivenUp: false });
      if (pending.size === 1) watch();
      return promise;
    },
    async close() {
      isClosed = true;
      if (pending.size > 0 && !isOverdue()) {
        const { promise, resolve } = Promise.withResolvers<void>();
        onIdle = resolve;
        const waiting = setTimeout(resolve, timeoutMs);
        await promise;
        clearTimeout(waiting);
        onIdle = undefined;
      }
      end("it is closed");
    },
  };
}

function newMarks(): BigInt64Array<SharedArrayBuffer> {
  return new BigInt64Array(new SharedArrayBuffer(3 * BigInt64Array.BYTES_PER_ELEMENT));
}

function readMark(marks: BigInt64Array<SharedArrayBuffer>, mark: number): number {
  return Number(Atomics.load(marks, mark));
}

/** What stands in the worker: objects by name, and their methods. */
export type ThreadTargets = Readonly<
  Record<string, Readonly<Record<string, (...parameters: never[]) => unknown>>>
>;

/**
 * The side that is called: runs one call after the other and answers each.
 *
 * @param open makes the targets with the first call, over a clock that shows the caller's wall time; where it throws, that call
 * answers so, and the next one tries again
 * @param reply sends to the caller
 * @returns takes what the caller sends
 */
export function threadServer(
  open: (clock: Clock) => ThreadTargets,
  reply: (reply: ThreadReply) => void,
): (message: ThreadMarks | ThreadCall) => void {
  let nowMs = 0;
  const clock: Clock = { now: () => nowMs, monotonic: systemClock.monotonic };
  let marks = newMarks();
  let targets: ThreadTargets | undefined;
  let last: Promise<void> = Promise.resolve();

  async function run(call: ThreadCall): Promise<void> {
    const { number, target, method, parameters } = call;
    Atomics.store(marks, BEGUN, BigInt(number));
    nowMs = call.nowMs;
    try {
      if (readMark(marks, GIVEN_UP) >= number) throw new Fault("unavailable", "Cannot begin it: given up");
      targets ??= open(clock);
      const called = targets[target]?.[method] as ((...all: readonly unknown[]) => unknown) | undefined;
      if (called === undefined) throw new Fault("internal", `Cannot call ${target}.${method}: there is none`);
      reply({ number, ok: true, value: await called(...parameters) });
    } catch (thrown) {
      const { kind, message } = toFault(thrown);
      reply({ number, ok: false, kind, reason: message });
    }
    Atomics.store(marks, ANSWERED, BigInt(number));
  }
  return (message) => {
    if ("marks" in message) marks = message.marks;
    else last = last.then(() => run(message));
  };
}
