// Upstream under test: a scripted server, an upstream opened on it, and bounds for its calls; all of it is closed at the end.
import { openUpstream, type Upstream, type UpstreamEvents } from "../../../src/engines/upstream/upstream.ts";
import type { UpstreamSettings } from "../../../src/engines/upstream/upstream_settings.ts";
import type { Wire } from "../../../src/engines/upstream/wire.ts";
import type { RunBounds } from "../../../src/engines/engine.ts";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { systemClock } from "../../../src/time/clock.ts";
import { type ScriptedUpstream, startScriptedUpstream } from "../../support/scripted_upstream.ts";
import { createTestWire } from "./test_wire.ts";

/** Settings with time-outs that no test reaches by chance. */
export function settingsOf(url: string, changes: Partial<UpstreamSettings> = {}): UpstreamSettings {
  return {
    name: "gpu1",
    kind: "openai",
    url,
    key: undefined,
    caCertificates: undefined,
    requestsAtOnceMax: 8,
    connectTimeoutMs: 10_000,
    firstByteTimeoutMs: 20_000,
    betweenBytesTimeoutMs: 20_000,
    wholeTimeoutMs: 60_000,
    answerBytesMax: 1_000_000,
    usageInStreams: true,
    healthPath: undefined,
    healthSeconds: 3_600,
    ...changes,
  };
}

/** What a test gets. */
export interface Setting {
  readonly server: ScriptedUpstream;
  readonly upstream: Upstream;
}

/** Runs a test with an upstream on a scripted server. */
export async function withUpstream(
  changes: Partial<UpstreamSettings>,
  test: (setting: Setting) => Promise<void>,
  parts: { wire?: Wire; events?: UpstreamEvents; prepare?: (server: ScriptedUpstream) => void } = {},
): Promise<void> {
  const server = await startScriptedUpstream();
  parts.prepare?.(server);
  const upstream = openUpstream(
    settingsOf(server.url, changes),
    parts.wire ?? createTestWire(),
    systemClock,
    parts.events,
  );
  try {
    await test({ server, upstream });
  } finally {
    await upstream.close();
    await server.close();
  }
}

/** Bounds of a run. */
export function within(timeoutMs = 60_000, signal = new AbortController().signal): RunBounds {
  return { signal, deadlineMs: systemClock.monotonic() + timeoutMs, trace: { servedBy: null, attempts: 0 } };
}

/** Whether something thrown is a Fault of a kind. */
export function isFault(kind: FaultKind): (thrown: unknown) => boolean {
  return (thrown) => {
    if (thrown instanceof Fault && thrown.kind === kind) return true;
    throw new Error(`expected a Fault ${kind}`, { cause: thrown });
  };
}

/** The Fault that a promise rejects with. */
export async function faultOf(promise: Promise<unknown>): Promise<Fault> {
  try {
    await promise;
  } catch (thrown) {
    if (thrown instanceof Fault) return thrown;
    throw new Error("expected a Fault", { cause: thrown });
  }
  throw new Error("expected a Fault, and nothing was thrown");
}

/** Waits until something holds. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}
