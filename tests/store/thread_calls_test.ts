// Tests of thread calls: values, faults and order come back as from a call, and a worker that hangs or dies is told of.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { toFault } from "../../src/faults/fault.ts";
import { openThreadCaller, type ThreadCaller } from "../../src/store/thread_calls.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";

const startWorker = () =>
  new Worker(new URL("./fixtures/called_worker.ts", import.meta.url), { type: "module" });

async function withCaller(
  run: (caller: ThreadCaller, clock: ReturnType<typeof manualClock>) => Promise<void>,
  timeoutMs = 60_000,
  options: Partial<Parameters<typeof openThreadCaller>[0]> = {},
): Promise<void> {
  const clock = manualClock();
  const caller = openThreadCaller({
    name: "a test's worker",
    timeoutMs,
    clock,
    start: startWorker,
    ...options,
  });
  try {
    await run(caller, clock);
  } finally {
    await caller.close();
  }
}

Deno.test("a call answers what the method answers, by the caller's clock, and throws the Fault that it throws", async () => {
  await withCaller(async (caller, clock) => {
    deepStrictEqual(await caller.call("target", "echo", [new Uint8Array([1, 2])]), new Uint8Array([1, 2]));
    strictEqual(await caller.call("target", "echo", [undefined]), undefined);
    strictEqual(await caller.call("target", "now", []), clock.now());
    clock.advance(5000);
    strictEqual(await caller.call("target", "now", []), clock.now());
    await rejects(caller.call("target", "refuse", []), isFault("conflict"));
    await rejects(caller.call("target", "none", []), isFault("internal"));
  });
});

/** Keeps the worker busy until it is told to go on. */
async function hang(
  caller: ThreadCaller,
): Promise<{ readonly hanging: Promise<unknown>; readonly release: () => void }> {
  // It has started.
  await caller.call("target", "echo", [0]);
  const lock = new Int32Array(new SharedArrayBuffer(4));
  const hanging = caller.call("target", "hang", [lock.buffer]);
  hanging.catch(() => {});
  return {
    hanging,
    release() {
      Atomics.store(lock, 0, 1);
      Atomics.notify(lock, 0);
    },
  };
}

/** Calls until it is answered. */
async function answerOf(
  caller: ThreadCaller,
  method: string,
  parameters: readonly unknown[],
): Promise<unknown> {
  for (;;) {
    try {
      return await caller.call("target", method, parameters);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Of a call that fails, whether it says that nothing of it is ever done. */
const isNotSent = (call: Promise<unknown>): Promise<boolean> =>
  call.then(
    () => {
      throw new Error("it was answered");
    },
    (thrown) => toFault(thrown).details.notSent === true,
  );

Deno.test("calls are done one after the other, however long one takes, and close waits for them", async () => {
  await withCaller(async (caller) => {
    const order: unknown[] = [];
    const calls = [30, 0, 10].map(async (waitMs, at) =>
      order.push(await caller.call("target", "echo", [at, waitMs]))
    );
    await caller.close();
    deepStrictEqual(order, [0, 1, 2]);
    await Promise.all(calls);
    await rejects(caller.call("target", "echo", [1]), isFault("unavailable"));
  });
});

Deno.test("a worker that hangs is told of in time, later calls at once, and all is well when it answers", async () => {
  await withCaller(async (caller) => {
    const { hanging, release } = await hang(caller);
    const behind = caller.call("target", "echo", [2]);
    await rejects(hanging, isFault("unavailable"));
    await rejects(behind, isFault("unavailable"));
    await rejects(caller.call("target", "echo", [3]), isFault("unavailable"));
    release();
    // The answers of the calls that were given up are nobody else's.
    strictEqual(await answerOf(caller, "echo", [4]), 4);
  }, 300);
});

Deno.test("what waits behind a call that hangs is never done once it was given up, and its fault says so", async () => {
  const unanswered: string[] = [];
  await withCaller(
    async (caller) => {
      const { hanging, release } = await hang(caller);
      const behind = [caller.call("target", "count", []), caller.call("target", "count", [])];
      deepStrictEqual(await Promise.all([hanging, ...behind].map(isNotSent)), [false, true, true]);
      strictEqual(await isNotSent(caller.call("target", "count", [])), true);
      release();
      strictEqual(await answerOf(caller, "count", []), 1);
      deepStrictEqual(unanswered, ["hang"]);
    },
    300,
    { onUnanswered: ({ method }) => unanswered.push(method) },
  );
});

Deno.test("each call has its whole time: one made just before an older one is given up may still be answered", async () => {
  await withCaller(async (caller) => {
    const { hanging, release } = await hang(caller);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const behind = caller.call("target", "echo", [1]);
    await rejects(hanging, isFault("unavailable"));
    release();
    strictEqual(await behind, 1);
  }, 800);
});

Deno.test("calls to a worker that is slow and answers are given up in their time, however many stand before them", async () => {
  await withCaller(async (caller) => {
    await caller.call("target", "echo", [0]);
    const calls = Array.from({ length: 12 }, (_, at) => caller.call("target", "echo", [at, 100]));
    const last = calls.at(-1) ?? Promise.resolve();
    const others = Promise.allSettled(calls);
    strictEqual(await isNotSent(last), true);
    await others;
  }, 400);
});

Deno.test("more calls than may wait are refused at once", async () => {
  await withCaller(
    async (caller) => {
      const { hanging, release } = await hang(caller);
      const behind = caller.call("target", "count", []);
      strictEqual(await isNotSent(caller.call("target", "count", [])), true);
      release();
      await hanging;
      strictEqual(await behind, 1);
      strictEqual(await caller.call("target", "count", []), 2);
    },
    60_000,
    { waitingMax: 2 },
  );
});

Deno.test("parameters that cannot be copied are refused, and every later answer is its caller's", async () => {
  await withCaller(async (caller) => {
    await rejects(caller.call("target", "echo", [() => {}]), isFault("internal"));
    const calls = [1, 2, 3].map((value) => caller.call("target", "echo", [value]));
    deepStrictEqual(await Promise.all(calls), [1, 2, 3]);
  });
});

Deno.test("a worker that answers what it was not asked is taken for dead", async () => {
  await withCaller(async (caller) => {
    await rejects(caller.call("target", "stray", []), /answered what it was not asked/);
    strictEqual(await caller.call("target", "echo", [1]), 1);
  });
});

Deno.test("a worker that cannot be started is told of as a rejection, and the next call tries again", async () => {
  let starts = 0;
  const start = () => {
    if (++starts === 1) throw new Error("no more threads");
    return startWorker();
  };
  await withCaller(
    async (caller) => {
      const call = caller.call("target", "echo", [1]);
      strictEqual(await isNotSent(call), true);
      await rejects(call, isFault("unavailable"));
      strictEqual(await caller.call("target", "echo", [2]), 2);
    },
    60_000,
    { start },
  );
});

Deno.test("a worker that dies is told of at once, and the next call has a new one, also in time", async () => {
  const unanswered: string[] = [];
  await withCaller(
    async (caller) => {
      const { hanging, release } = await hang(caller);
      await rejects(hanging, isFault("unavailable"));
      release();
      strictEqual(await answerOf(caller, "echo", [0]), 0);
      const dying = caller.call("target", "die", []);
      const behind = caller.call("target", "echo", [1]);
      deepStrictEqual(await Promise.all([dying, behind].map(isNotSent)), [false, true]);
      strictEqual(await caller.call("target", "echo", [2]), 2);
      const again = await hang(caller);
      await rejects(again.hanging, isFault("unavailable"));
      again.release();
      deepStrictEqual(unanswered, ["hang", "die", "hang"]);
    },
    300,
    { onUnanswered: ({ method }) => unanswered.push(method) },
  );
});

Deno.test("a call that is unanswered when the caller is closed is told of, and nobody waits for its whole time", async () => {
  const lock = new Int32Array(new SharedArrayBuffer(4));
  let hanging: Promise<unknown> = Promise.resolve();
  await withCaller((caller) => {
    // The first of a worker, which has a minute.
    hanging = caller.call("target", "hang", [lock.buffer]);
    hanging.catch(() => {});
    return Promise.resolve();
  }, 300);
  Atomics.store(lock, 0, 1);
  Atomics.notify(lock, 0);
  await rejects(hanging, isFault("unavailable"));
});
