// Redis connection: one connection to one Redis server or sentinel; an answer that does not come in time ends it.
import { Buffer } from "node:buffer";
import type { RedisArgument, RedisReply } from "./redis.ts";

/** A host's name or address, and a port. */
export interface RedisEndpoint {
  readonly host: string;
  readonly port: number;
}

/** How to connect, and as whom. */
export interface ConnectionOptions {
  readonly tls: boolean;
  /** PEM; undefined: those that the machine trusts. */
  readonly caCertificates: string | undefined;
  readonly username: string | null;
  readonly password: string | null;
  readonly database: number;
  /** Each command is answered within so many milliseconds, or the connection ends. */
  readonly timeoutMs: number;
}

/** One connection. */
export interface RedisConnection {
  readonly endpoint: RedisEndpoint;
  /**
   * @throws RedisErrorReply when Redis answers an error
   * @throws Error when the connection has ended; its message names the host and says why in plain words
   */
  send(words: readonly RedisArgument[]): Promise<RedisReply>;
  /** Resolves with the host's name and plain words why, when it ends by itself. */
  readonly whenLost: Promise<string>;
  close(): void;
}

/** An error that Redis answered. */
export class RedisErrorReply extends Error {
  override readonly name = "RedisErrorReply";
  /** The first word, such as OOM or READONLY. */
  readonly code: string;

  /** @param text all of it; it may quote arguments, so it goes into no log */
  constructor(text: string) {
    super(text);
    this.code = /^[A-Z]+/.exec(text)?.[0] ?? "ERR";
  }
}

/** Time for reaching a server and signing in there. Longer than a command's: a network or TLS handshake may need it. */
const CONNECT_MS = 2_000;
/** What was sent so many ticks ago is late; a tick is so much shorter than the time-out that the last one is within it. */
const TICKS_MAX = 4;
/** The client adds up digits in a way that loses the last ones just below 2^53. */
const INTEGER_MAX = 2 ** 53 - 64;

/**
 * Connects, signs in and selects the database.
 *
 * @throws Error when that fails or takes too long; its message names the host and says why in plain words, without secrets
 */
export async function connectRedis(
  endpoint: RedisEndpoint,
  options: ConnectionOptions,
): Promise<RedisConnection> {
  const { createClient, ErrorReply, RESP_TYPES } = await import("@redis/client");
  const client = createClient({
    // RESP2 needs no HELLO, and its answers hold nothing but what the port knows.
    RESP: 2,
    maintNotifications: "disabled",
    disableClientInfo: true,
    disableOfflineQueue: true,
    // The client's own time-out does not fire once a command is written, and costs a timer for each.
    commandOptions: { timeout: 0, typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } },
    ...(options.username === null ? {} : { username: options.username }),
    ...(options.password === null ? {} : { password: options.password }),
    database: options.database,
    socket: {
      host: endpoint.host,
      port: endpoint.port,
      connectTimeout: CONNECT_MS,
      // Who carries the keys may have changed: whoever lost a connection looks for them anew.
      reconnectStrategy: false,
      ...(options.tls ? tlsOptions(endpoint.host, options.caCertificates) : {}),
    },
  });
  const { promise: whenLost, resolve: tellLost } = Promise.withResolvers<string>();
  let ended: string | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = (reason: string) => {
    if (ended !== undefined) return;
    ended = `${nameOf(endpoint)}: ${reason}`;
    clearTimeout(timer);
    // Every command that waits fails with this.
    client.destroy();
  };
  const lose = (reason: string) => {
    end(reason);
    if (ended !== undefined) tellLost(ended);
  };
  client.on("error", (error: unknown) => lose(plainWords(error)));
  // A socket that is still connecting cannot be destroyed; as soon as it is connected it can.
  client.on("connect", () => {
    if (ended !== undefined) client.destroy();
  });

  timer = setTimeout(() => lose(TOO_LATE), CONNECT_MS);
  try {
    await client.connect();
  } catch (error) {
    end(plainWords(error));
  }
  clearTimeout(timer);
  timer = undefined;
  if (ended !== undefined) throw new Error(ended);

  // Answers come in the order of the commands, so counting is enough to know who is late: one timer for all, and none
  // while nothing is under way. Ticks count, not time: while this process is held up itself, Redis is not late.
  let sent = 0;
  let answered = 0;
  const sentAtTick: number[] = [];
  const tick = () => {
    timer = undefined;
    if (answered === sent) {
      sentAtTick.length = 0;
      return;
    }
    if (sentAtTick.length === TICKS_MAX && answered < (sentAtTick.shift() ?? 0)) {
      lose(`no answer within ${options.timeoutMs} ms`);
      return;
    }
    sentAtTick.push(sent);
    timer = setTimeout(tick, options.timeoutMs / (TICKS_MAX + 1));
  };

  return {
    endpoint,
    whenLost,
    async send(words) {
      if (ended !== undefined) throw new Error(ended);
      sent++;
      timer ??= setTimeout(tick, options.timeoutMs / (TICKS_MAX + 1));
      let reply: unknown;
      try {
        reply = await client.sendCommand(words.map(toWire));
      } catch (error) {
        if (error instanceof ErrorReply) throw new RedisErrorReply(error.message);
        lose(plainWords(error));
        throw new Error(ended);
      } finally {
        answered++;
      }
      return toReply(reply);
    },
    close: () => end("closed"),
  };

  function toReply(reply: unknown): RedisReply {
    if (typeof reply === "string" || reply === null) return reply;
    if (typeof reply === "number") {
      if (Math.abs(reply) <= INTEGER_MAX) return reply;
      throw new RedisErrorReply("ERR an integer that the client may have rounded");
    }
    // A copy: the client's bytes are a window into all that arrived with them.
    if (reply instanceof Uint8Array) return new Uint8Array(reply);
    if (Array.isArray(reply)) return reply.map(toReply);
    throw new RedisErrorReply(
      reply instanceof ErrorReply ? reply.message : "ERR an answer of an unknown form",
    );
  }
}

/** `host:port`, an IPv6 address in brackets (RFC 3986 §3.2.2). */
export function nameOf({ host, port }: RedisEndpoint): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function tlsOptions(host: string, caCertificates: string | undefined) {
  return {
    tls: true as const,
    // An address is no server name (RFC 6066 §3); it is compared with the certificate all the same.
    ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
    ...(caCertificates === undefined ? {} : { ca: caCertificates }),
  };
}

/** Copied, for the client writes them a little later only. */
function toWire(word: RedisArgument): string | Buffer {
  return typeof word === "string" ? word : Buffer.from(word);
}

const TOO_LATE = `no answer within ${CONNECT_MS} ms`;
const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection closed",
  EPIPE: "connection closed",
  SocketClosedUnexpectedlyError: "connection closed",
  ConnectionTimeoutError: TOO_LATE,
  ETIMEDOUT: TOO_LATE,
  ENOTFOUND: "the name is not known",
  EAI_AGAIN: "the name cannot be looked up now",
  EHOSTUNREACH: "no way to this host",
  ENETUNREACH: "no way to this host",
  // Deno says the first for addresses, the second for names.
  NotCapable: "this process may not connect there; name it in PORTCULLIS_REDIS_HOSTS",
  EPERM: "this process may not connect there; name it in PORTCULLIS_REDIS_HOSTS",
  WRONGPASS: "wrong user name or password",
  NOAUTH: "it demands a password",
  NOPERM: "the user lacks a permission",
  LOADING: "it is still reading its data",
  READONLY: "it is a replica, or read-only",
  MASTERDOWN: "it is a replica without its master",
  CLUSTERDOWN: "the cluster is down",
};

/** Why, without anything secret: an error's text is never passed on, for it may quote what was sent. */
export function plainWords(error: unknown): string {
  if (!(error instanceof Error)) return "unknown error";
  const code = "code" in error && typeof error.code === "string" ? error.code : error.constructor.name;
  const reply = /^([A-Z]+) /.exec(error.message)?.[1] ?? "";
  if (/CERT|SIGNATURE/.test(code)) return `certificate refused (${code})`;
  if (/^ERR AUTH /.test(error.message)) return "it has no password for this user, yet one is given";
  return WORDS[code] ?? WORDS[reply] ?? (reply === "" ? code : `it answers ${reply}`);
}
