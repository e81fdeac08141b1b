// Audit sinks: starts the worker that ships the trail, keeps it going, and logs how the sinks are. Requests never wait for it.
import { type Log, type LogSink, wholeLines } from "../../telemetry/log.ts";
import { reasonOf } from "../trail/segment_files.ts";
import type { SinkOptions } from "./sink_options.ts";
import type { SinkWorkerReply, SinkWorkerRequest } from "./sink_worker.ts";

/** What is shipped, where to, and what the worker may reach. */
export interface AuditSinksOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** For the cursors, a file a sink; created when it is missing. */
  readonly cursorDirectory: string;
  readonly sinks: readonly SinkOptions[];
  /** Hosts and ports of all sinks, as permission flags write them. */
  readonly hosts: readonly string[];
  /** Raw sealing keys by their ids; empty for a trail that is not sealed. */
  readonly sealingKeys: () => ReadonlyMap<string, Uint8Array>;
  readonly log: Log;
  /** Takes the lines of a stdout sink; the log writes to the same. */
  readonly standardOutput: LogSink;
}

/** The sinks while they are open. */
export interface AuditSinks {
  /** Ships what is left where that works at once. What does not is shipped after the next start. Never rejects. */
  close(): Promise<void>;
}

/** What is left at the end, such as the record of the stop, gets so long. */
const GRACE_MS = 500;
/** Then the worker is ended whatever it does. */
const CLOSE_MS = 1000;
const RESTART_MS_FIRST = 1000;
const RESTART_MS_MAX = 60_000;

/**
 * Opens the sinks of a trail that is open. A sink that does not work keeps nobody from starting: the trail on disk is the sink
 * without which nothing runs.
 */
export function openAuditSinks(options: AuditSinksOptions): AuditSinks {
  const { log, cursorDirectory } = options;
  const standardOutput = wholeLines(options.standardOutput);
  Deno.mkdirSync(cursorDirectory, { recursive: true, mode: 0o700 });
  let worker: Worker | undefined;
  let restartMs = RESTART_MS_FIRST;
  let restartTimer: ReturnType<typeof setTimeout> | undefined;
  let closing: Promise<void> | undefined;
  const closed = Promise.withResolvers<void>();
  start();

  return {
    close() {
      return closing ??= close();
    },
  };

  function start(): void {
    const { directory, checkpointDirectory, sinks } = options;
    const started = startSinkWorker(options);
    worker = started;
    started.onmessage = ({ data }: MessageEvent<SinkWorkerReply>) => void take(started, data);
    started.onerror = (event) => {
      event.preventDefault(); // else it ends the server
      started.terminate();
      if (closing !== undefined) return closed.resolve();
      if (worker !== started) return;
      worker = undefined;
      log.write("error", "audit.sinks_ended", { reason: event.message });
      restartTimer = setTimeout(start, restartMs);
      restartMs = Math.min(2 * restartMs, RESTART_MS_MAX);
    };
    post(started, { kind: "keys", keys: options.sealingKeys() });
    post(started, { kind: "open", directory, checkpointDirectory, cursorDirectory, sinks });
  }

  async function take(from: Worker, reply: SinkWorkerReply): Promise<void> {
    switch (reply.kind) {
      case "state":
        restartMs = RESTART_MS_FIRST;
        return log.write(reply.state === "up" ? "info" : "warn", "audit.sink_state", {
          sink: reply.sink,
          state: reply.state,
          reason: reply.reason,
        });
      case "rewound":
        return log.write("warn", "audit.sink_rewound", { sink: reply.sink, reason: reply.reason });
      case "gone":
        return log.write("warn", "audit.sink_gap", {
          sink: reply.sink,
          entries: reply.entries,
          reason: reply.reason,
        });
      case "keys":
        return post(from, { kind: "keys", keys: options.sealingKeys() });
      case "lines":
        return post(from, { kind: "written", id: reply.id, reason: await write(reply.bytes) });
      case "closed":
        closed.resolve();
    }
  }

  /** Why not, or null. */
  async function write(bytes: Uint8Array<ArrayBuffer>): Promise<string | null> {
    try {
      await standardOutput(bytes);
      return null;
    } catch (thrown) {
      return reasonOf(thrown);
    }
  }

  async function close(): Promise<void> {
    clearTimeout(restartTimer);
    if (worker === undefined) return;
    const timer = setTimeout(() => closed.resolve(), CLOSE_MS);
    post(worker, { kind: "close", graceMs: GRACE_MS });
    await closed.promise;
    clearTimeout(timer);
    worker.terminate();
    worker = undefined;
  }
}

function startSinkWorker(
  { directory, checkpointDirectory, cursorDirectory, hosts }: AuditSinksOptions,
): Worker {
  return new Worker(new URL("./sink_worker.ts", import.meta.url), {
    type: "module",
    name: "audit-sinks",
    deno: {
      permissions: {
        read: [directory, checkpointDirectory, cursorDirectory],
        write: [cursorDirectory],
        // An empty list would be taken for all of them.
        net: hosts.length === 0 ? false : [...hosts],
      },
    },
  });
}

function post(worker: Worker, request: SinkWorkerRequest): void {
  worker.postMessage(request);
}
