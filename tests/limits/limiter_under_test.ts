// Limiter under test: a limiter with its log, and the cells that its tests take from.
import { ok } from "node:assert/strict";
import type { LimitCell, LimitStore } from "../../src/limits/limit_store.ts";
import type { GuardedCell } from "../../src/limits/guarded_cell.ts";
import { type Limiter, openLimiter } from "../../src/limits/limiter.ts";
import { openMemoryLimitStore } from "../../src/limits/memory_limit_store.ts";
import { openLog } from "../../src/telemetry/log.ts";
import type { Clock } from "../../src/time/clock.ts";

/** A limiter and what it wrote. */
export interface LimiterUnderTest extends AsyncDisposable {
  readonly limiter: Limiter;
  /** The store for when the other fails. */
  readonly local: LimitStore;
  /** The events of all lines so far. */
  events(): Promise<readonly string[]>;
  /** The lines of an event. */
  lines(event: string): Promise<readonly Record<string, unknown>[]>;
}

/** Opens one over a store. */
export function limiterOver(store: LimitStore, clock: Clock, degradedFraction = 0.25): LimiterUnderTest {
  let text = "";
  const log = openLog({
    level: "debug",
    clock,
    sink: (bytes) => {
      text += new TextDecoder().decode(bytes);
      return Promise.resolve(bytes.length);
    },
  });
  const local = openMemoryLimitStore(clock);
  async function lines(): Promise<readonly Record<string, unknown>[]> {
    await log.flush();
    return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
  }
  const limiter = openLimiter({ store, local, degradedFraction, clock, log });
  return {
    limiter,
    local,
    async [Symbol.asyncDispose]() {
      await limiter.close(0);
      await log.flush();
    },
    events: async () => (await lines()).map(({ event }) => String(event)),
    lines: async (event) => (await lines()).filter((line) => line.event === event),
  };
}

/** Requests of an hour: next to nothing comes back during a test. */
export function requests(
  key: string,
  quota: number,
  more: Partial<GuardedCell> = {},
  amount = 1,
): GuardedCell {
  return degraded({ kind: "rate", key, quota, windowMs: 3_600_000, amount }, { fixed: true, ...more });
}

/** Tokens of an hour. */
export function tokens(key: string, quota: number, amount: number): GuardedCell {
  return degraded({ kind: "rate", key, quota, windowMs: 3_600_000, amount });
}

/** Places. */
export function places(key: string, quota: number): GuardedCell {
  return degraded({ kind: "place", key, quota, heldMs: 600_000 });
}

/** A budget, which is closed. */
export function budget(key: string, quota: number, amount: number): GuardedCell {
  const cell: LimitCell = { kind: "count", book: "budget", key, quota, amount, endsInMs: 3_600_000 };
  return { cell, whenStoreFails: "closed", fixed: false };
}

function degraded(cell: LimitCell, more: Partial<GuardedCell> = {}): GuardedCell {
  return { cell, whenStoreFails: "degraded", fixed: false, ...more };
}

/** Waits until something holds; fails where it does not for a long time. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let turn = 0; turn < 24_000; turn++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  ok(false, `${what}: not so after two minutes`);
}
