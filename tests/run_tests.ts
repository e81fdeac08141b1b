// Runs all tests and closes with the line "N passed, N failed".
import { stripVTControlCharacters as stripAnsiCode } from "node:util";
import { WHY_NO_MOUNT } from "./support/mounted_disk.ts";
import { printLine } from "../src/telemetry/terminal.ts";

const parameters = Deno.args.length > 0 ? Deno.args : ["tests"];
const child = new Deno.Command(Deno.execPath(), {
  // Types are checked once, by `deno task ok` and in CI: to do it again here would cost a minute.
  args: [
    "test",
    "-P=test",
    "--no-check",
    // Files side by side: many of them wait for servers, time-outs and restarts.
    "--parallel",
    "--no-prompt",
    "--cached-only",
    "--frozen",
    "--no-remote",
    ...parameters,
  ],
  // One file more at once than there are cores: many of them wait, for time-outs, restarts and disks.
  env: { DENO_JOBS: Deno.env.get("DENO_JOBS") ?? String(navigator.hardwareConcurrency + 1) },
  stdin: "null",
  stdout: "piped",
}).spawn();

let tail = "";
let last: string[] = [];
/** Tests that this machine has no right to run, which no package gives it. */
let notAllowed = 0;
const decoder = new TextDecoder();
for await (const bytes of child.stdout) {
  for (let written = 0; written < bytes.length;) written += await Deno.stdout.write(bytes.subarray(written));
  const lines = (tail + decoder.decode(bytes, { stream: true })).split("\n");
  tail = lines.pop() ?? "";
  for (const line of lines) {
    if (line.includes(WHY_NO_MOUNT) && stripAnsiCode(line).includes("... ignored")) notAllowed++;
  }
  last = [...last, ...lines].slice(-20);
}
const { code } = await child.status;
const summary =
  /\| (\d+) passed(?: \(\d+ steps?\))? \| (\d+) failed(?: \(\d+ steps?\))?(?: \| (\d+) ignored)?/.exec(
    stripAnsiCode([...last, tail].join("\n")),
  );
const [passed, failed, ignored] = (summary ?? []).slice(1).map((count) => Number(count ?? 0));
if (passed === undefined || failed === undefined) {
  printLine("0 passed, 1 failed");
  Deno.exit(code || 1);
}
// On the machine that decides what ships, a service that a test needs is there, or the test has not passed.
const missing = Deno.env.get("CI") === "true" ? Math.max(0, (ignored ?? 0) - notAllowed) : 0;
if (notAllowed > 0) printLine(`${notAllowed} not run: this machine ${WHY_NO_MOUNT}`);
if (missing > 0) printLine(`${missing} ignored: in CI nothing may be`);
printLine(
  `${passed} passed, ${failed + missing} failed${ignored && missing === 0 ? `, ${ignored} skipped` : ""}`,
);
Deno.exit(code || (missing > 0 ? 1 : 0));
