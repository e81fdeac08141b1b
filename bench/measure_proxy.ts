// Measure the proxy: a chat through the gate to an engine elsewhere, beside a bare Hono proxy before the same engine.
import { deepStrictEqual } from "node:assert/strict";
import { cpuTime } from "./process_figures.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { type ProxyServers, startProxyServers } from "./proxy_servers.ts";
import { interleave, quantile, type Spread, spreadOf, spreadOfPairs } from "./rounds.ts";
import { countOfConnections, cpuRow, medianOf, rateRow, runRound, type ServerRound } from "./server_round.ts";
import { STUB_TOKENS, type StubModel } from "./stub_answers.ts";
import { aimAtLeast, aimBelow, percent, type TableRow } from "./table.ts";

const ADDED_MS_MAX = 1;
const WARM_UP_CONNECTIONS = 32;
const WARM_UP_TURN_MS = 500;

interface Case {
  readonly what: string;
  readonly model: StubModel;
  readonly stream: boolean;
  readonly connections: number;
  /** Of the bare proxy's throughput. */
  readonly share?: number;
  /** Whether what the gate adds to the first byte is held against the aim. */
  readonly firstByteAimed?: boolean;
}

const CASES: readonly Case[] = [
  { what: "chats", model: "stub-burst", stream: false, connections: 1 },
  { what: "chats", model: "stub-burst", stream: false, connections: 32, share: 0.5 },
  { what: "streams in a burst", model: "stub-burst", stream: true, connections: 1 },
  { what: "streams in a burst", model: "stub-burst", stream: true, connections: 32, share: 0.7 },
  { what: "streams, 1 ms a token", model: "stub-paced", stream: true, connections: 1, firstByteAimed: true },
  { what: "streams, 1 ms a token", model: "stub-paced", stream: true, connections: 32, share: 0.7 },
];

/** With the upstream's own processor time for each request, microseconds. */
interface ProxyRound extends ServerRound {
  readonly stubCpu: number;
}

type Rounds = Readonly<Record<"bare" | "gate", readonly ProxyRound[]>>;

export async function measureProxy(means: PhaseMeans): Promise<PhaseFindings> {
  const { folder, progress } = means;
  const servers = await startProxyServers(`${folder}/proxy`);
  try {
    progress("warming up");
    await warmUp(means, servers);
    await requireSameAnswers(servers);
    const rows: TableRow[] = [
      { what: `PROXY, stub engine, ${STUB_TOKENS} tokens | bare Hono proxy`, ours: "" },
    ];
    const notes: string[] = [];
    for (const each of CASES) {
      const rounds = await measureCase(means, servers, each);
      rows.push(...describeRounds(each, rounds));
      notes.push(describeLimit(each, rounds));
    }
    const syncMs = spreadOf(await timesToTheDisk(`${folder}/sync`));
    notes.push(
      "Proxy: the real server with token, rates, strict body, SQLite store, two audit records a request, each on the disk before the " +
        "answer, respectively before the stream's last event. First byte: of the body. " +
        `On this disk a record of 400 bytes takes ${describeMs(syncMs)} ` +
        "to be durable: write and fdatasync alone, with pauses between.",
    );
    return { rows, notes };
  } finally {
    await servers.stop();
  }
}

/** In turns: of two equal servers, one that was warmed first and then idled has measured worse. */
async function warmUp({ effort, generator }: PhaseMeans, servers: ProxyServers): Promise<void> {
  const { warmUpMs } = effort.proxy;
  for (let warmMs = 0; warmMs < warmUpMs; warmMs += WARM_UP_TURN_MS) {
    for (const [name, share] of [["bare", 0.2], ["gate", 0.8]] as const) {
      for (const stream of [false, true]) {
        const target = servers.target(name, "stub-burst", stream);
        await generator.run(target, WARM_UP_CONNECTIONS, WARM_UP_TURN_MS * share / 2);
      }
    }
  }
}

/** Servers that answer different things are not to be compared. */
async function requireSameAnswers(servers: ProxyServers): Promise<void> {
  for (const stream of [false, true]) {
    const [bare, gate] = await Promise.all((["bare", "gate"] as const).map(async (name) => {
      const { port, path, token, bodies } = servers.target(name, "stub-burst", stream);
      const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
      const url = `http://127.0.0.1:${port}${path}`;
      const response = await fetch(url, { method: "POST", headers, body: bodies?.[0] ?? null });
      return stream ? textOfStream(await response.text()) : textOfAnswer(await response.json());
    }));
    deepStrictEqual(gate, bare);
  }
}

type Said = readonly [text: string, finish: string | null, usage: unknown];

function textOfAnswer({ choices: [choice], usage }: WholeChat): Said {
  return [choice?.message.content ?? "", choice?.finish_reason ?? null, usage];
}

function textOfStream(events: string): Said {
  const chunks = [...events.matchAll(/^data: (\{.*)$/gm)].map(([, json = "{}"]): ChatChunk =>
    JSON.parse(json)
  );
  return [
    chunks.map(({ choices: [choice] }) => choice?.delta.content ?? "").join(""),
    chunks.map(({ choices: [choice] }) => choice?.finish_reason ?? "").join(""),
    chunks.map(({ usage }) => usage).find((usage) => usage !== undefined && usage !== null),
  ];
}

interface WholeChat {
  readonly choices: readonly {
    readonly message: { readonly content: string };
    readonly finish_reason: string;
  }[];
  readonly usage: unknown;
}

interface ChatChunk {
  readonly choices: readonly {
    readonly delta: { readonly content?: string };
    readonly finish_reason: string | null;
  }[];
  readonly usage?: unknown;
}

async function measureCase(
  { effort, generator, progress }: PhaseMeans,
  servers: ProxyServers,
  { what, model, stream, connections }: Case,
): Promise<Rounds> {
  const { rounds, roundMs } = effort.proxy;
  const run = async (name: "bare" | "gate"): Promise<ProxyRound> => {
    const before = await cpuTime(servers.stub.pid);
    const target = servers.target(name, model, stream);
    const round = await runRound(generator, servers[name].pid, target, connections, roundMs);
    const { totalMs } = await cpuTime(servers.stub.pid);
    return { ...round, stubCpu: (totalMs - before.totalMs) * 1000 / (round.perSecond * roundMs / 1000) };
  };
  let round = 0;
  return await interleave(rounds, {
    bare: () => {
      progress(`${what}, ${countOfConnections(connections)}, round ${++round} of ${rounds}`);
      return run("bare");
    },
    gate: () => run("gate"),
  });
}

function describeRounds(each: Case, { bare, gate }: Rounds): TableRow[] {
  const { what, connections, share } = each;
  const at = `${what}, ${countOfConnections(connections)}`;
  const rate = rateRow(`${at}`, gate, bare);
  return [
    share === undefined ? rate : { ...rate, aim: aimAtLeast(rate.ratio, share) },
    cpuRow("  CPU a request", gate, bare, "total"),
    cpuRow("  of it the main thread", gate, bare, "main"),
    ...(each.stream && connections === 1 ? firstByteRows(each, { bare, gate }) : []),
  ];
}

function firstByteRows({ firstByteAimed }: Case, { bare, gate }: Rounds): TableRow[] {
  const quantiles = [["median", 0.5], ["95 %", 0.95]] as const;
  return quantiles.map(([name, share]): TableRow => {
    const at = ({ firstByteMs }: ServerRound) => quantile(firstByteMs, share);
    const added = spreadOfPairs(gate, bare, (left, right) => at(left) - at(right));
    return {
      what: `  added to the first byte, ${name}`,
      ours: describeMs(added),
      beside: `${spreadOf(bare.map(at)).median.toFixed(2)} ms`,
      ...(firstByteAimed === true && share === 0.5
        ? { aim: aimBelow(added.median, ADDED_MS_MAX, "ms") }
        : {}),
    };
  });
}

/** Who was the bottleneck: all share the processors. */
function describeLimit({ what, connections }: Case, { bare, gate }: Rounds): string {
  const busy = (rounds: readonly ProxyRound[]) => percent(medianOf(rounds, ({ mainBusy }) => mainBusy));
  const stub = (rounds: readonly ProxyRound[]) => {
    const microseconds = spreadOf(rounds.map(({ stubCpu }) => stubCpu)).median;
    return `${Math.round(microseconds)} µs`;
  };
  return `Proxy, ${what}, ${countOfConnections(connections)}: main thread busy: bare ${busy(bare)}, gate ${
    busy(gate)
  }; ` +
    `the stub itself takes ${stub(bare)} a request behind the bare proxy, ${stub(gate)} behind the gate.`;
}

function describeMs({ median, lowest, highest }: Spread): string {
  return `${median.toFixed(2)} ms (${lowest.toFixed(2)}-${highest.toFixed(2)})`;
}

/** How long a record of the trail takes at least, where the disk has rested before, as it has at one connection. */
async function timesToTheDisk(path: string): Promise<number[]> {
  using file = await Deno.open(path, { create: true, append: true });
  const line = new Uint8Array(400).fill(0x20);
  const times: number[] = [];
  for (let record = 0; record < 100; record++) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    const startMs = performance.now();
    file.writeSync(line);
    file.syncDataSync();
    times.push(performance.now() - startMs);
  }
  return times;
}
