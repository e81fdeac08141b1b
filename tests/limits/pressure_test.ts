// Tests of pressure: who is turned away first, by the lag of the event loop and by what runs, and that it ends by itself.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openPressure, type Pressure } from "../../src/limits/pressure.ts";
import { type Log, openLog } from "../../src/telemetry/log.ts";
import { systemClock } from "../../src/time/clock.ts";
import { manualClock } from "../support/manual_clock.ts";

const LAG_MS_MAX = 200;
const AT_ONCE_MAX = 10;
/** How long the timer of the loop's lag is set for. */
const SAMPLE_MS = 100;
const LOW = ["guest", "batch"];

type Line = Record<string, unknown>;

function openLines(): { readonly log: Log; readonly lines: () => Promise<readonly Line[]> } {
  const text: string[] = [];
  const log = openLog({
    level: "debug",
    clock: systemClock,
    sink: (bytes) => {
      text.push(new TextDecoder().decode(bytes));
      return Promise.resolve(bytes.length);
    },
  });
  return {
    log,
    async lines() {
      await log.flush();
      return text.join("").split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
    },
  };
}

/** One over a clock that is moved by hand: the loop's real lag is none of its. */
function openUnderTest() {
  const clock = manualClock();
  const { log, lines } = openLines();
  const running = { count: 0 };
  let sampled = Promise.withResolvers<void>();
  const pressure = openPressure({
    lagMsMax: LAG_MS_MAX,
    atOnceMax: AT_ONCE_MAX,
    lowPriorityRoles: LOW,
    underWay: () => running.count,
    clock: {
      ...clock,
      monotonic() {
        sampled.resolve();
        return clock.monotonic();
      },
    },
    log,
  });
  return {
    pressure,
    running,
    lines,
    async close(): Promise<void> {
      pressure.close();
      await log.flush();
    },
    /** Waits for the next look at the loop, which finds that it lagged so. */
    async lag(ms: number): Promise<void> {
      sampled = Promise.withResolvers();
      clock.advance(SAMPLE_MS + ms);
      // Its own timer keeps no process alive, and no test.
      const alive = setInterval(() => {}, SAMPLE_MS);
      await sampled.promise;
      clearInterval(alive);
    },
  };
}

function hasRoom(pressure: Pressure, roles: readonly string[], runsModel = true): boolean {
  try {
    pressure.requireRoom(roles, runsModel);
    return true;
  } catch (thrown) {
    ok(thrown instanceof Fault);
    deepStrictEqual([thrown.kind, thrown.details.retryAfterSeconds], ["overloaded", 2]);
    return false;
  }
}

/** Whether there is room for a guest, a user, an operator and an admin. */
function roomFor(pressure: Pressure, runsModel = true): readonly boolean[] {
  return ["guest", "user", "operator", "admin"].map((role) => hasRoom(pressure, [role], runsModel));
}

const EVERYBODY = [true, true, true, true];
const NOT_LOW = [false, true, true, true];
const THOSE_WHO_RUN_IT = [false, false, true, true];

Deno.test("a server that is at rest has room for everybody", async () => {
  const { pressure, lag, lines, close } = openUnderTest();
  deepStrictEqual(roomFor(pressure), EVERYBODY);
  await lag(0);
  await lag(LAG_MS_MAX - 1);
  deepStrictEqual(roomFor(pressure), EVERYBODY);
  deepStrictEqual(await lines(), []);
  await close();
});

Deno.test("a loop that lags turns low priorities away, at four times as much all but those who run the server", async () => {
  const { pressure, lag, close } = openUnderTest();
  await lag(LAG_MS_MAX);
  deepStrictEqual([roomFor(pressure, true), roomFor(pressure, false)], [NOT_LOW, NOT_LOW]);
  await lag(4 * LAG_MS_MAX - 1);
  deepStrictEqual(roomFor(pressure), NOT_LOW);
  await lag(4 * LAG_MS_MAX);
  deepStrictEqual([roomFor(pressure, true), roomFor(pressure, false)], [THOSE_WHO_RUN_IT, THOSE_WHO_RUN_IT]);
  await close();
});

Deno.test("a peak is forgotten by halves, and a lower one after it does not lower it", async () => {
  const { pressure, lag, close } = openUnderTest();
  await lag(4 * LAG_MS_MAX);
  await lag(0);
  deepStrictEqual(roomFor(pressure), NOT_LOW);
  await lag(1);
  deepStrictEqual(roomFor(pressure), NOT_LOW);
  await lag(0);
  deepStrictEqual(roomFor(pressure), EVERYBODY);
  await close();
});

Deno.test("from four fifths of all places on low priorities are turned away, from the last one on all but those who run the server", async () => {
  const { pressure, running, close } = openUnderTest();
  const cases = [[7, EVERYBODY], [8, NOT_LOW], [9, NOT_LOW], [10, THOSE_WHO_RUN_IT], [
    11,
    THOSE_WHO_RUN_IT,
  ]] as const;
  for (const [count, room] of cases) {
    running.count = count;
    deepStrictEqual(roomFor(pressure), room, String(count));
    // What runs no model needs no place.
    deepStrictEqual(roomFor(pressure, false), EVERYBODY, String(count));
  }
  await close();
});

Deno.test("low is who has no other role than low ones, and who has none; one that runs the server is enough", async () => {
  const { pressure, running, close } = openUnderTest();
  running.count = 8;
  const cases: readonly (readonly [readonly string[], boolean])[] = [
    [["guest"], false],
    [["guest", "batch"], false],
    [[], false],
    [["guest", "user"], true],
    [["writer"], true],
  ];
  for (const [roles, room] of cases) strictEqual(hasRoom(pressure, roles), room, roles.join());
  running.count = AT_ONCE_MAX;
  strictEqual(hasRoom(pressure, ["guest", "operator"]), true);
  strictEqual(hasRoom(pressure, ["guest", "user"]), false);
  await close();
});

Deno.test("the log tells when it begins and when it has ended, with how many were turned away, and nothing of each", async () => {
  const { pressure, running, lag, lines, close } = openUnderTest();
  running.count = 8;
  for (let times = 0; times < 5; times++) hasRoom(pressure, ["guest"]);
  // Not over while there is no room for all.
  await lag(0);
  running.count = 7;
  await lag(LAG_MS_MAX);
  await lag(0);
  await lag(0);
  deepStrictEqual(
    (await lines()).map(({ level, event, underWay, turnedAway }) => [level, event, underWay ?? turnedAway]),
    [["warn", "load.shed", 8], ["info", "load.shed_ended", 5]],
  );
  await close();
});

Deno.test("the refusal says to the log, not to the caller, how loaded the server is", async () => {
  const { pressure, running, close } = openUnderTest();
  running.count = 10;
  throws(
    () => pressure.requireRoom(["user"], true),
    (thrown) =>
      thrown instanceof Fault && /lags 0 ms, 10 inferences run$/.test(thrown.message) &&
      thrown.details.detail === undefined,
  );
  await close();
});

Deno.test("a loop that really is held is noticed, and the end of it as well", async () => {
  const { log } = openLines();
  const pressure = openPressure({
    lagMsMax: 150,
    atOnceMax: AT_ONCE_MAX,
    lowPriorityRoles: LOW,
    underWay: () => 0,
    clock: systemClock,
    log,
  });
  const turn = () => new Promise((resolve) => setTimeout(resolve, 10));
  const heldFrom = systemClock.monotonic();
  while (systemClock.monotonic() - heldFrom < 400);
  // Whatever else the machine does: sooner or later the timer has its turn.
  while (hasRoom(pressure, ["guest"])) await turn();
  while (!hasRoom(pressure, ["guest"])) await turn();
  pressure.close();
  await log.flush();
});
