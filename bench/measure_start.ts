// Measure the start: from the start of the process to the answer that a load balancer waits for.
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { startRealServer } from "./real_server.ts";
import { spreadOf } from "./rounds.ts";
import { aimBelow } from "./table.ts";

const READY_SECONDS_MAX = 3;

/** The first start, which made keys, store and first user, was `measureModel`'s. */
export async function measureStart({ effort, folder, progress }: PhaseMeans): Promise<PhaseFindings> {
  const listeningMs: number[] = [];
  const readyMs: number[] = [];
  for (let start = 1; start <= effort.starts; start++) {
    progress(`start ${start} of ${effort.starts}`);
    const server = startRealServer(`${folder}/real`);
    try {
      listeningMs.push(await server.answers("/healthz"));
      readyMs.push(await server.answers("/readyz"));
    } finally {
      await server.stop();
    }
  }
  const seconds = (values: readonly number[]) => {
    const { median, lowest, highest } = spreadOf(values);
    const [middle, low, high] = [median, lowest, highest].map((ms) => (ms / 1000).toFixed(2));
    return { median: median / 1000, text: `${middle} s (${low}-${high})` };
  };
  const listening = seconds(listeningMs), ready = seconds(readyMs);
  return {
    rows: [
      { what: "START of a process that has run before", ours: "" },
      { what: "until it listens", ours: listening.text },
      {
        what: "until the model is warm (/readyz 200)",
        ours: ready.text,
        aim: aimBelow(ready.median, READY_SECONDS_MAX, "s"),
      },
    ],
    notes: [],
  };
}
