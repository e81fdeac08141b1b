// Sink worker: brings the trail to all sinks, on a thread of its own that may reach them and nothing else.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { reasonOf } from "../trail/segment_files.ts";
import { systemClock } from "../../time/clock.ts";
import { openEntryFeed, type SealingKeys } from "./entry_feed.ts";
import { openLokiSink } from "./loki_sink.ts";
import { openNoteFeed } from "./note_feed.ts";
import { openOtlpSink } from "./otlp_sink.ts";
import { openRedisStreamSink } from "./redis_stream_sink.ts";
import type { ShippedEntry } from "./shipped_entry.ts";
import { Shipper, type ShipperWatch } from "./shipper.ts";
import { type Sink, SinkFault } from "./sink.ts";
import { openSinkCursor } from "./sink_cursor.ts";
import type { SinkOptions } from "./sink_options.ts";
import { openStdoutSink } from "./stdout_sink.ts";
import { openSyslogSink } from "./syslog_sink.ts";
import { openWitnessSink } from "./witness_sink.ts";

/** What the worker is told. */
export type SinkWorkerRequest =
  | {
    readonly kind: "open";
    readonly directory: string;
    readonly checkpointDirectory: string;
    readonly cursorDirectory: string;
    readonly sinks: readonly SinkOptions[];
  }
  /** The answer to a question for keys. */
  | { readonly kind: "keys"; readonly keys: ReadonlyMap<string, Uint8Array> }
  /** The answer to lines. */
  | { readonly kind: "written"; readonly id: number; readonly reason: string | null }
  | { readonly kind: "close"; readonly graceMs: number };

/** What the worker says. */
export type SinkWorkerReply =
  | {
    readonly kind: "state";
    readonly sink: string;
    readonly state: "up" | "down";
    readonly reason: string | null;
  }
  | { readonly kind: "rewound"; readonly sink: string; readonly reason: string }
  | { readonly kind: "gone"; readonly sink: string; readonly entries: number; readonly reason: string }
  /** A question: which sealing keys are there now? */
  | { readonly kind: "keys" }
  /** Whole lines for standard output. */
  | { readonly kind: "lines"; readonly id: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly kind: "closed" };

const shippers: { close(graceMs: number): Promise<void> }[] = [];
let sealingKeys: ReadonlyMap<string, Uint8Array> = new Map();
let keysAsked: PromiseWithResolvers<void> | undefined;
const writing = new Map<number, PromiseWithResolvers<void>>();
let lastWriteId = 0;

self.onmessage = ({ data }: MessageEvent<SinkWorkerRequest>) => {
  switch (data.kind) {
    case "open":
      for (const sink of data.sinks) open(sink, data);
      return;
    case "keys":
      sealingKeys = data.keys;
      keysAsked?.resolve();
      keysAsked = undefined;
      return;
    case "written": {
      const waiting = writing.get(data.id);
      writing.delete(data.id);
      if (data.reason === null) waiting?.resolve();
      else waiting?.reject(new SinkFault(data.reason));
      return;
    }
    case "close":
      void Promise.all(shippers.map((shipper) => shipper.close(data.graceMs))).then(() =>
        say({ kind: "closed" })
      );
  }
};

const keys: SealingKeys = {
  known: () => sealingKeys,
  refresh() {
    if (keysAsked === undefined) {
      keysAsked = Promise.withResolvers();
      say({ kind: "keys" });
    }
    return keysAsked.promise;
  },
};

/** One that cannot be opened holds no other. */
function open(sink: SinkOptions, folders: Extract<SinkWorkerRequest, { kind: "open" }>): void {
  try {
    const shipper = shipperOf(sink, folders);
    shippers.push(shipper);
    shipper.start();
  } catch {
    // The error's own text may quote the secret.
    const reason = "it cannot be opened: its certificates, secret or header fields cannot be used";
    say({ kind: "state", sink: sink.name, state: "down", reason });
  }
}

function shipperOf(options: SinkOptions, folders: Extract<SinkWorkerRequest, { kind: "open" }>) {
  const { directory, checkpointDirectory, cursorDirectory } = folders;
  const { name, from } = options;
  const watch: ShipperWatch = {
    stateChanged: (state, reason) => say({ kind: "state", sink: name, state, reason }),
    rewound: (reason) => say({ kind: "rewound", sink: name, reason }),
    gone: (entries) => say({ kind: "gone", sink: name, entries, reason: "taken out of the trail before" }),
  };
  const parts = { cursor: openSinkCursor(cursorDirectory, name), from, clock: systemClock, watch };
  if (options.kind === "witness") {
    return new Shipper({ ...parts, feed: openNoteFeed(checkpointDirectory), sink: openWitnessSink(options) });
  }
  return new Shipper({
    ...parts,
    feed: openEntryFeed({ directory, checkpointDirectory, keys, classes: options.classes }),
    sink: entrySink(options),
  });
}

function entrySink(options: Exclude<SinkOptions, { kind: "witness" }>): Sink<ShippedEntry> {
  switch (options.kind) {
    case "stdout":
      return openStdoutSink(writeLines);
    case "otlp":
      return openOtlpSink(
        options,
        (entries) => say({ kind: "gone", sink: options.name, entries, reason: "rejected by the receiver" }),
      );
    case "loki":
      return openLokiSink(options);
    case "syslog":
      return openSyslogSink(options);
    case "redis_stream":
      return openRedisStreamSink(options);
  }
}

/** The thread that writes the log writes these too: two threads on one pipe could tear each other's lines. */
function writeLines(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const id = ++lastWriteId;
  const settled = Promise.withResolvers<void>();
  writing.set(id, settled);
  try {
    say({ kind: "lines", id, bytes }, [bytes.buffer]);
  } catch (thrown) {
    writing.delete(id);
    return Promise.reject(new SinkFault(reasonOf(thrown)));
  }
  return settled.promise;
}

function say(reply: SinkWorkerReply, transfer: Transferable[] = []): void {
  self.postMessage(reply, transfer);
}
