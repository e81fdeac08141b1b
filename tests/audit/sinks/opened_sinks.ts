// Sinks under test: the real worker over a trail of the test, with what it says kept in lists.
import { type AuditSinks, openAuditSinks } from "../../../src/audit/sinks/audit_sinks.ts";
import type { HttpTarget, SinkOptions } from "../../../src/audit/sinks/sink_options.ts";
import type { Log, LogFields } from "../../../src/telemetry/log.ts";
import type { TrailFolder } from "../trail_folder.ts";

/** What was logged. */
export interface Logged {
  readonly level: string;
  readonly event: string;
  readonly fields: LogFields;
}

/** The sinks, and what came of them on this thread. */
export interface SinksUnderTest extends AuditSinks {
  readonly logged: readonly Logged[];
  /** All that was written to standard output. */
  printed(): string;
}

/** Opens sinks; the worker may reach `hosts` and nothing else. */
export function openSinksUnderTest(
  folder: TrailFolder,
  sinks: readonly SinkOptions[],
  hosts: readonly string[] = [],
  sealingKeys: () => ReadonlyMap<string, Uint8Array> = () => new Map(),
): SinksUnderTest {
  const logged: Logged[] = [];
  const log: Log = {
    write: (level, event, fields = {}) => void logged.push({ level, event, fields }),
    flush: () => Promise.resolve(),
  };
  let printed = "";
  const opened = openAuditSinks({
    directory: folder.directory,
    checkpointDirectory: folder.checkpointDirectory,
    cursorDirectory: `${folder.root}/sinks`,
    sinks,
    hosts,
    sealingKeys,
    log,
    standardOutput(bytes) {
      // As a pipe may: a part only.
      const part = bytes.subarray(0, Math.ceil(bytes.length / 2));
      printed += new TextDecoder().decode(part);
      return Promise.resolve(part.length);
    },
  });
  return { ...opened, logged, printed: () => printed };
}

/** An address without anything. */
export function target(url: string, more: Partial<HttpTarget> = {}): HttpTarget {
  return { url, headers: {}, username: undefined, secret: undefined, caCertificates: undefined, ...more };
}
