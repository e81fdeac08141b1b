// Tests of segment headers.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { formatHeader, parseHeader, type SegmentHeader } from "../../../src/audit/trail/segment_files.ts";
import { encodeUtf8 } from "../../../src/encoding/utf8.ts";

const HEADER: SegmentHeader = {
  segment: 3,
  origin: "portcullis.0123456789abcdef/0011223344556677",
  seq: 6,
  previous: "ab".repeat(32),
  range: ["cd".repeat(32), "ef".repeat(32)],
  open: [2, 5],
  time: "2026-01-02T03:04:05.006Z",
};
const LINE = formatHeader(HEADER);

function reasonFor(line: string): string {
  const header = parseHeader(encodeUtf8(line));
  return header.ok ? "no mistake" : header.reason;
}

Deno.test("a segment's header is the line that was written down for others to read, and reads back", () => {
  strictEqual(
    LINE,
    '{"format":2,"open":[2,5],"origin":"portcullis.0123456789abcdef/0011223344556677",' +
      `"previous":"${"ab".repeat(32)}","range":["${"cd".repeat(32)}","${"ef".repeat(32)}"],` +
      '"segment":3,"seq":6,"time":"2026-01-02T03:04:05.006Z"}',
  );
  deepStrictEqual(parseHeader(encodeUtf8(LINE)), {
    ok: true,
    value: { ...HEADER, format: 2 },
  });
});

Deno.test("parseHeader names what is wrong with a line", () => {
  const cases: [string, string][] = [
    ["", "not_json"],
    ["null", "not_a_header"],
    ["[]", "not_a_header"],
    ["{}", "not_a_header"],
    ['{"event":{},"hash":"","previous":"","seq":1,"time":""}', "older_format"],
    [LINE.replace('"format":2', '"format":1'), "not_a_header"],
    [LINE.replace('"format":2', '"extra":0,"format":2'), "not_a_header"],
    [LINE.replace("[2,5]", "[5,2]"), "not_a_header"],
    [LINE.replace("[2,5]", "[2,2]"), "not_a_header"],
    [LINE.replace("[2,5]", "[2,7]"), "not_a_header"],
    [LINE.replace("[2,5]", "[0,5]"), "not_a_header"],
    [LINE.replace("abab", "ABab"), "not_a_header"],
    [LINE.replace("cdcd", "cd"), "not_a_header"],
    [LINE.replace('"segment":3', '"segment":0'), "not_a_header"],
    [LINE.replace('"seq":6', '"seq":-6'), "not_a_header"],
    [LINE.replace("05.006Z", "05Z"), "not_a_header"],
    [LINE.replace("0123456789abcdef/", "x y/"), "not_a_header"],
    [` ${LINE}`, "not_canonical"],
    [LINE.replace('"seq":6', '"seq":6.0'), "not_canonical"],
    [LINE.replace('"seq":6', '"seq":7,"seq":6'), "not_canonical"],
  ];
  deepStrictEqual(cases.map(([line]) => reasonFor(line)), cases.map(([, reason]) => reason));
});
