// Redis setting: the address of the Redis that instances share: one server, sentinels that know it, or a cluster.
import { no, ok } from "../faults/outcome.ts";
import type { SettingType } from "./setting_types.ts";

/** Where Redis is, and as whom it is asked. */
export interface RedisAddress {
  readonly topology: "single" | "sentinel" | "cluster";
  readonly tls: boolean;
  /** Servers, sentinels, or nodes of the cluster; at least one. */
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  /** ACL user; null: the default one. */
  readonly username: string | null;
  readonly password: string | null;
  /** 0 in a cluster. */
  readonly database: number;
  /** The name that sentinels have for the master; null elsewhere. */
  readonly masterName: string | null;
}

const FORM = /^(redis|rediss)(?:\+(sentinel|cluster))?:\/\/(?:([^@/]*)@)?([^@/?#]+)(?:\/([^/?#]*))?$/;
const HOST = /^(\[[0-9a-f:.]{2,45}\]|[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?)(?::(\d{1,5}))?$/i;
const DEFAULT_PORT = { single: 6379, cluster: 6379, sentinel: 26_379 } as const;

/** The parts of an address; undefined where it is none. */
export function parseRedisAddress(text: string): RedisAddress | undefined {
  const match = FORM.exec(text);
  if (match === null) return undefined;
  const [, scheme, kind, user, hostList = "", path = ""] = match;
  const topology = (kind ?? "single") as RedisAddress["topology"];
  const hosts = hostList.split(",").map((each) => {
    const [, host, port] = HOST.exec(each) ?? [];
    const number = port === undefined ? DEFAULT_PORT[topology] : Number(port);
    return host === undefined || number < 1 || number > 65_535
      ? undefined
      : { host: host.replace(/^\[|\]$/g, "").toLowerCase(), port: number };
  });
  if (!hosts.every((host) => host !== undefined)) return undefined;
  if (topology === "single" && hosts.length > 1) return undefined;
  const credentials = readCredentials(user);
  if (credentials === undefined) return undefined;
  const masterName = topology === "sentinel" ? path.split(":")[0] ?? "" : null;
  const databaseText = topology === "sentinel" ? path.split(":")[1] ?? "" : path;
  if (masterName !== null && !/^[A-Za-z0-9._-]{1,64}$/.test(masterName)) return undefined;
  if (!/^\d{0,4}$/.test(databaseText) || (topology === "cluster" && Number(databaseText) !== 0)) {
    return undefined;
  }
  return {
    topology,
    tls: scheme === "rediss",
    hosts,
    ...credentials,
    database: Number(databaseText),
    masterName,
  };
}

/** `user:password`, `:password` or nothing, percent-encoded (RFC 3986 §3.2.1). */
function readCredentials(text: string | undefined): Pick<RedisAddress, "username" | "password"> | undefined {
  if (text === undefined) return { username: null, password: null };
  const colon = text.indexOf(":");
  try {
    const username = decodeURIComponent(colon === -1 ? text : text.slice(0, colon));
    const password = colon === -1 ? "" : decodeURIComponent(text.slice(colon + 1));
    // A user without a password is a password in the wrong place.
    if (password === "") return undefined;
    return { username: username === "" ? null : username, password };
  } catch {
    return undefined;
  }
}

/** `redisUrl`: stays a text, for it holds a password. */
export const redisUrlType: SettingType<string> = {
  allowed:
    "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss://…, redis+sentinel://[…@]HOST:PORT,HOST:PORT/MASTER[:DATABASE] " +
    "or redis+cluster://[…@]HOST:PORT,HOST:PORT (rediss+… with TLS)",
  read: (raw) => typeof raw === "string" && parseRedisAddress(raw) !== undefined ? ok(raw) : no("wrong"),
};
