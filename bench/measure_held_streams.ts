// Measure held streams: what the gate holds in memory for each stream that is open and slow, beside a bare Hono proxy.
import { holdStreams } from "./held_streams.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { cpuTime, residentMemory } from "./process_figures.ts";
import { type ProxyServers, startProxyServers } from "./proxy_servers.ts";
import { percent } from "./table.ts";

const WARM_UP_CONNECTIONS = 32;
/** Short, at any effort: a process that has grown under load before holds streams in memory that it has already. */
const WARM_UP_MS = 1000;

/** One server with all streams open. */
interface Held {
  readonly beforeMiB: number;
  readonly duringMiB: number;
  /** Share of a processor. */
  readonly busy: number;
  /** Of all streams together. */
  readonly eventsPerSecond: number;
}

export async function measureHeldStreams(means: PhaseMeans): Promise<PhaseFindings> {
  const { streams } = means.effort.heldStreams;
  const servers = await startProxyServers(`${means.folder}/held`);
  try {
    const bare = await hold(means, servers, "bare");
    const gate = await hold(means, servers, "gate");
    const mib = ({ beforeMiB, duringMiB }: Held) =>
      `${Math.round(beforeMiB)} -> ${Math.round(duringMiB)} MiB`;
    const each = ({ beforeMiB, duringMiB }: Held) =>
      `${((duringMiB - beforeMiB) * 1024 / streams).toFixed(1)} KiB`;
    return {
      rows: [
        { what: `HELD, ${streams} streams with a token a second | bare Hono proxy`, ours: "" },
        { what: "memory, resident, without and with them", ours: mib(gate), beside: mib(bare) },
        { what: "  for each stream", ours: each(gate), beside: each(bare) },
        { what: "processor, of one", ours: percent(gate.busy), beside: percent(bare.busy) },
        {
          what: "events/s that came",
          ours: `${Math.round(gate.eventsPerSecond)} /s`,
          beside: `${Math.round(bare.eventsPerSecond)} /s`,
        },
      ],
      notes: [],
    };
  } finally {
    await servers.stop();
  }
}

async function hold(
  { effort, generator, progress }: PhaseMeans,
  servers: ProxyServers,
  name: "bare" | "gate",
): Promise<Held> {
  const { streams, settleMs, holdMs } = effort.heldStreams;
  const { pid } = servers[name];
  // Code is compiled and buffers are made by then, as they are in any server that runs.
  progress(`warming up, ${name}`);
  await generator.run(
    servers.target(name, "stub-burst", true),
    WARM_UP_CONNECTIONS,
    WARM_UP_MS,
  );
  const before = await residentMemory(pid);
  progress(`${streams} streams, ${name}`);
  const held = await holdStreams(servers.target(name, "stub-slow", true), streams);
  await pause(settleMs);
  const [cpuBefore, startMs] = [await cpuTime(pid), performance.now()];
  await pause(holdMs);
  const [cpuAfter, elapsedMs] = [await cpuTime(pid), performance.now() - startMs];
  const during = await residentMemory(pid);
  const events = await held.leave();
  return {
    beforeMiB: before.totalMiB,
    duringMiB: during.totalMiB,
    busy: (cpuAfter.totalMs - cpuBefore.totalMs) / elapsedMs,
    eventsPerSecond: events * 1000 / (settleMs + holdMs),
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
