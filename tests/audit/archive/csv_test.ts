// Tests of CSV: every record comes back as RFC 4180 reads it, and nothing in it is a formula.
import { deepStrictEqual, doesNotMatch, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { csvRecord } from "../../../src/audit/archive/csv.ts";

/** Reads one record as RFC 4180 §2 says. */
function readRecord(text: string): string[] {
  const cells: string[] = [];
  let at = 0;
  for (;;) {
    let cell = "";
    if (text[at] === '"') {
      for (at++; text[at] !== '"' || text[at + 1] === '"'; at++) {
        if (text[at] === '"') at++;
        cell += text[at];
      }
      at++;
    } else while (text[at] !== "," && text[at] !== "\r") cell += text[at++];
    cells.push(cell);
    if (text[at] === "\r") {
      strictEqual(text.slice(at), "\r\n");
      return cells;
    }
    strictEqual(text[at++], ",");
  }
}

Deno.test("a record reads back as it was, but for the sign in front of what would be a formula", () => {
  const cell = fc.string({
    unit: fc.constantFrom("a", ",", '"', "'", "\r", "\n", "=", "+", "-", "@", "\t", " ", "é"),
  });
  fc.assert(fc.property(fc.array(cell, { minLength: 1, maxLength: 6 }), (cells) => {
    const wanted = cells.map((text) => /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text);
    deepStrictEqual(readRecord(csvRecord(cells)), wanted);
  }));
});

Deno.test("no cell begins as a formula does, whatever a client has written", () => {
  for (
    const evil of ['=HYPERLINK("http://x")', "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
  ) {
    const record = csvRecord([evil, evil]);
    for (const cell of readRecord(record)) doesNotMatch(cell, /^[=+\-@\t\r\n]/);
    doesNotMatch(record, /(^|,)"?[=+\-@\t\r\n](?!\n$)/);
  }
});

Deno.test("numbers stand as they are, and nothing stands for null", () => {
  strictEqual(csvRecord([1, null, "x", ""]), "1,,x,\r\n");
});
