// Thread calls: an object in a worker, called by the names of its methods; a worker that hangs or dies is told of in bounded time.
import { Fault, type FaultKind, toFault } from "../faults/fault.ts";
import { type Clock, systemClock } from "../time/clock.ts";

/** One call on its way to the worker. Answers come in the order of the calls. */
export interface ThreadCall {
  readonly target: string;
  readonly method: string;
  readonly parameters: readonly unknown[];
  /** The caller's wall time, milliseconds since 1970: the worker has no other. */
  readonly nowMs: number;
}

/** What came of it. */
export type ThreadReply =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly kind: FaultKind; readonly reason: string };

/** The side that calls. */
export interface ThreadCaller {
  /**
   * Calls a method of an object in the worker. Parameters and value are copied.
   *
   * @throws Fault as the method throws · Fault `unavailable` when the worker does not answer in time: the call may be done all the
   * same, now or later, as with any store that is reached over a wire · at once while an older call is overdue, so that nothing piles up
   */
  call(target: string, method: string, parameters: readonly unknown[]): Promise<unknown>;
  /** Waits for what was called, within the time of a call, and ends the worker. */
  close(): Promise<void>;
}

/** A worker that starts loads its code first, and opens its files. */
const FIRST_TIMEOUT_MS = 60_000;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (fault: Fault) => void;
}

/**
 * Starts the worker now, and again whenever it dies.
 *
 * @param options.name what is called, for messages
 * @param options.timeoutMs of a call, from when it was made; the first of a worker has a minute
 */
export function openThreadCaller(options: {
  readonly name: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly start: () => Worker;
}): ThreadCaller {
  const { name, timeoutMs, clock, start } = options;
  let worker: Worker | undefined;
  /** Unanswered calls, the oldest first; one that was given up stays until its answer comes. */
  const pending: Pending[] = [];
  let isOverdue = false;
  /** Whether this worker has answered once. */
  let isStarted = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isClosed = false;
  let onIdle: (() => void) | undefined;

  const fault = (state: string): Fault => new Fault("unavailable", `Cannot ask ${name}: ${state}`);

  function spawn(): Worker {
    const spawned = start();
    spawned.onmessage = ({ data }: MessageEvent<ThreadReply>) => answered(data);
    spawned.onerror = (event) => {
      event.preventDefault(); // else it ends the server
      if (spawned === worker) died(event.message);
    };
    return spawned;
  }

  function answered(reply: ThreadReply): void {
    isOverdue = false;
    isStarted = true;
    const first = pending.shift();
    watch();
    if (reply.ok) first?.resolve(reply.value);
    else first?.reject(new Fault(reply.kind, reply.reason));
    if (pending.length === 0) onIdle?.();
  }

  function died(reason: string): void {
    worker?.terminate();
    worker = undefined;
    isOverdue = false;
    isStarted = false;
    for (const each of pending.splice(0)) each.reject(fault(`its thread died: ${reason}`));
    watch();
    onIdle?.();
  }

  /** One timer for all calls, set anew with each answer: while answers come, nobody hangs. */
  function watch(): void {
    clearTimeout(timer);
    if (pending.length === 0 || isOverdue) return;
    const patienceMs = isStarted ? timeoutMs : Math.max(timeoutMs, FIRST_TIMEOUT_MS);
    timer = setTimeout(() => {
      isOverdue = true;
      for (const { reject } of pending) reject(fault(`no answer within ${patienceMs} ms`));
    }, patienceMs);
  }

  return {
    call(target, method, parameters) {
      if (isClosed) return Promise.reject(fault("it is closed"));
      if (isOverdue) return Promise.reject(fault("it does not answer"));
      worker ??= spawn();
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      pending.push({ resolve, reject });
      if (pending.length === 1) watch();
      worker.postMessage({ target, method, parameters, nowMs: clock.now() } satisfies ThreadCall);
      return promise;
    },
    async close() {
      isClosed = true;
      if (pending.length > 0 && !isOverdue) {
        const { promise, resolve } = Promise.withResolvers<void>();
        onIdle = resolve;
        const givenUp = setTimeout(resolve, timeoutMs);
        await promise;
        clearTimeout(givenUp);
      }
      clearTimeout(timer);
      worker?.terminate();
    },
  };
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
 */
export function threadServer(
  open: (clock: Clock) => ThreadTargets,
  reply: (reply: ThreadReply) => void,
): (call: ThreadCall) => void {
  let nowMs = 0;
  const clock: Clock = { now: () => nowMs, monotonic: systemClock.monotonic };
  let targets: ThreadTargets | undefined;
  let last: Promise<void> = Promise.resolve();
  async function run(call: ThreadCall): Promise<void> {
    const { target, method, parameters } = call;
    nowMs = call.nowMs;
    try {
      targets ??= open(clock);
      const called = targets[target]?.[method] as ((...all: readonly unknown[]) => unknown) | undefined;
      if (called === undefined) throw new Fault("internal", `Cannot call ${target}.${method}: there is none`);
      reply({ ok: true, value: await called(...parameters) });
    } catch (thrown) {
      const { kind, message } = toFault(thrown);
      reply({ ok: false, kind, reason: message });
    }
  }
  return (call) => {
    last = last.then(() => run(call));
  };
}
