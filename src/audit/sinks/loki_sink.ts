// Loki sink: entries as log lines, by Loki's push API with JSON.
import { openHttpPost } from "./http_post.ts";
import type { ShippedEntry } from "./shipped_entry.ts";
import type { Sink } from "./sink.ts";
import type { LokiOptions } from "./sink_options.ts";

/** A sink of a Loki. */
export function openLokiSink(options: LokiOptions): Sink<ShippedEntry> {
  const post = openHttpPost(options, `${options.url.replace(/\/+$/, "")}/loki/api/v1/push`, {
    "content-type": "application/json",
    ...(options.tenant === undefined ? {} : { "x-scope-orgid": options.tenant }),
  });
  return {
    acknowledges: true,
    async send(entries) {
      await post.send(JSON.stringify(pushRequest(entries)), entries.length);
    },
    close() {
      post.close();
      return Promise.resolve(true);
    },
  };
}

/** Streams have few labels: each combination of values is an index entry of its own. */
export function pushRequest(entries: readonly ShippedEntry[]): {
  readonly streams: readonly {
    readonly stream: Readonly<Record<string, string>>;
    readonly values: readonly (readonly [nanoseconds: string, line: string])[];
  }[];
} {
  const byClass = Map.groupBy(entries, (entry) => entry.class);
  return {
    streams: [...byClass].map(([eventClass, some]) => ({
      stream: { service: "portcullis", class: eventClass },
      values: some.map((entry) => [timestamp(entry), entry.line] as const),
    })),
  };
}

/**
 * The number of the entry fills up the nanoseconds: entries of one millisecond stay in order, and one that is sent twice is the very
 * same to Loki, which then keeps it once.
 */
function timestamp({ time, seq }: ShippedEntry): string {
  return `${BigInt(Date.parse(time)) * 1_000_000n + BigInt(seq % 1_000_000)}`;
}
