// The bench: what the gate costs beside bare Hono, before a model here and before an engine elsewhere, what it costs to know who
// is calling, what limits cost alone and over Redis, and what the server leaves of the bare runtime's speed; or, with --against FOLDER, how this checkout's gate does beside
// another's. Linux only.
import { parseArgs } from "node:util";
import { printError, printLine } from "../src/telemetry/terminal.ts";
import { LoadGenerator } from "./load_generator.ts";
import { measureAgainst } from "./measure_against.ts";
import { measureAudit } from "./measure_audit.ts";
import { measureEmptyServer } from "./measure_empty_server.ts";
import { measureGate } from "./measure_gate.ts";
import { measureGateRedis } from "./measure_gate_redis.ts";
import { measureHeldStreams } from "./measure_held_streams.ts";
import { measureIdentity } from "./measure_identity.ts";
import { measureLimiter } from "./measure_limiter.ts";
import { measureModel } from "./measure_model.ts";
import { measureProxy } from "./measure_proxy.ts";
import { measureSealing } from "./measure_sealing.ts";
import { measureStart } from "./measure_start.ts";
import type { Effort, PhaseFindings, PhaseMeans } from "./phase.ts";
import { loadAverage } from "./process_figures.ts";
import { formatTable, type TableRow } from "./table.ts";

const FULL: Effort = {
  gate: { warmUpMs: 8000, rounds: 10, roundMs: 800 },
  limiter: { warmUpMs: 500, rounds: 16, roundMs: 100 },
  model: { warmUpMs: 2500, rounds: 11, roundMs: 650 },
  proxy: { warmUpMs: 24_000, rounds: 8, roundMs: 800 },
  heldStreams: { streams: 1000, settleMs: 6000, holdMs: 6000 },
  starts: 5,
  signIn: { warmUpMs: 3000, rounds: 8, roundMs: 1500 },
  authentication: { warmUpRounds: 10, rounds: 40 },
  against: { warmUpMs: 8000, rounds: 20, roundMs: 800 },
};
const QUICK: Effort = {
  gate: { warmUpMs: 2500, rounds: 3, roundMs: 400 },
  limiter: { warmUpMs: 200, rounds: 6, roundMs: 60 },
  model: { warmUpMs: 800, rounds: 4, roundMs: 300 },
  proxy: { warmUpMs: 6000, rounds: 3, roundMs: 400 },
  heldStreams: { streams: 1000, settleMs: 2500, holdMs: 2500 },
  starts: 2,
  signIn: { warmUpMs: 1000, rounds: 3, roundMs: 700 },
  authentication: { warmUpRounds: 5, rounds: 10 },
  against: { warmUpMs: 2500, rounds: 5, roundMs: 400 },
};

type Phase = readonly [name: string, measure: (means: PhaseMeans) => Promise<PhaseFindings>];

const PHASES: readonly Phase[] = [
  ["the gate beside bare Hono", measureGate],
  ["the gate with Redis beside the gate without", measureGateRedis],
  ["the gate beside a bare Hono proxy", measureProxy],
  ["the audit trail", measureAudit],
  ["streams held open", measureHeldStreams],
  ["a server without a model", measureEmptyServer],
  ["the model beside the bare runtime", measureModel],
  ["start to ready", measureStart],
  ["identity", measureIdentity],
  ["the limiter alone", measureLimiter],
  ["sealing model files", measureSealing],
];

async function bench(
  effort: Effort,
  phases: readonly Phase[],
  columns?: readonly [string, string],
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-bench-" });
  const generator = new LoadGenerator();
  const rows: TableRow[] = [];
  const notes: string[] = [];
  const loadBefore = await loadAverage();
  try {
    for (const [name, measure] of phases) {
      printError(`${name} …`);
      const found = await measure({ effort, folder, generator, progress: (text) => printError(`  ${text}`) });
      rows.push(...found.rows);
      notes.push(...found.notes);
    }
  } finally {
    generator.close();
    await Deno.remove(folder, { recursive: true });
  }
  printLine(
    `\nDeno ${Deno.version.deno} · ${navigator.hardwareConcurrency} cores · load average ${loadBefore} before, ` +
      `${await loadAverage()} after`,
  );
  printLine(formatTable(rows, columns));
  for (const note of notes) printLine(`- ${note}`);
}

const { quick, against, only } = parseArgs({
  args: Deno.args,
  options: {
    quick: { type: "boolean", default: false },
    against: { type: "string" },
    /** Part of the names of the phases that are wanted. */
    only: { type: "string", default: "" },
  },
}).values;
const effort = quick ? QUICK : FULL;
if (against === undefined) await bench(effort, PHASES.filter(([name]) => name.includes(only)));
else {
  const checkout = await Deno.realPath(against);
  const phase: Phase = ["this checkout's gate beside another's", (means) => measureAgainst(checkout, means)];
  await bench(effort, [phase], ["here", "there"]);
}
