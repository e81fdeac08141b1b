// Stub gate: the gate before the stub model, in a process of its own, and the one request that is sent to it.
import { deepStrictEqual } from "node:assert/strict";
import { generateMasterKey } from "../src/vault/master_key.ts";
import type { BenchTrail } from "./bench_trail.ts";
import { benchFlags, CHECKOUT, type ChildServer, startChildServer } from "./child_server.ts";
import type { LoadTarget } from "./load_generator.ts";
import { STUB_ID } from "./stub_model.ts";

const BODY = JSON.stringify({ model: STUB_ID, input: "The quick brown fox jumps over the lazy old dog." });

/**
 * @param options.modelsDir the stub's card is in it
 * @param options.redisUrl without it the store is embedded
 * @param options.checkout whose gate it is; this one's by default
 */
export function startStubGate(
  { dataDir, modelsDir, logLevel = "error", redisUrl, trail, checkout = CHECKOUT }: {
    readonly dataDir: string;
    readonly modelsDir: string;
    readonly logLevel?: "error" | "info";
    readonly redisUrl?: string;
    /** Default: the server's own. */
    readonly trail?: BenchTrail;
    readonly checkout?: string;
  },
): ChildServer {
  const settings = {
    PORTCULLIS_DATA_DIR: dataDir,
    PORTCULLIS_MODELS_DIR: modelsDir,
    PORTCULLIS_LOG_LEVEL: logLevel,
    ...(redisUrl === undefined
      ? {}
      : { PORTCULLIS_REDIS_URL: redisUrl, PORTCULLIS_MASTER_KEY: generateMasterKey() }),
  };
  return startChildServer(
    "bench/gate_server.ts",
    settings,
    benchFlags,
    checkout,
    trail === undefined ? [] : [trail],
  );
}

/** One short text to be embedded. */
export function embeddingsTarget({ port }: ChildServer, token?: string): LoadTarget {
  return { port, path: "/v1/embeddings", bodies: [BODY], ...(token === undefined ? {} : { token }) };
}

/** Servers that answer different things are not to be compared. Throws AssertionError. */
export async function requireSameAnswer(targets: readonly LoadTarget[]): Promise<void> {
  const answers = await Promise.all(targets.map(async ({ port, path, token, bodies }) => {
    const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
    const body = bodies?.[0] ?? null;
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", headers, body });
    return await response.json();
  }));
  for (const answer of answers) deepStrictEqual(answer, answers[0]);
}
