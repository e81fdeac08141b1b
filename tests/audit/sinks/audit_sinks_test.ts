// Tests of the sinks as a whole: one that cannot be opened holds no other, and standard output that breaks in the midst of a line.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { openAuditSinks } from "../../../src/audit/sinks/audit_sinks.ts";
import type { SinkOptions } from "../../../src/audit/sinks/sink_options.ts";
import type { LogSink } from "../../../src/telemetry/log.ts";
import { numberedUpTo, TrailFolder, until } from "../trail_folder.ts";
import { openSinksUnderTest, target } from "./opened_sinks.ts";

const STDOUT: SinkOptions = { name: "out", from: "start", kind: "stdout", classes: undefined };
const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);

/** Numbers of the entries in those lines that are whole. */
function numbersIn(text: string): number[] {
  return text.split("\n").flatMap((line) => {
    try {
      return [JSON.parse(line).audit.seq];
    } catch {
      return [];
    }
  });
}

Deno.test("a sink whose certificates or secret cannot be used is down and says so without them; the others ship", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const broken = { from: "start", kind: "otlp", classes: undefined } as const;
  const url = "https://127.0.0.1:1";
  const sinks = openSinksUnderTest(folder, [
    {
      ...broken,
      ...target(url, {
        caCertificates: "-----BEGIN CERTIFICATE-----\nMIIB torn copy\n-----END CERTIFICATE-----\n",
      }),
      name: "torn",
    },
    { ...broken, ...target(url, { secret: "hunter2\nX-Other: 1" }), name: "lines" },
    STDOUT,
  ], ["127.0.0.1:1"]);
  await until(() => numbersIn(sinks.printed()).length === 3 && sinks.logged.length >= 3);
  await sinks.close();
  deepStrictEqual(
    sinks.logged.map(({ event, fields }) => [event, fields.sink, fields.state]).sort(),
    [
      ["audit.sink_state", "lines", "down"],
      ["audit.sink_state", "out", "up"],
      ["audit.sink_state", "torn", "down"],
    ],
  );
  ok(!JSON.stringify(sinks.logged).includes("hunter2"));
});

Deno.test("a line that standard output broke off is ended before the next: every entry comes in a line of its own", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(20));
  let printed = "";
  let calls = 0;
  // A full disk, or a pipe that does not block: a part is taken, then nothing, then all.
  const standardOutput: LogSink = (bytes) => {
    calls++;
    if (calls === 2) return Promise.reject(new Error("no space left on device"));
    const part = calls === 1 ? bytes.subarray(0, 100) : bytes;
    printed += new TextDecoder().decode(part);
    return Promise.resolve(part.length);
  };
  const sinks = openAuditSinks({
    directory: folder.directory,
    checkpointDirectory: folder.checkpointDirectory,
    cursorDirectory: `${folder.root}/sinks`,
    sinks: [STDOUT],
    hosts: [],
    sealingKeys: () => new Map(),
    log: { write() {}, flush: () => Promise.resolve() },
    standardOutput,
  });
  await until(() => numbersIn(printed).includes(20));
  await sinks.close();
  deepStrictEqual(numbersIn(printed), upTo(20));
  strictEqual(printed.split("\n").length, 22); // the broken line, and nothing behind the last
});
