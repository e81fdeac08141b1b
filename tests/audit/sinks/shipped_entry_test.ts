// Tests of the form that receivers get, and of each protocol's form of it.
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { pushRequest } from "../../../src/audit/sinks/loki_sink.ts";
import { exportRequest } from "../../../src/audit/sinks/otlp_sink.ts";
import { nanoseconds, shippedEntry } from "../../../src/audit/sinks/shipped_entry.ts";
import { frames, syslogMessage } from "../../../src/audit/sinks/syslog_sink.ts";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";

const TRAIL = "portcullis.0123456789abcdef/00";
const HASH = "ab".repeat(32);
const TIME = "2026-01-02T03:04:05.006Z";

function entry(event: Record<string, JsonValue> | undefined, seq = 7) {
  return shippedEntry(TRAIL, { seq, time: TIME, hash: HASH, class: "security", event });
}

Deno.test("an entry's line is one JSON object with all of it, in printable ASCII, whatever is in the event", () => {
  fc.assert(fc.property(
    fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" })),
    (fields) => {
      const { line } = entry({ ...fields, type: "server.stopped" });
      match(line, /^[\x20-\x7e]+$/);
      deepStrictEqual(JSON.parse(line), {
        class: "security",
        event: JSON.parse(JSON.stringify({ ...fields, type: "server.stopped" })),
        hash: HASH,
        seq: 7,
        time: TIME,
        trail: TRAIL,
      });
    },
  ));
  strictEqual(
    entry({ type: "x", reason: "line\u2028 \u009b é \n 🔑 \u007f" }).line.includes("\\ud83d\\udd11"),
    true,
  );
});

Deno.test("an entry that nothing opens is told all the same, as sealed", () => {
  const { type, line } = entry(undefined);
  strictEqual(type, "sealed");
  strictEqual(JSON.parse(line).event, null);
});

Deno.test("whoever was kept out is a warning, what was done to the server a notice, its use informational", () => {
  const severityOf = (type: string, eventClass: "security" | "activity") =>
    shippedEntry(TRAIL, { seq: 1, time: TIME, hash: HASH, class: eventClass, event: { type } }).severity;
  strictEqual(severityOf("request.refused", "security"), "warning");
  strictEqual(severityOf("inference.interrupted", "activity"), "warning");
  strictEqual(severityOf("object.changed", "security"), "notice");
  strictEqual(severityOf("inference.finished", "activity"), "informational");
});

Deno.test("nanoseconds are exact to the last digit", () => {
  strictEqual(nanoseconds(TIME), "1767323045006000000");
});

Deno.test("a syslog message has the fields of RFC 5424 §6 in their order, and its frame counts octets", () => {
  const sender = { facility: 13, sender: "ai.example.com" };
  const shipped = entry({ type: "session.reuse_detected", session: "ses_é" });
  const message = syslogMessage(shipped, sender);
  // 13 × 8 + 4: log audit, warning.
  strictEqual(
    message,
    `<108>1 ${TIME} ai.example.com portcullis - session.reuse_detected - ${shipped.line}`,
  );
  strictEqual(syslogMessage(entry({ type: "x".repeat(40) }), sender).split(" ")[5], "x".repeat(32));
  const bytes = frames([shipped, shipped], sender);
  const length = new TextEncoder().encode(message).length;
  strictEqual(new TextDecoder().decode(bytes), `${length} ${message}${length} ${message}`);
});

Deno.test("OTLP: 64-bit numbers are texts, enumerations numbers, and the body is the line", () => {
  const shipped = entry({ type: "object.changed" }, 2 ** 40);
  deepStrictEqual(exportRequest([shipped]), {
    resourceLogs: [{
      resource: { attributes: [{ key: "service.name", value: { stringValue: "portcullis" } }] },
      scopeLogs: [{
        scope: { name: "portcullis.audit" },
        logRecords: [{
          timeUnixNano: "1767323045006000000",
          observedTimeUnixNano: "1767323045006000000",
          severityNumber: 10,
          severityText: "INFO2",
          eventName: "portcullis.audit.object.changed",
          body: { stringValue: shipped.line },
          attributes: [
            { key: "event.name", value: { stringValue: "portcullis.audit.object.changed" } },
            { key: "audit.trail", value: { stringValue: TRAIL } },
            { key: "audit.seq", value: { intValue: "1099511627776" } },
            { key: "audit.hash", value: { stringValue: HASH } },
            { key: "audit.class", value: { stringValue: "security" } },
          ],
        }],
      }],
    }],
  });
});

Deno.test("Loki: a stream a class, and entries of one millisecond have timestamps of their own, the same each time", () => {
  const some = [entry({ type: "a" }, 1), entry({ type: "b" }, 2), {
    ...entry({ type: "c" }, 3),
    class: "activity" as const,
  }];
  const request = pushRequest(some);
  deepStrictEqual(request, pushRequest(some));
  deepStrictEqual(request.streams.map(({ stream, values }) => [stream, values.map(([at]) => at)]), [
    [{ service: "portcullis", class: "security" }, ["1767323045006000001", "1767323045006000002"]],
    [{ service: "portcullis", class: "activity" }, ["1767323045006000003"]],
  ]);
  strictEqual(request.streams[0]?.values[1]?.[1], some[1]?.line);
});
