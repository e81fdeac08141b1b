// Find Redis: connects to whoever carries the keys now: the one server, the master that sentinels name, or a cluster's node.
import { decodeUtf8 } from "../../encoding/utf8.ts";
import {
  type ConnectionOptions,
  connectRedis,
  nameOf,
  plainWords,
  type RedisConnection,
  type RedisEndpoint,
  RedisErrorReply,
} from "./redis_connection.ts";
import type { RedisReply } from "./redis.ts";

/** Where Redis is, as whom it is asked, and how long it may take. */
export interface RedisSettings {
  readonly address: {
    readonly topology: "single" | "sentinel" | "cluster";
    readonly tls: boolean;
    /** The server, the sentinels, or nodes of the cluster. */
    readonly hosts: readonly RedisEndpoint[];
    readonly username: string | null;
    readonly password: string | null;
    readonly database: number;
    /** The name that sentinels have for the master. */
    readonly masterName: string | null;
  };
  /** What the names of all keys begin with. */
  readonly prefix: string;
  /** PEM; undefined: those that the machine trusts. */
  readonly caCertificates: string | undefined;
  /** Time within which a command is answered. */
  readonly timeoutMs: number;
}

/** Connects anew, each time that it is called. */
export type FindRedis = () => Promise<RedisConnection>;

/** From a node that no longer carries the keys to the one that does, which may itself have lost them meanwhile. */
const REDIRECTIONS_MAX = 3;
/** Error answers of a server that is there and may be written to again at any time. */
const PASSING_CODES: readonly string[] = ["MISCONF", "NOREPLICAS", "ASK"];

/** The name of a key: the braces make a cluster keep all keys of an installation together. */
export function keyName(prefix: string, name: string): string {
  return `{${prefix}}:${name}`;
}

/**
 * Prepares the search. What it finds has proved that it may be written to: a master that has become a replica is not found.
 *
 * The search throws an Error whose message names each host that was tried and says why not, in plain words.
 */
export function findRedis({ address, prefix, caCertificates, timeoutMs }: RedisSettings): FindRedis {
  const options: ConnectionOptions = {
    tls: address.tls,
    caCertificates,
    username: address.username,
    password: address.password,
    database: address.database,
    timeoutMs,
  };
  /** Whoever answered last is asked first. */
  let preferred: RedisEndpoint | undefined;
  const searchFrom = {
    single: (host: RedisEndpoint) => connectToWriter(host, 0),
    cluster: (host: RedisEndpoint) => connectToWriter(host, REDIRECTIONS_MAX),
    sentinel: async (host: RedisEndpoint) => await connectToWriter(await askSentinel(host), 0),
  }[address.topology];

  return async () => {
    const hosts = address.hosts.filter((host) => host !== preferred);
    if (preferred !== undefined) hosts.unshift(preferred);
    const failures: string[] = [];
    for (const host of hosts) {
      try {
        const connection = await searchFrom(host);
        preferred = address.topology === "cluster" ? connection.endpoint : host;
        return connection;
      } catch (error) {
        failures.push(error instanceof Error ? error.message : "unknown error");
      }
    }
    throw new Error(failures.join("; "));
  };

  async function connectToWriter(endpoint: RedisEndpoint, redirectionsMax: number): Promise<RedisConnection> {
    const connection = await connectRedis(endpoint, options);
    try {
      // A write that changes nothing: only who may write answers it.
      await connection.send(["DEL", keyName(prefix, "probe")]);
      return connection;
    } catch (error) {
      if (error instanceof RedisErrorReply && PASSING_CODES.includes(error.code)) return connection;
      connection.close();
      const moved = movedTo(error, endpoint);
      if (moved === undefined) throw named(endpoint, error);
      if (address.topology !== "cluster") {
        throw new Error(`${nameOf(endpoint)}: it belongs to a cluster; write redis+cluster://`);
      }
      if (redirectionsMax === 0) throw new Error(`${nameOf(endpoint)}: it sends on and on`);
      return await connectToWriter(moved, redirectionsMax - 1);
    }
  }

  async function askSentinel(sentinel: RedisEndpoint): Promise<RedisEndpoint> {
    const master = address.masterName ?? "";
    const question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master];
    let reply: RedisReply;
    try {
      // The password goes to a sentinel only if it demands one.
      reply = await askOnce(sentinel, { ...options, database: 0, username: null, password: null }, question);
    } catch (error) {
      if (!(error instanceof RedisErrorReply) || error.code !== "NOAUTH" || options.password === null) {
        throw named(sentinel, error);
      }
      reply = await askOnce(sentinel, { ...options, database: 0 }, question);
    }
    const [host, port] = Array.isArray(reply) ? reply.map(textOf) : [];
    if (host === undefined || port === undefined) {
      throw new Error(`${nameOf(sentinel)}: this sentinel knows no master "${master}"`);
    }
    return { host, port: Number(port) };
  }
}

async function askOnce(
  endpoint: RedisEndpoint,
  options: ConnectionOptions,
  words: readonly string[],
): Promise<RedisReply> {
  const connection = await connectRedis(endpoint, options);
  try {
    return await connection.send(words);
  } finally {
    connection.close();
  }
}

/** An error answer in plain words; a lost connection has them already. */
function named(endpoint: RedisEndpoint, error: unknown): unknown {
  return error instanceof RedisErrorReply ? new Error(`${nameOf(endpoint)}: ${plainWords(error)}`) : error;
}

/** "MOVED slot host:port"; without a host it is another port of the same one. */
function movedTo(error: unknown, from: RedisEndpoint): RedisEndpoint | undefined {
  if (!(error instanceof RedisErrorReply)) return undefined;
  const [, host, port] = /^MOVED \d+ (.*):(\d+)$/.exec(error.message) ?? [];
  return host === undefined ? undefined : { host: host === "" ? from.host : host, port: Number(port) };
}

function textOf(reply: RedisReply): string | undefined {
  if (!(reply instanceof Uint8Array)) return undefined;
  const text = decodeUtf8(reply);
  return text.ok ? text.value : undefined;
}
