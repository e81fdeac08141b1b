// Soak gate: the real server before the stub upstream, with policies of every kind and people whom they allow much or little.
import { generateMasterKey } from "../src/vault/master_key.ts";
import { benchFlags, type ChildServer, PASSWORD, signIn, startChildServer } from "./child_server.ts";
import { startRealServer } from "./real_server.ts";
import type { SoakModel } from "./soak_worker.ts";

/** Somebody with one credential. */
export interface SoakCaller {
  readonly name: string;
  readonly user: string;
  readonly userId: string;
  readonly team: string;
  /** The API key's id; null: an access token. */
  readonly key: string | null;
  readonly bearer: string;
  readonly connections: number;
}

/** A policy as the settings have it. */
export interface SoakPolicy {
  readonly name: string;
  readonly subject: "user" | "team" | "key";
  readonly for?: { readonly teams: readonly string[] };
  readonly [quota: `${string}Per${string}` | `${string}AtOnce`]: number;
}

export interface SoakGate {
  readonly server: ChildServer;
  readonly policies: readonly SoakPolicy[];
  readonly callers: readonly SoakCaller[];
  /** Ends the server first, so that its trail is whole. */
  stop(): Promise<void>;
}

export const PRICES = { inputPerMillion: 0.15, outputPerMillion: 0.6 };

/** Larger than what any soak uses up. */
const AMPLE_REQUESTS = 1_000_000_000;
const AMPLE_TOKENS = 1_000_000_000_000;
const AMPLE_COST = 1_000_000;
/** Used up by the frugal user in about a third of the time. */
const FRUGAL_TOKENS_PER_MINUTE_OF_SOAK = 50_000;
const SLOW_REQUESTS_PER_MINUTE = 600;
const NARROW_PLACES = 2;

/** More than the soak has under way. */
const UPSTREAM_REQUESTS_MAX = 10_000;
const MODELS: readonly SoakModel[] = ["stub-burst", "stub-endless"];

/** Who calls: 32 connections together. Users of the same name are one. */
const CALLERS: readonly {
  readonly user: string;
  readonly team: string;
  readonly withKey: boolean;
  readonly connections: number;
}[] = [
  { user: "open-1", team: "open", withKey: false, connections: 7 },
  { user: "open-2", team: "open", withKey: true, connections: 7 },
  { user: "two-keys", team: "keys", withKey: true, connections: 4 },
  { user: "two-keys", team: "keys", withKey: true, connections: 4 },
  { user: "slow", team: "slow", withKey: false, connections: 2 },
  { user: "frugal", team: "frugal", withKey: true, connections: 4 },
  { user: "narrow", team: "narrow", withKey: false, connections: 4 },
];

/** Policies of every subject that has a sum, and one of every kind of limit that refuses. */
function policiesOf(minutes: number): readonly SoakPolicy[] {
  const frugalTokens = Math.ceil(FRUGAL_TOKENS_PER_MINUTE_OF_SOAK * minutes);
  return [
    {
      name: "everybody",
      subject: "user",
      requestsPerDay: AMPLE_REQUESTS,
      tokensPerMonth: AMPLE_TOKENS,
      costPerDay: AMPLE_COST,
    },
    { name: "each-team", subject: "team", requestsPerMonth: AMPLE_REQUESTS, tokensPerDay: AMPLE_TOKENS },
    { name: "each-key", subject: "key", requestsPerDay: AMPLE_REQUESTS, costPerMonth: AMPLE_COST },
    {
      name: "slow",
      subject: "user",
      for: { teams: ["slow"] },
      requestsPerMinute: SLOW_REQUESTS_PER_MINUTE,
    },
    { name: "frugal", subject: "user", for: { teams: ["frugal"] }, tokensPerDay: frugalTokens },
    { name: "narrow", subject: "user", for: { teams: ["narrow"] }, requestsAtOnce: NARROW_PLACES },
  ];
}

/**
 * Starts it and makes the accounts.
 *
 * @param folder exists and is empty
 * @param options.redisUrl without it the store is embedded
 */
export async function startSoakGate(
  folder: string,
  { minutes, redisUrl }: { readonly minutes: number; readonly redisUrl: string | undefined },
): Promise<SoakGate> {
  await Deno.mkdir(`${folder}/no-models`);
  const upstream = startChildServer("bench/stub_upstream.ts", {}, benchFlags);
  const url = `http://127.0.0.1:${upstream.port}/v1`;
  const policies = policiesOf(minutes);
  const server = startRealServer(dataDirOf(folder), {
    PORTCULLIS_MODELS_DIR: `${folder}/no-models`,
    PORTCULLIS_LOG_LEVEL: "error",
    PORTCULLIS_UPSTREAMS: JSON.stringify([
      { name: "stub", kind: "openai", url, requestsAtOnceMax: UPSTREAM_REQUESTS_MAX },
    ]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify(
      MODELS.map((id) => ({
        id,
        capabilities: ["chat"],
        servedBy: [{ upstream: "stub" }],
        prices: PRICES,
      })),
    ),
    PORTCULLIS_LIMITS: JSON.stringify(policies),
    ...(redisUrl === undefined
      ? {}
      : { PORTCULLIS_REDIS_URL: redisUrl, PORTCULLIS_MASTER_KEY: generateMasterKey() }),
  });
  const stop = async (): Promise<void> => {
    await server.stop();
    await upstream.stop();
  };
  try {
    await upstream.answers("/v1/models");
    await server.answers("/readyz");
    return { server, policies, callers: await makeCallers(server), stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

/** Where the server keeps its data. */
export function dataDirOf(folder: string): string {
  return `${folder}/data`;
}

async function makeCallers(server: ChildServer): Promise<SoakCaller[]> {
  const admin = await signIn(server);
  for (const team of new Set(CALLERS.map(({ team }) => team))) {
    await post(server, admin, "/v1/teams", { id: team });
  }
  const users = new Map<string, { readonly userId: string; readonly token: string }>();
  const callers: SoakCaller[] = [];
  for (const { user, team, withKey, connections } of CALLERS) {
    let account = users.get(user);
    if (account === undefined) {
      const order = { username: user, password: PASSWORD, roles: ["user"], team };
      const { id } = await post(server, admin, "/v1/users", order);
      account = { userId: String(id), token: await signIn(server, user) };
      users.set(user, account);
    }
    const { userId, token } = account;
    const made = withKey
      ? await post(server, token, "/v1/keys", { name: "soak", scopes: ["model:infer", "usage:read/own"] })
      : undefined;
    callers.push({
      name: withKey ? `${user} (key ${callers.filter((caller) => caller.user === user).length + 1})` : user,
      user,
      userId,
      team,
      key: made === undefined ? null : String(made.id),
      bearer: made === undefined ? token : String(made.key),
      connections,
    });
  }
  return callers;
}

async function post(
  { port }: ChildServer,
  bearer: string,
  path: string,
  body: unknown,
): Promise<Readonly<Record<string, unknown>>> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${bearer}` },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (response.status !== 201) {
    throw new Error(`Cannot make ${path}: ${response.status} ${JSON.stringify(answer)}`);
  }
  return answer;
}
