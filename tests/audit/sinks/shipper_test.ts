// Tests of the shipper's loop over a feed and a sink of the test: at least once, in order, whatever fails.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import type { Feed } from "../../../src/audit/sinks/feed.ts";
import { Shipper } from "../../../src/audit/sinks/shipper.ts";
import { type Sink, SinkFault } from "../../../src/audit/sinks/sink.ts";
import type { SinkCursor } from "../../../src/audit/sinks/sink_cursor.ts";
import { manualClock } from "../../support/manual_clock.ts";
import { until } from "../trail_folder.ts";

/** Numbers from 1 to `last`. */
function numbers(state: { last: number }): Feed<number, number> {
  return {
    start: (from) => from === "start" ? 0 : state.last,
    resume: (kept) => typeof kept === "number" && kept <= state.last ? kept : undefined,
    read(from, itemsMax) {
      const next = Math.min(state.last, from + itemsMax);
      const items = Array.from({ length: next - from }, (_, index) => from + index + 1);
      return Promise.resolve({ items, next, gone: 0 });
    },
  };
}

function memoryCursor(kept?: JsonValue): SinkCursor & { kept: JsonValue | undefined } {
  const cursor = {
    kept,
    read: () => cursor.kept,
    write: (position: JsonValue) => void (cursor.kept = position),
  };
  return cursor;
}

function shipper(
  sink: Partial<Sink<number>> & Pick<Sink<number>, "send">,
  { state = { last: 1000 }, cursor = memoryCursor(), clock = manualClock(), feed = numbers(state) } = {},
) {
  const told: string[] = [];
  const running = new Shipper({
    feed,
    sink: { acknowledges: true, close: () => Promise.resolve(true), ...sink },
    cursor,
    from: "start",
    clock,
    watch: {
      stateChanged: (to, reason) => void told.push(`${to} ${reason}`),
      rewound: (reason) => void told.push(`rewound ${reason}`),
      gone: (entries) => void told.push(`gone ${entries}`),
    },
  });
  running.start();
  return { running, told, cursor, clock, state };
}

const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);

Deno.test("property: a sink that fails at random, before or after it has taken, gets everything, and never a later item before an earlier one", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom("before", "after", "refusal"), { maxLength: 5 }),
      async (failures) => {
        const taken: number[] = [];
        const plan = [...failures];
        const { running, cursor } = shipper({
          send(items) {
            const failure = plan.shift();
            if (failure === "before") return Promise.reject(new SinkFault("it is away"));
            if (failure === "refusal") return Promise.reject(new SinkFault("no", { isRefusal: true }));
            taken.push(...items);
            return failure === "after" ? Promise.reject(new SinkFault("no answer")) : Promise.resolve();
          },
        });
        await until(() => taken.at(-1) === 1000 && plan.length === 0);
        await running.close(100);
        let highest = 0;
        for (const item of taken) {
          ok(item <= highest + 1, `${item} came after ${highest}`);
          highest = Math.max(highest, item);
        }
        deepStrictEqual([...new Set(taken)], upTo(1000));
        strictEqual(cursor.kept, 1000);
      },
    ),
    { numRuns: 6 },
  );
});

Deno.test("a refused piece is sent in smaller ones, so that only the item in question is held", async () => {
  const taken: number[] = [];
  const sizes: number[] = [];
  const { running, told } = shipper({
    send(items) {
      sizes.push(items.length);
      if (items.includes(77)) {
        return Promise.reject(new SinkFault(`no to ${items.length}`, { isRefusal: true }));
      }
      taken.push(...items);
      return Promise.resolve();
    },
  });
  await until(() => told.at(-1) === "down no to 1");
  await running.close(100);
  deepStrictEqual(taken, upTo(76));
  strictEqual(sizes[0], 500);
});

Deno.test("what was sent without acknowledgement counts after a while only; a lost connection brings it again", async () => {
  const taken: number[] = [];
  let lost: string | undefined;
  const { running, cursor, clock, state, told } = shipper({
    acknowledges: false,
    lost: () => lost,
    send(items) {
      lost = undefined;
      taken.push(...items);
      return Promise.resolve();
    },
    close: () => Promise.resolve(false),
  }, { state: { last: 3 } });
  await until(() => taken.length === 3);
  strictEqual(cursor.kept, 0);
  lost = "it closed the connection";
  await until(() => taken.length === 6);
  deepStrictEqual(taken, [1, 2, 3, 1, 2, 3]);
  clock.advance(6000);
  await until(() => cursor.kept === 3);
  state.last = 4;
  await until(() => taken.length === 7);
  // Nobody says that the last one came.
  await running.close(100);
  strictEqual(cursor.kept, 3);
  deepStrictEqual(told, ["up null", "down it closed the connection", "up null"]);
});

Deno.test("a sink that begins now keeps its moment from the first start on, though it has never sent anything", async () => {
  const state = { last: 10 };
  const cursor = memoryCursor();
  const taken: number[] = [];
  const make = () =>
    new Shipper({
      feed: numbers(state),
      sink: {
        acknowledges: true,
        send: (items) => Promise.resolve(void taken.push(...items)),
        close: () => Promise.resolve(true),
      },
      cursor,
      from: "now",
      clock: manualClock(),
      watch: { stateChanged() {}, rewound() {}, gone() {} },
    });
  const first = make();
  first.start();
  await until(() => cursor.kept === 10);
  await first.close(100);
  state.last = 12;
  const second = make();
  second.start();
  await until(() => taken.length === 2);
  await second.close(100);
  deepStrictEqual(taken, [11, 12]);
});

Deno.test("a cursor that cannot be written is told, and nothing is sent twice for it while the process lives", async () => {
  const taken: number[] = [];
  const cursor = memoryCursor();
  const clock = manualClock();
  const { running, told, state } = shipper({
    send(items) {
      taken.push(...items);
      return Promise.resolve();
    },
  }, { state: { last: 3 }, cursor, clock });
  await until(() => taken.length === 3);
  const { write } = cursor;
  cursor.write = () => {
    throw new Error("no space left on device");
  };
  clock.advance(2000);
  state.last = 4;
  await until(() => told.at(-1)?.includes("no space left on device") === true);
  cursor.write = write;
  await until(() => told.at(-1) === "up null" && cursor.kept === 4);
  await running.close(100);
  deepStrictEqual(taken, [1, 2, 3, 4]);
});

Deno.test("what was sent over a connection that ended while the next piece was looked for is sent again, however long ago it was sent", async () => {
  const state = { last: 3 };
  const clock = manualClock();
  const taken: number[] = [];
  let lost: string | undefined;
  let endsNow = false;
  const whole = numbers(state);
  const { running, cursor } = shipper({
    acknowledges: false,
    lost: () => lost,
    send(items) {
      lost = undefined;
      taken.push(...items);
      return Promise.resolve();
    },
    close: () => Promise.resolve(false),
  }, {
    state,
    clock,
    feed: {
      ...whole,
      read(from, itemsMax) {
        if (endsNow) {
          lost = "it closed the connection";
          clock.advance(6000);
        }
        endsNow = false;
        return whole.read(from, itemsMax);
      },
    },
  });
  await until(() => taken.length === 3);
  endsNow = true;
  await until(() => taken.length === 6);
  await running.close(100);
  deepStrictEqual(taken, [1, 2, 3, 1, 2, 3]);
  strictEqual(cursor.kept, 0);
});

Deno.test("a failure at the stop counts nothing as come that was not known to have come before", async () => {
  const taken: number[] = [];
  let isBroken = false;
  const { running, cursor, state } = shipper({
    acknowledges: false,
    send(items) {
      if (isBroken) return Promise.reject(new SinkFault("it reset the connection"));
      taken.push(...items);
      return Promise.resolve();
    },
    // Nothing is open any more, so nothing is left to wait for.
    close: () => Promise.resolve(true),
  }, { state: { last: 3 } });
  await until(() => taken.length === 3);
  isBroken = true;
  state.last = 4;
  await running.close(1000);
  strictEqual(cursor.kept, 0);
});

Deno.test("entries that are gone are told once, though what stands around them is sent again", async () => {
  const taken: number[] = [];
  let lost: string | undefined;
  const { running, told, clock } = shipper({
    acknowledges: false,
    lost: () => lost,
    send(items) {
      lost = undefined;
      taken.push(...items);
      return Promise.resolve();
    },
  }, {
    feed: {
      ...numbers({ last: 9 }),
      read: (from) => Promise.resolve({ items: from === 9 ? [] : [1, 9], next: 9, gone: from === 9 ? 0 : 7 }),
    },
  });
  for (const times of [2, 4, 6]) {
    await until(() => taken.length === times);
    if (times < 6) lost = "it closed the connection";
  }
  clock.advance(6000);
  await until(() => told.some((each) => each.startsWith("gone")));
  await running.close(100);
  deepStrictEqual(told.filter((each) => each.startsWith("gone")), ["gone 7"]);
});

Deno.test("a sink that wants nothing of a long trail leaves others their turn while it passes over it", async () => {
  const last = 500;
  let reads = 0;
  const { running, cursor } = shipper({ send: () => Promise.resolve() }, {
    feed: {
      ...numbers({ last }),
      read(from) {
        reads++;
        return Promise.resolve({ items: [], next: Math.min(last, from + 1), gone: 0 });
      },
    },
  });
  let readsAtTurn: number | undefined;
  setTimeout(() => readsAtTurn = reads, 0);
  await until(() => reads > last);
  ok(readsAtTurn !== undefined && readsAtTurn < last, `${readsAtTurn} reads before another had its turn`);
  await running.close(1000);
  strictEqual(cursor.kept, last);
});
