// Measure the model: how much of the bare runtime's speed is left behind the whole server, and the memory it takes.
import { type BareModel, openBareModel } from "./bare_model.ts";
import { type ChildServer, signIn } from "./child_server.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { cpuTime, residentMemory } from "./process_figures.ts";
import { startRealServer } from "./real_server.ts";
import { interleave, spreadOf, spreadOfPairs } from "./rounds.ts";
import { batchesOf } from "./sentences.ts";
import { aimAtLeast, percent, type TableRow } from "./table.ts";

const AIM_SHARE = 0.9;
const MODEL_ID = "use-lite";
const MODEL_FOLDER = `${import.meta.dirname}/../models/${MODEL_ID}`;

interface Case {
  /** Texts a request, and a call of the bare runtime. */
  readonly batch: number;
  readonly connections: number;
  readonly aimed: boolean;
}

/** Two requests keep the worker busy, one computed and one waiting. With more of one text the server joins them. */
const CASES: readonly Case[] = [
  { batch: 1, connections: 2, aimed: true },
  { batch: 8, connections: 2, aimed: true },
  { batch: 1, connections: 16, aimed: false },
];

export async function measureModel(means: PhaseMeans): Promise<PhaseFindings> {
  const server = startRealServer(`${means.folder}/real`);
  const bare = await openBareModel(MODEL_FOLDER);
  try {
    await server.answers("/readyz");
    const warm = await residentMemory(server.pid);
    const token = await signIn(server);
    const cases: TableRow[] = [];
    for (const each of CASES) cases.push(...await measureCase(means, server, token, bare, each));
    const loaded = await residentMemory(server.pid);
    return {
      rows: [
        { what: "MODEL, sentences of 10 words, 1 worker | bare ONNX runtime", ours: "" },
        ...cases,
        { what: "memory with the model, warm", ours: `${Math.round(warm.totalMiB)} MiB` },
        { what: "memory with the model, after load", ours: `${Math.round(loaded.totalMiB)} MiB` },
      ],
      notes: [
        "Bare runtime: one loop in a worker of its own over inputs tokenized beforehand, as many texts a call as a request " +
        "has. With 2 connections a run of the server has the texts of one request; with 16 it joins up to 8 requests.",
      ],
    };
  } finally {
    bare.close();
    await server.stop();
  }
}

async function measureCase(
  { effort, generator, progress }: PhaseMeans,
  { port, pid }: ChildServer,
  token: string,
  bare: BareModel,
  { batch, connections, aimed }: Case,
): Promise<TableRow[]> {
  const { warmUpMs, rounds: count, roundMs } = effort.model;
  const batches = batchesOf(batch);
  const bodies = batches.map((input) => JSON.stringify({ model: MODEL_ID, input }));
  const what = `${batch} a request, ${connections} connections`;
  const askServer = async (ms: number) => {
    const before = await cpuTime(pid);
    const { answers, elapsedMs } = await generator.run(
      { port, path: "/v1/embeddings", token, bodies },
      connections,
      ms,
    );
    const busyMs = (await cpuTime(pid)).busiestWorkerMs - before.busiestWorkerMs;
    return { perSecond: answers * batch * 1000 / elapsedMs, busy: busyMs / elapsedMs };
  };
  const askBare = async (ms: number) => ({ perSecond: await bare.textsPerSecond(batches, ms), busy: 1 });

  await askServer(warmUpMs);
  await askBare(warmUpMs);
  let round = 0;
  const rounds = await interleave(count, {
    server: () => {
      progress(`texts: ${what}, round ${++round} of ${count}`);
      return askServer(roundMs);
    },
    bare: () => askBare(roundMs),
  });
  const ratio = spreadOfPairs(rounds.server, rounds.bare, (left, right) => left.perSecond / right.perSecond);
  const median = (values: readonly { perSecond: number }[]) =>
    `${Math.round(spreadOf(values.map(({ perSecond }) => perSecond)).median)} /s`;
  return [
    {
      what: `texts/s, ${what}`,
      ours: median(rounds.server),
      beside: median(rounds.bare),
      ratio,
      ...(aimed ? { aim: aimAtLeast(ratio, AIM_SHARE) } : {}),
    },
    {
      what: "  inference worker on a processor",
      ours: percent(spreadOf(rounds.server.map(({ busy }) => busy)).median),
    },
  ];
}
