// Tests of the progress bar's text.
import { strictEqual } from "node:assert/strict";
import { progressText } from "../../src/telemetry/progress_bar.ts";

Deno.test("the bar fills from nothing to all, and never shows more than all", () => {
  strictEqual(progressText(0, 2_500_000), `[${".".repeat(40)}]   0 %  0 of 3 MB`);
  strictEqual(progressText(1_250_000, 2_500_000), `[${"#".repeat(20)}${".".repeat(20)}]  50 %  1 of 3 MB`);
  strictEqual(progressText(2_499_999, 2_500_000), `[${"#".repeat(39)}.]  99 %  2 of 3 MB`);
  strictEqual(progressText(3_000_000, 2_500_000).startsWith(`[${"#".repeat(40)}] 100 %`), true);
  strictEqual(progressText(0, 0), `[${"#".repeat(40)}] 100 %  0 of 0 MB`);
});
