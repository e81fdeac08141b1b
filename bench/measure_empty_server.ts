// Measure an empty server: what a server without a model holds in memory.
import { signIn } from "./child_server.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { residentMemory } from "./process_figures.ts";
import { startRealServer } from "./real_server.ts";
import { aimBelow } from "./table.ts";

const MEMORY_MIB_MAX = 150;
const CONNECTIONS = 32;

export async function measureEmptyServer({ effort, folder, generator }: PhaseMeans): Promise<PhaseFindings> {
  const modelsDir = `${folder}/no-models`;
  await Deno.mkdir(modelsDir);
  const server = startRealServer(`${folder}/empty`, { PORTCULLIS_MODELS_DIR: modelsDir });
  try {
    await server.answers("/readyz");
    const token = await signIn(server);
    const started = await residentMemory(server.pid);
    const target = { port: server.port, path: "/v1/models", token };
    await generator.run(target, CONNECTIONS, effort.gate.warmUpMs / 2);
    const loaded = await residentMemory(server.pid);
    return {
      rows: [
        { what: "MEMORY, resident", ours: "" },
        {
          what: "no model, started and signed in",
          ours: `${Math.round(started.totalMiB)} MiB`,
          aim: aimBelow(started.totalMiB, MEMORY_MIB_MAX, "MiB"),
        },
        { what: `no model, after load (GET ${target.path})`, ours: `${Math.round(loaded.totalMiB)} MiB` },
      ],
      notes: [
        `Resident memory counts the mapped pages of the deno binary as well; without them (RssAnon) the server without a ` +
        `model has ${Math.round(started.anonymousMiB)} MiB, after load ${
          Math.round(loaded.anonymousMiB)
        } MiB.`,
      ],
    };
  } finally {
    await server.stop();
  }
}
