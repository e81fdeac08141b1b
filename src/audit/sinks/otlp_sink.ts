// OTLP sink: entries as log records, OTLP/HTTP with the JSON encoding of protobuf (OTLP 1.x).
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { openHttpPost } from "./http_post.ts";
import { nanoseconds, type Severity, type ShippedEntry } from "./shipped_entry.ts";
import { type Sink, SinkFault } from "./sink.ts";
import type { OtlpOptions } from "./sink_options.ts";

/** SeverityNumber of the log data model; it has no "notice", INFO2 is its mapping of syslog's. */
const SEVERITY: Readonly<Record<Severity, readonly [number: number, text: string]>> = {
  informational: [9, "INFO"],
  notice: [10, "INFO2"],
  warning: [13, "WARN"],
};

/**
 * A sink of an OTLP receiver.
 *
 * @param rejected is told how many records the receiver took the request of and not them; it may not be asked again (OTLP, partial success)
 */
export function openOtlpSink(options: OtlpOptions, rejected: (records: number) => void): Sink<ShippedEntry> {
  const post = openHttpPost(options, `${options.url.replace(/\/+$/, "")}/v1/logs`, {
    "content-type": "application/json",
  });
  return {
    acknowledges: true,
    async send(entries) {
      const { text } = await post.send(
        JSON.stringify(exportRequest(entries)),
        entries.length,
      );
      const records = rejectedRecords(text);
      if (records > 0) rejected(records);
    },
    close() {
      post.close();
      return Promise.resolve(true);
    },
  };
}

/** An ExportLogsServiceRequest. 64-bit integers are texts, enumerations numbers, names in lower camel case. */
export function exportRequest(entries: readonly ShippedEntry[]): JsonValue {
  return {
    resourceLogs: [{
      resource: { attributes: [textOf("service.name", "portcullis")] },
      scopeLogs: [{ scope: { name: "portcullis.audit" }, logRecords: entries.map(logRecord) }],
    }],
  };
}

function logRecord(
  { seq, trail, time, hash, class: eventClass, type, severity, line }: ShippedEntry,
): JsonValue {
  const [severityNumber, severityText] = SEVERITY[severity];
  return {
    timeUnixNano: nanoseconds(time),
    observedTimeUnixNano: nanoseconds(time),
    severityNumber,
    severityText,
    // Older receivers know no eventName, and ignore it.
    eventName: `portcullis.audit.${type}`,
    body: { stringValue: line },
    attributes: [
      textOf("event.name", `portcullis.audit.${type}`),
      textOf("audit.trail", trail),
      { key: "audit.seq", value: { intValue: `${seq}` } },
      textOf("audit.hash", hash),
      textOf("audit.class", eventClass),
    ],
  };
}

function textOf(key: string, value: string): JsonValue {
  return { key, value: { stringValue: value } };
}

/** Of an ExportLogsServiceResponse; 0 where nothing is said. */
function rejectedRecords(text: string): number {
  if (text.trim() === "") return 0;
  let answer: { readonly partialSuccess?: { readonly rejectedLogRecords?: unknown } | null } | null;
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy that says 200 to everything must not swallow entries.
    throw new SinkFault("its answer is no answer of an OTLP receiver");
  }
  const records = Number(answer?.partialSuccess?.rejectedLogRecords ?? 0);
  return Number.isSafeInteger(records) && records > 0 ? records : 0;
}
