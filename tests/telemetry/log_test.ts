// Tests of the log: one line an event whatever is in it, nothing secret, and bounded memory when its reader hangs.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  type Log,
  LOG_LEVELS,
  type LogLevel,
  type LogSink,
  openLog,
  wholeLines,
} from "../../src/telemetry/log.ts";
import { anyText } from "../support/any_text.ts";
import { manualClock } from "../support/manual_clock.ts";

const clock = manualClock(1_750_000_000_123);

/** A log whose text is kept. `take` decides what becomes of each piece; the first `take(…)` bytes are kept. */
function keptLog(level: LogLevel, take: LogSink = (bytes) => Promise.resolve(bytes.length)) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  const log = openLog({
    level,
    clock,
    sink: async (bytes) => {
      const taken = await take(bytes);
      text += decoder.decode(bytes.subarray(0, taken), { stream: true });
      return taken;
    },
  });
  return {
    log,
    text: () => text,
    entries: () => text.split("\n").slice(0, -1).map((line) => JSON.parse(line)),
  };
}

Deno.test("a line tells time, level, event and fields, in this order, and ends with a line feed", async () => {
  const { log, text } = keptLog("debug");
  log.write("warn", "engine.slow", { model: "use-lite", durationMs: 12.5, retried: false, subject: null });
  await log.flush();
  strictEqual(
    text(),
    '{"time":"2025-06-15T15:06:40.123Z","level":"warn","event":"engine.slow","model":"use-lite","durationMs":12.5,' +
      '"retried":false,"subject":null}\n',
  );
});

Deno.test("lines below the level are not written, all others are, in order", async () => {
  for (const [index, level] of LOG_LEVELS.entries()) {
    const { log, entries } = keptLog(level);
    for (const each of LOG_LEVELS) log.write(each, "x");
    await log.flush();
    deepStrictEqual(entries().map((entry) => entry.level), LOG_LEVELS.slice(index));
  }
});

Deno.test("nothing is written at once: the lines of one turn leave in one piece", async () => {
  const pieces: number[] = [];
  const { log, text } = keptLog("info", (bytes) => {
    pieces.push(bytes.length);
    return Promise.resolve(bytes.length);
  });
  for (let line = 0; line < 100; line++) log.write("info", "x", { line });
  strictEqual(text(), "");
  await log.flush();
  deepStrictEqual(pieces, [text().length]);
});

Deno.test("ASVS V16.4.1: whatever a field holds, it is one line of printable text that reads back to the field", async () => {
  const hostile = [
    'a\r\n{"level":"error","event":"forged"}',
    "\n\n\r",
    "\u001b[2J\u001b[31mred\u001b]0;title\u0007",
    "\u009b2J\u0085\u0090",
    "\u2028\u2029",
    "\u0000\u007f\u0008",
    '"},{"',
    "\\",
    "\ud800 lone",
    "😀é",
  ];
  const { log, text, entries } = keptLog("info");
  for (const value of hostile) log.write("info", value, { value, [value]: 1 });
  await log.flush();
  strictEqual(text().split("\n").length, hostile.length + 1);
  for (const unsafe of text().matchAll(/[\p{Cc}\p{Zl}\p{Zp}]/gu)) strictEqual(unsafe[0], "\n");
  deepStrictEqual(
    entries().map((entry) => [entry.event, entry.value]),
    hostile.map((value) => [value, value]),
  );
});

Deno.test("property: any text at all gives exactly one line", async () => {
  await fc.assert(fc.asyncProperty(anyText, async (value) => {
    const { log, text, entries } = keptLog("info");
    log.write("info", "x", { value });
    await log.flush();
    strictEqual(text().split(/[\n\r\u0085\u2028\u2029]/).length, 2);
    strictEqual(entries().length, 1);
  }));
});

Deno.test("ASVS V16.2.5: secrets are masked by name and by form", async () => {
  const { log, text } = keptLog("info");
  const jwt = ["eyJhbGciOiJFZERTQSJ9", "eyJzdWIiOiJ1c3JfMSJ9", "c2lnbmF0dXJl"].join(".");
  log.write("info", "x", { password: "hunter2hunter2", reason: `Cannot take Bearer ${jwt}`, tokens: 7 });
  await log.flush();
  for (const secret of ["hunter2", "eyJ", "c2lnbmF0dXJl"]) ok(!text().includes(secret), secret);
  ok(text().includes('"tokens":7'));
});

Deno.test("a sink that takes a few bytes at a time gets every byte, once and in order", async () => {
  const { log, entries } = keptLog("info", (bytes) => Promise.resolve(Math.min(7, bytes.length)));
  for (let line = 0; line < 50; line++) log.write("info", "x", { line, text: "é😀" });
  await log.flush();
  deepStrictEqual(entries().map((entry) => entry.line), Array.from({ length: 50 }, (_, line) => line));
});

Deno.test("flush waits for lines that are written while it waits for the sink", async () => {
  const { log, entries } = keptLog("info", (bytes) => {
    if (bytes.length < 100) log.write("info", "second", { filler: "x".repeat(100) });
    return Promise.resolve(bytes.length);
  });
  log.write("info", "first");
  await log.flush();
  deepStrictEqual(entries().map((entry) => entry.event), ["first", "second"]);
  await log.flush(); // nothing waits: it resolves
});

/** Writes lines of about 10,000 characters. */
function writeLong(log: Log, lines: number): void {
  for (let line = 0; line < lines; line++) log.write("info", "long", { filler: "x".repeat(10_000) });
}

Deno.test("a sink that hangs holds up nobody; memory is bounded, what is dropped is counted and reported", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const hanging = Promise.withResolvers<void>();
  let largest = 0;
  const { log, entries } = keptLog("info", async (bytes) => {
    largest = Math.max(largest, bytes.length);
    hanging.resolve();
    await promise;
    return bytes.length;
  });
  log.write("info", "first");
  await hanging.promise;
  writeLong(log, 2000); // 20 MB
  resolve();
  await log.flush();
  const kept = entries().filter((entry) => entry.event === "long").length;
  const reports = entries().filter((entry) => entry.event === "log.lines_dropped");
  ok(largest < 5 * 1024 * 1024, `${largest} bytes waited`);
  ok(kept > 300 && kept < 2000, `${kept} lines were kept`);
  deepStrictEqual(reports.map(({ level, lines }) => [level, lines]), [["error", 2000 - kept]]);
  // It has recovered: lines are kept again and none is reported as dropped.
  log.write("info", "last");
  await log.flush();
  strictEqual(entries().at(-1).event, "last");
  strictEqual(entries().filter((entry) => entry.event === "log.lines_dropped").length, 1);
});

Deno.test("a sink that throws reaches no writer; lines behind the failure still leave, and the lost ones are reported", async () => {
  let failures = 0;
  const { log, entries } = keptLog("info", (bytes) => {
    if (failures++ > 0) return Promise.resolve(bytes.length);
    // While the failing write is on its way, another request logs.
    log.write("info", "meanwhile");
    return Promise.reject(new Error("no space left"));
  });
  log.write("info", "lost");
  log.write("info", "lost too");
  await log.flush();
  deepStrictEqual(entries().map((entry) => [entry.event, entry.lines]), [
    ["meanwhile", undefined],
    ["log.lines_dropped", 2],
  ]);
});

Deno.test("a sink that always throws is tried again for later lines only, and flush still resolves", async () => {
  let tries = 0;
  let broken = true;
  const { log, entries } = keptLog("info", (bytes) => {
    tries++;
    if (broken) throw new Error("closed pipe");
    return Promise.resolve(bytes.length);
  });
  for (let line = 0; line < 3; line++) {
    log.write("info", "lost");
    await log.flush();
    strictEqual(tries, line + 1);
  }
  broken = false;
  log.write("info", "taken");
  await log.flush();
  deepStrictEqual(entries().map((entry) => [entry.event, entry.lines]), [
    ["taken", undefined],
    ["log.lines_dropped", 3],
  ]);
});

Deno.test("a line that was broken off is ended before the next: the next one is whole", async () => {
  let calls = 0;
  const { log, text } = keptLog("info", (bytes) => {
    calls++;
    if (calls === 2) return Promise.reject(new Error("no space left"));
    return Promise.resolve(calls === 1 ? 20 : bytes.length);
  });
  log.write("info", "broken");
  await log.flush();
  log.write("info", "next");
  await log.flush();
  const [broken = "", ...whole] = text().split("\n").slice(0, -1);
  strictEqual(broken.length, 20);
  deepStrictEqual(whole.map((line) => JSON.parse(line).event), ["next", "log.lines_dropped"]);
});

Deno.test("property: whoever shares a place for lines, and wherever it breaks, no line that was taken is torn, and none is ended twice", async () => {
  const step = fc.record({ bytesMax: fc.integer({ min: 1, max: 9 }), fails: fc.boolean() });
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
    let text = "";
    const plan = [...steps];
    const write = wholeLines((bytes) => {
      const { bytesMax, fails } = plan.shift() ?? { bytesMax: Infinity, fails: false };
      if (fails) return Promise.reject(new Error("no space left"));
      const part = bytes.subarray(0, bytesMax);
      text += new TextDecoder().decode(part);
      return Promise.resolve(part.length);
    });
    const taken = new Set<string>();
    const writer = async (name: string): Promise<void> => {
      for (let count = 0; count < 5; count++) {
        const line = `${name}-${count};`;
        try {
          strictEqual(await write(new TextEncoder().encode(`${line}\n`)), line.length + 1);
          taken.add(line);
        } catch {
          // It says so; nothing of it counts.
        }
      }
    };
    await Promise.all([writer("audit"), writer("log")]);
    const lines = text.split("\n");
    ok(!lines.slice(0, -1).includes(""), text);
    for (const line of taken) strictEqual(lines.filter((each) => each === line).length, 1, text);
  }));
});
