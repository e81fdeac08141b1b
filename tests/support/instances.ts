// Instances: several servers that share one real Redis, as behind a balancer, in front of one scripted upstream.
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { type RedisServer, startRedisServer } from "./redis_server.ts";
import {
  answerJson,
  type Script,
  type ScriptedUpstream,
  startScriptedUpstream,
} from "./scripted_upstream.ts";
import { type ServerUnderTest, startServerUnderTest } from "./server_under_test.ts";

/** What all of them call themselves: issuer and audience of tokens. */
export const PUBLIC_URL = "http://portcullis.test";
/** The model that the upstream serves. */
export const MODEL = "chatty";

export interface Instances {
  readonly servers: readonly ServerUnderTest[];
  readonly redis: RedisServer;
  readonly upstream: ScriptedUpstream;
  /** Sends a signal to the server at an index and waits for its end; its data folder stays. */
  stop(index: number, signal?: Deno.Signal): Promise<Deno.CommandStatus>;
}

export interface InstancesOptions {
  /** Further settings of each server; as many servers start, all at the same moment. */
  readonly servers: readonly Readonly<Record<string, string>>[];
  /** Further settings of all. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Further arguments of redis-server. */
  readonly redisArgs?: readonly string[];
  /** Whether what Redis has answered survives its end. */
  readonly persistent?: boolean;
}

/** Starts all, lets `run` use them, ends and removes all. Loopback counts as a proxy: `X-Forwarded-For` says who comes. */
export async function withInstances(
  { servers: settings, variables = {}, redisArgs = [], persistent = false }: InstancesOptions,
  run: (instances: Instances) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-instances-" });
  const redis = await startRedisServer({ args: redisArgs, persistent });
  const upstream = await startScriptedUpstream();
  const common = {
    PORTCULLIS_PUBLIC_URL: PUBLIC_URL,
    PORTCULLIS_REDIS_URL: redis.url,
    PORTCULLIS_MASTER_KEY: generateMasterKey(),
    PORTCULLIS_MODELS_DIR: `${folder}/no-models`,
    PORTCULLIS_TRUSTED_PROXIES: "127.0.0.1",
    PORTCULLIS_RATE_TOKEN_PER_MINUTE: "1000000",
    PORTCULLIS_UPSTREAMS: JSON.stringify([
      { name: "engine", kind: "openai", url: `${upstream.url}/v1`, healthSeconds: 3600 },
    ]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([
      { id: MODEL, capabilities: ["chat"], servedBy: [{ upstream: "engine" }] },
    ]),
    ...variables,
  };
  const servers: ServerUnderTest[] = [];
  const ended = new Map<number, Promise<Deno.CommandStatus>>();
  // Once: a second signal means hurry.
  const stop = (index: number, signal?: Deno.Signal): Promise<Deno.CommandStatus> => {
    const status = ended.get(index) ?? servers[index]?.stop(signal) ?? Promise.reject(new RangeError());
    ended.set(index, status);
    return status;
  };
  try {
    await Deno.mkdir(`${folder}/no-models`);
    const started = await Promise.allSettled(settings.map(async (own, index) => {
      const dataDir = `${folder}/${index}`;
      servers[index] = await startServerUnderTest({ dataDir, variables: { ...common, ...own } });
    }));
    for (const each of started) if (each.status === "rejected") throw each.reason;
    await Promise.all(servers.map((server) => server.whenReady()));
    await run({ servers, redis, upstream, stop });
  } finally {
    await Promise.all(servers.map((server) => server.stop("SIGKILL")));
    await upstream.close();
    await redis.stop();
    await Deno.remove(folder, { recursive: true });
  }
}

/** A chat whose upstream counts so many tokens. */
export function answerChat(inputTokens: number, outputTokens: number): Script {
  return answerJson({
    choices: [{ index: 0, message: { role: "assistant", content: "hello" }, finish_reason: "stop" }],
    usage: { prompt_tokens: inputTokens, completion_tokens: outputTokens },
  });
}

/** Answers when it is told to. */
export function whenTold(script: Script): { readonly script: Script; tell(): void } {
  const told = Promise.withResolvers<void>();
  return {
    script: async (reply, request) => {
      await Promise.race([told.promise, reply.closed]);
      await script(reply, request);
    },
    tell: () => told.resolve(),
  };
}
