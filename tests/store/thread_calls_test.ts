// Tests of thread calls: values, faults and order come back as from a call, and a worker that hangs or dies is told of.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { openThreadCaller, type ThreadCaller } from "../../src/store/thread_calls.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";

async function withCaller(
  run: (caller: ThreadCaller, clock: ReturnType<typeof manualClock>) => Promise<void>,
  timeoutMs = 60_000,
): Promise<void> {
  const clock = manualClock();
  const caller = openThreadCaller({
    name: "a test's worker",
    timeoutMs,
    clock,
    start: () => new Worker(new URL("./fixtures/called_worker.ts", import.meta.url), { type: "module" }),
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
    await caller.call("target", "echo", [1]);
    const lock = new Int32Array(new SharedArrayBuffer(4));
    const hanging = caller.call("target", "hang", [lock.buffer]);
    const behind = caller.call("target", "echo", [2]);
    await rejects(hanging, isFault("unavailable"));
    await rejects(behind, isFault("unavailable"));
    await rejects(caller.call("target", "echo", [3]), isFault("unavailable"));
    Atomics.store(lock, 0, 1);
    Atomics.notify(lock, 0);
    for (;;) {
      const answer = await caller.call("target", "echo", [4]).catch(() => undefined);
      // The answers of the calls that were given up are nobody else's.
      if (answer !== undefined) return strictEqual(answer, 4);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }, 300);
});

Deno.test("a worker that dies is told of at once, and the next call has a new one", async () => {
  await withCaller(async (caller) => {
    const dying = caller.call("target", "die", []);
    const behind = caller.call("target", "echo", [1]);
    await rejects(dying, isFault("unavailable"));
    await rejects(behind, isFault("unavailable"));
    strictEqual(await caller.call("target", "echo", [2]), 2);
  });
});
