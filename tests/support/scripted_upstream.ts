// Scripted upstream: a server on a loopback port that answers each request by a script, byte by byte where it has to be wrong.
//
// It stands on raw TCP, so that a script can send what no HTTP server would: heads that are none, bodies that break off,
// connections that are reset. It keeps every request that it got, and tells when the peer closed a connection.
//
//     const upstream = await startScriptedUpstream();
//     upstream.plays(answerBusy(429, "2"), answerJson({ text: "hello" }));   // the last one plays for all that follow
//     … call upstream.url …
//     strictEqual(upstream.requests[1]?.json().model, "m");
//     await upstream.close();
import { createServer as createTcpServer, type Socket } from "node:net";
import { setImmediate } from "node:timers";
import { createServer as createTlsServer } from "node:tls";
import type { Certificate } from "./self_signed_certificate.ts";

/** A request that came. Its body fills up while it comes in. */
export interface ScriptedRequest {
  readonly method: string;
  /** The target as it was sent: path and query. */
  readonly target: string;
  /** As they were sent, in order; names in lower case. */
  readonly headerLines: readonly (readonly [name: string, value: string])[];
  readonly headers: Headers;
  /** The body so far; whole once a script plays. */
  body(): Uint8Array<ArrayBuffer>;
  /** The body as text. */
  text(): string;
  /** The body as JSON. */
  // deno-lint-ignore no-explicit-any
  json(): any;
  /** Resolves when the connection that it came on is closed, by whichever side. */
  readonly closed: Promise<void>;
  /** Whether the peer closed it, and nobody here. */
  closedByPeer(): boolean;
}

/** What a script answers with. */
export interface Reply {
  /** Sends bytes as they are; resolves when the system took them. Harmless after the connection has closed. */
  write(piece: string | Uint8Array): Promise<void>;
  /** Sends a head; a body without `content-length` goes in chunks. */
  head(status: number, headers?: Readonly<Record<string, string>>): Promise<void>;
  /** Sends one piece of a chunked body. */
  chunk(piece: string | Uint8Array): Promise<void>;
  /** Ends a chunked body well. */
  endChunks(): Promise<void>;
  /** Closes the connection in order (FIN). */
  drop(): void;
  /** Resets the connection (RST). */
  reset(): void;
  /** Waits; comes back early when the connection has closed. */
  pause(milliseconds: number): Promise<void>;
  /** Resolves when the connection has closed: what a script that hangs waits for. */
  readonly closed: Promise<void>;
  /** Whether it has. */
  isClosed(): boolean;
}

/** Answers one request. When it is done the connection takes the next one, unless it was closed. */
export type Script = (reply: Reply, request: ScriptedRequest) => Promise<void> | void;

/** The server. */
export interface ScriptedUpstream {
  /** `http://127.0.0.1:PORT` or `https://localhost:PORT`; without a slash at its end. */
  readonly url: string;
  /** Requests that came, without health checks, in order. A trap is a server of which this stays empty. */
  readonly requests: readonly ScriptedRequest[];
  readonly healthChecks: readonly ScriptedRequest[];
  /** Connections that came so far. */
  readonly connections: number;
  /** What the next requests get, each its own; the last one plays for all that follow. Forgets what was set before. */
  plays(...scripts: readonly [Script, ...Script[]]): void;
  /** What health checks get; at first 200. */
  playsHealth(script: Script): void;
  /** The request at an index, as soon as its head has come. */
  request(index: number): Promise<ScriptedRequest>;
  /** Closes all connections and stops. */
  close(): Promise<void>;
}

/**
 * Starts one on a free port of 127.0.0.1.
 *
 * @param certificate speaks TLS with it
 * @param isHealthCheck tells health checks from requests; default: every GET
 */
export async function startScriptedUpstream(
  options: { certificate?: Certificate; isHealthCheck?: (request: ScriptedRequest) => boolean } = {},
): Promise<ScriptedUpstream> {
  const { certificate, isHealthCheck = ({ method }) => method === "GET" } = options;
  const requests: ScriptedRequest[] = [];
  const healthChecks: ScriptedRequest[] = [];
  const waiting: { index: number; resolve: (request: ScriptedRequest) => void }[] = [];
  const sockets = new Set<Socket>();
  let scripts: Script[] = [answerStatus(500)];
  let health: Script = answerJson({});
  let connections = 0;

  function scriptFor(request: ScriptedRequest): Script {
    if (isHealthCheck(request)) {
      healthChecks.push(request);
      return health;
    }
    requests.push(request);
    for (const waiter of [...waiting]) {
      if (waiter.index !== requests.length - 1) continue;
      waiting.splice(waiting.indexOf(waiter), 1);
      waiter.resolve(request);
    }
    const [script = answerStatus(500)] = scripts;
    if (scripts.length > 1) scripts = scripts.slice(1);
    return script;
  }

  function onConnection(socket: Socket): void {
    connections++;
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    serve(socket, scriptFor);
  }
  const server = certificate === undefined
    ? createTcpServer({ noDelay: true }, onConnection)
    : createTlsServer({ cert: certificate.certificatePem, key: certificate.privateKeyPem }, onConnection);
  // Handshakes that a client breaks off because it does not trust the certificate.
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };

  return {
    url: certificate === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`,
    requests,
    healthChecks,
    get connections() {
      return connections;
    },
    plays(...next) {
      scripts = next;
    },
    playsHealth(script) {
      health = script;
    },
    request(index) {
      const there = requests[index];
      if (there !== undefined) return Promise.resolve(there);
      return new Promise((resolve) => waiting.push({ index, resolve }));
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** One connection: reads a request, plays its script, reads the next. */
async function serve(socket: Socket, scriptFor: (request: ScriptedRequest) => Script): Promise<void> {
  let bytes = new Uint8Array();
  let isClosed = false;
  let closedHere = false;
  let unyielded = 0;
  let onMore: (() => void) | undefined;
  const closed = new Promise<void>((resolve) => {
    const end = (): void => {
      isClosed = true;
      onMore?.();
      resolve();
    };
    socket.once("end", end);
    socket.once("close", end);
    socket.on("error", end);
  });
  socket.on("data", (piece: Uint8Array) => {
    bytes = concatenated(bytes, piece);
    onMore?.();
  });
  /** Takes so many bytes as `measure` finds ready; undefined when the connection closed before. */
  async function take(measure: () => number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    for (;;) {
      const length = measure();
      if (length > 0) {
        const taken = bytes.slice(0, length);
        bytes = bytes.slice(length);
        return taken;
      }
      if (isClosed) return undefined;
      await new Promise<void>((resolve) => onMore = resolve);
    }
  }
  const line = (end: string) => (): number => {
    const at = latin1(bytes).indexOf(end);
    return at === -1 ? 0 : at + end.length;
  };

  const reply: Reply = {
    write: async (piece) => {
      if (isClosed || closedHere) return;
      await new Promise<void>((resolve) => {
        const onClose = (): void => resolve();
        socket.once("close", onClose);
        socket.write(piece, () => {
          socket.off("close", onClose);
          resolve();
        });
      });
      // Writes that the system takes at once come back in the same turn; a script that only writes would never let the peer read,
      // which lives in the same process.
      unyielded += 1_000 + piece.length;
      if (unyielded < YIELD_BYTES) return;
      unyielded = 0;
      await new Promise<void>((resolve) => setImmediate(resolve));
    },
    head: (status, headers = {}) => {
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join("");
      const framing = Object.keys(headers).some((name) => name.toLowerCase() === "content-length")
        ? ""
        : "transfer-encoding: chunked\r\n";
      return reply.write(`HTTP/1.1 ${status} Scripted\r\n${lines}${framing}\r\n`);
    },
    // A chunk of nothing would be the end of the body.
    chunk: (piece) => piece.length === 0 ? Promise.resolve() : reply.write(chunkOf(piece)),
    endChunks: () => reply.write("0\r\n\r\n"),
    drop: () => {
      closedHere = true;
      socket.end();
    },
    reset: () => {
      closedHere = true;
      socket.resetAndDestroy();
    },
    pause: async (milliseconds) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([closed, new Promise<void>((resolve) => timer = setTimeout(resolve, milliseconds))]);
      clearTimeout(timer);
    },
    closed,
    isClosed: () => isClosed || closedHere,
  };

  for (;;) {
    const head = await take(line("\r\n\r\n"));
    if (head === undefined) break;
    const [first = "", ...fields] = latin1(head).trimEnd().split("\r\n");
    const [method = "", target = ""] = first.split(" ");
    const headerLines = fields.map((field) => {
      const colon = field.indexOf(":");
      return [field.slice(0, colon).toLowerCase(), field.slice(colon + 1).trim()] as const;
    });
    let body = new Uint8Array();
    const request: ScriptedRequest = {
      method,
      target,
      headerLines,
      headers: new Headers(headerLines.map(([name, value]) => [name, value])),
      body: () => body,
      text: () => new TextDecoder().decode(body),
      json: () => JSON.parse(new TextDecoder().decode(body)),
      closed,
      closedByPeer: () => isClosed && !closedHere,
    };
    const script = scriptFor(request);
    if (request.headers.get("transfer-encoding") === "chunked") {
      for (;;) {
        const size = await take(line("\r\n"));
        if (size === undefined) return;
        const length = parseInt(latin1(size), 16);
        const chunk = await take(() => bytes.length >= length + 2 ? length + 2 : 0);
        if (chunk === undefined) return;
        if (length === 0) break;
        body = concatenated(body, chunk.subarray(0, length));
      }
    } else {
      const length = Number(request.headers.get("content-length") ?? 0);
      if (length > 0) {
        const whole = await take(() => bytes.length >= length ? length : 0);
        if (whole === undefined) return;
        body = whole;
      }
    }
    await script(reply, request);
    if (reply.isClosed()) break;
  }
  socket.end();
}

/** One server-sent event as text; an object is sent as JSON. */
export function eventOf(data: unknown, event?: string): string {
  const text = typeof data === "string" ? data : JSON.stringify(data);
  return `${event === undefined ? "" : `event: ${event}\n`}data: ${text}\n\n`;
}

/** A whole answer with its length. */
export function answerBytes(
  body: string | Uint8Array,
  mediaType: string,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Script {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  return async (reply) => {
    await reply.head(status, {
      "content-type": mediaType,
      "content-length": String(bytes.length),
      ...headers,
    });
    await reply.write(bytes);
  };
}

/** A whole JSON answer. */
export function answerJson(
  value: unknown,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Script {
  return answerBytes(JSON.stringify(value), "application/json", status, headers);
}

/** A status with a short text. */
export function answerStatus(status: number): Script {
  return answerBytes("scripted\n", "text/plain", status);
}

/** 200 with a page, as a proxy with an opinion sends it. */
export function answerHtml(): Script {
  return answerBytes("<!doctype html><title>Welcome</title>", "text/html; charset=utf-8");
}

/** Too busy; `retryAfter` as it stands in the header. */
export function answerBusy(status: 429 | 503 | 529, retryAfter?: string): Script {
  return answerJson(
    { error: { message: "slow down" } },
    status,
    retryAfter === undefined ? {} : { "retry-after": retryAfter },
  );
}

/** A redirect, such as to a trap. */
export function redirectTo(url: string, status = 307): Script {
  return answerBytes("", "text/plain", status, { location: url });
}

/**
 * An event stream in chunks, one a piece.
 *
 * @param pieces whole events (`eventOf`) or parts of them
 * @param pauseMs before each piece but the first
 * @param then what follows the last: the end of the body, silence, or a broken connection
 */
export function streamEvents(
  pieces: readonly (string | Uint8Array)[],
  { pauseMs = 0, then = "end" }: { pauseMs?: number; then?: "end" | "hang" | "drop" | "reset" } = {},
): Script {
  return async (reply) => {
    await reply.head(200, { "content-type": "text/event-stream" });
    for (const [index, piece] of pieces.entries()) {
      if (index > 0 && pauseMs > 0) await reply.pause(pauseMs);
      await reply.chunk(piece);
    }
    if (then === "end") await reply.endChunks();
    else if (then === "hang") await reply.closed;
    else {
      // What was sent arrives before the connection ends; a reset would overtake it.
      await reply.pause(50);
      then === "drop" ? reply.drop() : reply.reset();
    }
  };
}

/** A stream that never ends; `sent` hears how many bytes went out so far. */
export function streamEndlessly(piece: string, sent: (bytes: number) => void = () => undefined): Script {
  return async (reply) => {
    await reply.head(200, { "content-type": "text/event-stream" });
    for (let bytes = 0; !reply.isClosed();) {
      await reply.chunk(piece);
      sent(bytes += piece.length);
    }
  };
}

/** A whole answer byte by byte, in chunks. */
export function drip(body: string, mediaType: string, pauseMs: number): Script {
  return async (reply) => {
    await reply.head(200, { "content-type": mediaType });
    for (const character of body) {
      if (reply.isClosed()) return;
      await reply.chunk(character);
      await reply.pause(pauseMs);
    }
    await reply.endChunks();
  };
}

/** Takes the request and never answers. */
export function hangBeforeHead(): Script {
  return (reply) => reply.closed;
}

/** Sends a head and the beginning of a body, and then nothing. */
export function hangMidBody(beginning: string, mediaType = "application/json"): Script {
  return async (reply) => {
    await reply.head(200, { "content-type": mediaType });
    if (beginning !== "") await reply.chunk(beginning);
    await reply.closed;
  };
}

/** Sends bytes as they are and closes the connection: heads that are none, bodies that are too short, and so on. */
export function sendRaw(bytes: string | Uint8Array, end: "drop" | "reset" = "drop"): Script {
  return async (reply) => {
    await reply.write(bytes);
    if (end === "drop") return reply.drop();
    await reply.pause(50);
    reply.reset();
  };
}

const YIELD_BYTES = 100_000;
const encoder = new TextEncoder();

function chunkOf(piece: string | Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = typeof piece === "string" ? encoder.encode(piece) : piece;
  const size = encoder.encode(`${bytes.length.toString(16)}\r\n`);
  return concatenated(size, bytes, encoder.encode("\r\n"));
}

function concatenated(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function latin1(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}
