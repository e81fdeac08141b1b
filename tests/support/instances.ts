// Instances: several servers that share one real Redis, as behind a balancer, in front of one scripted upstream.
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { type RedisServer, startRedisServer } from "./redis_server.ts";
import {
  answerJson,
  type Script,
  type ScriptedUpstream,
  startScriptedUpstream,
} from "./scripted_upstream.ts";
import {
  environmentOfServers,
  flagsFor,
  freePort,
  type ServerUnderTest,
  startServerUnderTest,
} from "./server_under_test.ts";

/** What all of them call themselves: issuer and audience of tokens. */
export const PUBLIC_URL = "http://portcullis.test";
/** The model that the upstream serves. */
export const MODEL = "chatty";

const REDIS_USER = "portcullis";
const REDIS_PASSWORD = "hunter2hunter2";

export interface Instances {
  readonly servers: readonly ServerUnderTest[];
  readonly redis: RedisServer;
  readonly upstream: ScriptedUpstream;
  /** Sends a signal to the server at an index and waits for its end; its data folder stays. */
  stop(index: number, signal?: Deno.Signal): Promise<Deno.CommandStatus>;
  /** Starts one more that will not come up; what it said, and how it ended. */
  failToStart(
    settings?: Readonly<Record<string, string>>,
  ): Promise<{ readonly code: number; readonly said: string }>;
}

export interface InstancesOptions {
  /** Further settings of each server; as many servers start, all at the same moment. */
  readonly servers: readonly Readonly<Record<string, string>>[];
  /** Further settings of all. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Further arguments of redis-server. */
  readonly redisArgs?: readonly string[];
  /** Rules of the ACL user that the servers are; default: they are the one that may do all. */
  readonly redisRules?: readonly string[];
  /** Whether what Redis has answered survives its end. */
  readonly persistent?: boolean;
}

/** Starts all, lets `run` use them, ends and removes all. Loopback counts as a proxy: `X-Forwarded-For` says who comes. */
export async function withInstances(
  { servers: settings, variables = {}, redisArgs = [], redisRules, persistent = false }: InstancesOptions,
  run: (instances: Instances) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-instances-" });
  const user = redisRules === undefined
    ? []
    : ["--user", REDIS_USER, "on", `>${REDIS_PASSWORD}`, ...redisRules];
  const redis = await startRedisServer({ args: [...redisArgs, ...user], persistent });
  const upstream = await startScriptedUpstream();
  const common = {
    PORTCULLIS_PUBLIC_URL: PUBLIC_URL,
    PORTCULLIS_REDIS_URL: redisRules === undefined
      ? redis.url
      : `redis://${REDIS_USER}:${REDIS_PASSWORD}@127.0.0.1:${redis.port}`,
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
    await run({
      servers,
      redis,
      upstream,
      stop,
      failToStart: (own = {}) => failToStart({ ...common, ...own }, folder),
    });
  } finally {
    await Promise.all(servers.map((server) => server.stop("SIGKILL")));
    await upstream.close();
    await redis.stop();
    await Deno.remove(folder, { recursive: true });
  }
}

async function failToStart(
  common: Readonly<Record<string, string>>,
  folder: string,
): Promise<{ readonly code: number; readonly said: string }> {
  const variables = {
    ...common,
    PORTCULLIS_PORT: String(freePort()),
    PORTCULLIS_DATA_DIR: `${folder}/${crypto.randomUUID()}`,
  };
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", ...flagsFor(variables), "src/main.ts"],
    cwd: `${import.meta.dirname}/../..`,
    env: { ...environmentOfServers(), ...variables, NO_COLOR: "1" },
    clearEnv: true,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  return { code, said: new TextDecoder().decode(stderr) };
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
