// Listener: the server's socket, HTTP/1.1 over node:http. Deno.serve does not notice a client that leaves before its answer
// has begun, and has no time-outs.
import { Buffer } from "node:buffer";
import { createServer, IncomingMessage, type Server, type ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { encodeUtf8 } from "./encoding/utf8.ts";

/** The transport's word on where a request comes from. */
export interface ListenerPeer {
  readonly remoteAddr: { readonly hostname?: string };
}

/** A body in pieces. Where `next()` throws, the transfer is broken off. */
export interface AnswerPieces {
  /** The next pieces; undefined after the last. */
  next(): Promise<readonly Uint8Array[] | undefined>;
  /** The client left. Never throws. */
  cancel(): void;
}

/** An answer that is cheaper than a Response, whose making and reading cost as much as all the rest of the transport. */
export interface PlainAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: null | string | Uint8Array | AnswerPieces;
}

/**
 * Answers a request. Of the Request there are `method`, `url`, `headers.get`, `headers.has`, `signal`, `body` and
 * `arrayBuffer`, and no more: a whole one costs several times as much. `url` is the Host header and the raw target,
 * unchecked. `signal` aborts when the client leaves before the answer has ended, and only then.
 */
export type ListenerApp = (request: Request, peer: ListenerPeer) => Promise<Response | PlainAnswer>;

/** What a listener is opened with. */
export interface ListenerSettings {
  readonly hostname: string;
  /** 0 for any that is free. */
  readonly port: number;
  readonly app: ListenerApp;
  /** From the beginning of a connection or of a request to the end of the request's head; later it is answered 408. */
  readonly headersTimeoutMs: number;
  /** How long a connection is kept on which nothing runs, or whose client does not take what was written. */
  readonly idleTimeoutMs: number;
  /** Connections beyond are closed as they come. */
  readonly connectionsMax: number;
}

/** An open socket. */
export interface Listener {
  readonly port: number;
  /** Resolves when the last connection is closed after `shutdown`; rejects when the socket fails. */
  readonly finished: Promise<void>;
  /** Accepts no more, closes idle connections at once and lets running answers end. Settles as `finished` does. */
  shutdown(): Promise<void>;
}

/** Of request line and header fields together; more is answered 431. */
const HEAD_BYTES_MAX = 16 * 1024;
const FIELDS_MAX = 100;
/** What a client may send ahead on one connection (RFC 9112 §9.3.2); it is answered in order, one after the other. */
const REQUESTS_AHEAD_MAX = 16;
/** What is read of a body that nobody wanted, so that its sender reads the answer rather than a reset (RFC 9112 §9.6). */
const UNWANTED_BYTES_MAX = 256 * 1024;
const UNWANTED_MS_MAX = 1000;
/** Larger answers are written in parts: so it shows whether the client takes them. */
const PART_BYTES = 64 * 1024;
const BODY_BYTES_FIRST = 16 * 1024;
/** Pieces up to this size are merged. */
const SMALL_PIECE_BYTES = 512;
const MERGED_BYTES_FIRST = 4096;
const SWEEP_MS_MAX = 1000;
/** After so many sweeps without a connection, one of our own asks whether the socket still accepts any. */
const SWEEPS_BEFORE_ASKING = 5;
const SWEEPS_BEFORE_DEAF = 10;

/**
 * Listens.
 *
 * @throws Deno.errors.AddrInUse · Deno.errors.NotCapable · whatever else keeps the socket from being opened
 */
export async function openListener(settings: ListenerSettings): Promise<Listener> {
  const { hostname, port, app, headersTimeoutMs, idleTimeoutMs, connectionsMax } = settings;
  const sweepMs = Math.max(1, Math.floor(Math.min(SWEEP_MS_MAX, headersTimeoutMs / 4, idleTimeoutMs / 4)));
  const connections = new Map<Socket, Connection>();
  let stopping = false;
  let quietSweeps = 0;
  const server = createServer({
    IncomingMessage: MergingMessage,
    maxHeaderSize: HEAD_BYTES_MAX,
    headersTimeout: headersTimeoutMs,
    // How long a body may take is the app's to say.
    requestTimeout: 0,
    keepAliveTimeout: idleTimeoutMs,
    connectionsCheckingInterval: sweepMs,
    // Refused here, together with doubled ones.
    requireHostHeader: false,
  });
  server.maxConnections = connectionsMax;
  server.on("connection", (socket: Socket) => {
    quietSweeps = 0;
    const connection = new Connection(socket, app);
    connections.set(socket, connection);
    socket.once("close", () => connections.delete(socket));
    if (stopping) connection.stop();
  });
  const accept = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    connections.get(incoming.socket)?.accept(incoming, outgoing);
  };
  server.on("request", accept);
  server.on("checkContinue", accept);
  server.on("checkExpectation", accept);
  server.on("connect", (_incoming: IncomingMessage, socket: Socket) => refuseTunnel(socket));

  await listening(server, hostname, port);
  const { promise: closed, resolve, reject } = Promise.withResolvers<void>();
  server.once("close", resolve);
  server.on("error", reject);
  const address = server.address();
  const ownPort = address === null || typeof address === "string" ? port : address.port;
  const sweep = setInterval(() => {
    for (const connection of connections.values()) {
      connection.sweep(sweepMs, idleTimeoutMs + headersTimeoutMs);
    }
    // Out of file descriptors, node:http stops accepting for good and says nothing.
    if (stopping || connections.size >= connectionsMax) quietSweeps = 0;
    else if (++quietSweeps === SWEEPS_BEFORE_ASKING) ask(hostname, ownPort);
    else if (quietSweeps > SWEEPS_BEFORE_DEAF) {
      reject(new Error("Cannot accept connections: the socket is deaf. Too many open files?"));
    }
  }, sweepMs);
  const finished = closed.finally(() => clearInterval(sweep));
  // Whoever wants to know asks; to nobody else it is a stray rejection.
  finished.catch(() => undefined);
  return {
    port: ownPort,
    finished,
    shutdown() {
      stopping = true;
      server.close();
      for (const connection of connections.values()) connection.stop();
      return finished;
    },
  };
}

function listening(server: Server, hostname: string, port: number): Promise<void> {
  // node:http would throw it where nobody can catch it.
  const host = hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
  if (Deno.permissions.querySync({ name: "net", host }).state !== "granted") {
    throw new Deno.errors.NotCapable(`Cannot listen: net access to "${host}" is not granted`);
  }
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const failed = (error: Error & { readonly code?: string }): void =>
    reject(error.code === "EADDRINUSE" ? new Deno.errors.AddrInUse(error.message) : error);
  server.once("error", failed);
  server.listen(port, hostname, () => {
    server.off("error", failed);
    resolve();
  });
  return promise;
}

/** Opens a connection to ourselves and closes it. Whether it comes to be is seen where connections come in. */
function ask(hostname: string, port: number): void {
  const socket = connect(port, hostname, () => socket.destroy());
  socket.on("error", ignore);
}

/** node:http leaves the socket to whoever listens for CONNECT, without its own error handler. */
function refuseTunnel(socket: Socket): void {
  socket.on("error", ignore);
  socket.end(
    "HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    () => socket.destroy(),
  );
}

/** One connection. Its requests run one after the other, however many came at once. */
class Connection {
  readonly #socket: Socket;
  readonly #app: ListenerApp;
  readonly #peer: ListenerPeer;
  readonly #ahead: (() => void)[] = [];
  #running: IncomingRequest | undefined;
  #stopping = false;
  /** The answer waits for the client to take it. */
  #awaitsClient = false;
  #quietMs = 0;

  constructor(socket: Socket, app: ListenerApp) {
    this.#socket = socket;
    this.#app = app;
    const hostname = socket.remoteAddress;
    this.#peer = { remoteAddr: hostname === undefined ? {} : { hostname } };
  }

  accept(incoming: IncomingMessage, outgoing: ServerResponse): void {
    // What was read together with the reason to break off is nobody's request any more.
    if (this.#socket.destroyed) return;
    if (this.#running === undefined) this.#run(incoming, outgoing);
    else if (this.#ahead.length < REQUESTS_AHEAD_MAX) this.#ahead.push(() => this.#run(incoming, outgoing));
    else this.#socket.destroy();
  }

  /** Closes it as soon as nothing runs on it. */
  stop(): void {
    this.#stopping = true;
    if (this.#running === undefined) this.#socket.destroy();
  }

  /** The net below the time-outs of node:http: nothing keeps a connection for long on which nothing happens. */
  sweep(passedMs: number, quietMsMax: number): void {
    if (this.#running !== undefined && !this.#awaitsClient) this.#quietMs = 0;
    else if ((this.#quietMs += passedMs) > quietMsMax) this.#socket.destroy();
  }

  #run(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const request = new IncomingRequest(incoming, outgoing);
    this.#running = request;
    this.#awaitsClient = false;
    outgoing.once("close", () => {
      request.leave();
      this.#running = undefined;
      this.#quietMs = 0;
      if (this.#stopping) this.#socket.destroy();
      // RFC 9112 §9.6: after an answer that closes, nothing is processed any more.
      else if (this.#socket.writable) this.#ahead.shift()?.();
    });
    // Events of a connection that breaks: "close" says it all.
    incoming.on("error", ignore);
    outgoing.on("error", ignore);
    void this.#answer(request, incoming, outgoing);
  }

  /** Never rejects. */
  async #answer(
    request: IncomingRequest,
    incoming: IncomingMessage,
    outgoing: ServerResponse,
  ): Promise<void> {
    try {
      // By the next turn of promises the parser has gone through all that was read: a small body is then there as a whole.
      await undefined;
      const refusal = refusalOf(incoming, request.headers);
      const given = refusal === undefined
        ? await this.#app(request as unknown as Request, this.#peer)
        : emptyAnswer(refusal);
      const { status, headers, body } = given instanceof Response ? plainAnswer(given) : given;
      const { pieces, last, length } = inPieces(body);
      if (request.left) return pieces?.cancel();
      outgoing.statusCode = status;
      for (const name in headers) outgoing.setHeader(name, headers[name] ?? "");
      if (length !== undefined) outgoing.setHeader("Content-Length", length);
      // What is left of the body must not be read as a next request, nor waited for.
      if (this.#stopping || !incoming.complete) outgoing.setHeader("Connection", "close");
      if (pieces !== undefined) await this.#send(pieces, request, outgoing);
      await this.#end(last, request, incoming, outgoing);
    } catch {
      if (request.left) return;
      // An app that fails, headers that cannot be sent, or a stream that broke: what can still be said is said.
      if (outgoing.headersSent) this.#breakOff(incoming);
      else {
        for (const name of outgoing.getHeaderNames()) outgoing.removeHeader(name);
        outgoing.statusCode = 500;
        outgoing.setHeader("Connection", "close");
        await this.#end("", request, incoming, outgoing);
      }
    }
  }

  /** Each piece goes out at once; the next is asked for when the client has taken the last. */
  async #send(pieces: AnswerPieces, request: IncomingRequest, outgoing: ServerResponse): Promise<void> {
    request.whenLeft = () => pieces.cancel();
    outgoing.flushHeaders();
    for (;;) {
      const batch = await pieces.next();
      if (batch === undefined || request.left) return;
      let taken = true;
      for (const piece of batch) taken = outgoing.write(piece);
      if (taken) continue;
      this.#awaitsClient = true;
      await drained(outgoing);
      this.#awaitsClient = false;
      this.#quietMs = 0;
      if (request.left) return;
    }
  }

  /** After what was written, without the end of the answer. */
  #breakOff({ httpVersionMinor }: IncomingMessage): void {
    this.#awaitsClient = true;
    // To a client that knows no chunks a closed connection would be the end.
    if (httpVersionMinor === 0) this.#socket.resetAndDestroy();
    else this.#socket.destroySoon();
  }

  async #end(
    last: string | Uint8Array,
    request: IncomingRequest,
    incoming: IncomingMessage,
    outgoing: ServerResponse,
  ): Promise<void> {
    if (request.left) return;
    request.answered = true;
    this.#awaitsClient = true;
    // node:http announces the length by itself where it is given all at once, to HTTP/1.1.
    const announces = incoming.complete && incoming.httpVersionMinor === 1;
    if (!announces && !outgoing.headersSent && !outgoing.hasHeader("Content-Length")) {
      outgoing.setHeader("Content-Length", typeof last === "string" ? encodeUtf8(last).length : last.length);
    }
    if (incoming.complete) {
      outgoing.end(last);
      return;
    }
    outgoing.flushHeaders();
    if (last.length > 0) outgoing.write(last);
    request.dropBody();
    await discardRest(incoming);
    if (incoming.complete) outgoing.end();
    else this.#socket.destroy();
  }
}

/**
 * A body whose small pieces are merged where they were read together: node:http would keep an object of its own for each
 * chunk, hundreds of times a chunk's size.
 */
class MergingMessage extends IncomingMessage {
  /** Its first `#heldBytes` bytes are what is not passed on yet. */
  #held: Uint8Array | undefined;
  #heldBytes = 0;

  /** Called by the parser. */
  override push(piece: Uint8Array | null): boolean {
    if (piece === null || piece.length > SMALL_PIECE_BYTES) {
      this.#passOn();
      return super.push(piece);
    }
    if (this.#held === undefined) {
      this.#held = piece;
      this.#heldBytes = piece.length;
      // By then the parser has gone through all that was read; it stops reading by itself only where nothing was held.
      queueMicrotask(() => {
        if (!this.#passOn()) this.socket.pause();
      });
      return true;
    }
    const bytes = this.#heldBytes + piece.length;
    if (bytes > this.#held.length) {
      const larger = new Uint8Array(Math.max(MERGED_BYTES_FIRST, 2 * bytes));
      larger.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = larger;
    }
    this.#held.set(piece, this.#heldBytes);
    this.#heldBytes = bytes;
    return bytes < this.readableHighWaterMark || this.#passOn();
  }

  /** @returns whether there is room for more */
  #passOn(): boolean {
    if (this.#held === undefined || this.destroyed) return true;
    const { buffer, byteOffset } = this.#held;
    this.#held = undefined;
    return super.push(Buffer.from(buffer, byteOffset, this.#heldBytes));
  }
}

/** What of a Request the app is given. */
class IncomingRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: RequestFields;
  /** The whole answer has been handed over. */
  answered = false;
  whenLeft: (() => void) | undefined;
  readonly #incoming: IncomingMessage;
  readonly #outgoing: ServerResponse;
  #controller: AbortController | undefined;
  #left = false;
  #body: ReadableStream<Uint8Array> | null | undefined;
  #dropBody: (() => void) | undefined;

  constructor(incoming: IncomingMessage, outgoing: ServerResponse) {
    this.#incoming = incoming;
    this.#outgoing = outgoing;
    this.method = incoming.method ?? "";
    this.headers = new RequestFields(incoming.rawHeaders);
    const target = incoming.url ?? "";
    // RFC 9112 §3.2: an absolute-form target speaks for itself; `*` is a target of OPTIONS only.
    const own = target.startsWith("/")
      ? target
      : target === "*" && this.method === "OPTIONS"
      ? "/*"
      : undefined;
    this.url = own === undefined ? target : `http://${this.headers.get("host") ?? ""}${own}`;
  }

  get left(): boolean {
    return this.#left;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#left) this.#controller.abort();
    }
    return this.#controller.signal;
  }

  /** The connection is gone. */
  leave(): void {
    if (this.#left || this.answered) return;
    this.#left = true;
    this.#controller?.abort();
    this.whenLeft?.();
  }

  get body(): ReadableStream<Uint8Array> | null {
    this.#body ??= this.headers.announceBody() ? this.#openBody() : null;
    return this.#body;
  }

  /** The whole body. Rejects with a TypeError when it breaks off. */
  async arrayBuffer(): Promise<ArrayBuffer> {
    const incoming = this.#incoming;
    if (incoming.complete && !incoming.destroyed) {
      // All of it is here. It is read chunk by chunk, as it was sent.
      const first: Uint8Array | null = incoming.read();
      if (first === null) return new ArrayBuffer(0);
      const pieces = [first];
      for (let next = incoming.read(); next !== null; next = incoming.read()) pieces.push(next);
      return exactBuffer(pieces.length === 1 ? first : Buffer.concat(pieces));
    }
    const reader = this.body?.getReader();
    if (reader === undefined) return new ArrayBuffer(0);
    // One buffer that grows: pieces may be small, and each holds on to all that was read with it.
    let buffer = new Uint8Array(BODY_BYTES_FIRST);
    let bytes = 0;
    for (;;) {
      const { value: piece, done } = await reader.read();
      if (done) return exactBuffer(buffer.subarray(0, bytes));
      if (bytes + piece.length > buffer.length) {
        const larger = new Uint8Array(2 * (bytes + piece.length));
        larger.set(buffer.subarray(0, bytes));
        buffer = larger;
      }
      buffer.set(piece, bytes);
      bytes += piece.length;
    }
  }

  /** Whoever read the body reads no more of it. */
  dropBody(): void {
    this.#dropBody?.();
  }

  #openBody(): ReadableStream<Uint8Array> {
    const incoming = this.#incoming;
    let asks = this.headers.has("expect") && incoming.httpVersionMinor === 1;
    let stop: () => void = ignore;
    this.#dropBody = () => stop();
    return new ReadableStream<Uint8Array>({
      start: (controller) => {
        const take = (piece: Uint8Array): void => {
          incoming.pause();
          controller.enqueue(new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength) as Uint8Array);
        };
        const end = (): void => {
          stop();
          controller.close();
        };
        const breakOff = (): void => {
          stop();
          // Before whoever reads hears of it: that the client left is the reason.
          this.leave();
          controller.error(new TypeError("Cannot read a body: it broke off"));
        };
        stop = () => {
          stop = ignore;
          incoming.off("data", take).off("end", end).off("close", breakOff);
        };
        if (incoming.destroyed) return breakOff();
        // Paused first: a listener for data would set it going.
        incoming.pause();
        incoming.on("data", take).on("end", end).on("close", breakOff);
      },
      pull: () => {
        // RFC 9110 §10.1.1: who asks before it sends is told to when the body is wanted.
        if (asks && !incoming.complete) this.#outgoing.writeContinue();
        asks = false;
        incoming.resume();
      },
      cancel: () => stop(),
    }, { highWaterMark: 0 });
  }
}

/** The header fields of a request, as Headers has them: names in any case, values of one name joined by commas. */
class RequestFields {
  readonly #values = new Map<string, string>();

  constructor(raw: readonly string[]) {
    for (let index = 0; index + 1 < raw.length; index += 2) {
      const name = (raw[index] ?? "").toLowerCase();
      const value = raw[index + 1] ?? "";
      const before = this.#values.get(name);
      this.#values.set(name, before === undefined ? value : `${before}, ${value}`);
    }
  }

  get(name: string): string | null {
    return this.#values.get(name.toLowerCase()) ?? null;
  }

  has(name: string): boolean {
    return this.#values.has(name.toLowerCase());
  }

  /** RFC 9112 §6: whether a body follows. */
  announceBody(): boolean {
    return this.#values.has("transfer-encoding") || (this.#values.get("content-length") ?? "0") !== "0";
  }
}

/** The status for a request that no app should see; the parser has refused what it cannot read at all. */
function refusalOf(incoming: IncomingMessage, fields: RequestFields): number | undefined {
  const { httpVersion } = incoming;
  if (httpVersion !== "1.1" && httpVersion !== "1.0") return 505;
  if (incoming.rawHeaders.length > 2 * FIELDS_MAX) return 431;
  // RFC 9112 §3.2: absent or doubled. No host has a comma.
  const host = fields.get("host");
  if (host === null || host.includes(",")) return 400;
  // RFC 9112 §6.1: faulty framing.
  if (httpVersion === "1.0" && fields.has("transfer-encoding")) return 400;
  const expect = fields.get("expect");
  if (expect !== null && expect.toLowerCase() !== "100-continue") return 417;
  return undefined;
}

function emptyAnswer(status: number): PlainAnswer {
  return { status, headers: { "Connection": "close" }, body: null };
}

function plainAnswer(response: Response): PlainAnswer {
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body: response.body === null ? null : piecesOfStream(response.body),
  };
}

function piecesOfStream(stream: ReadableStream<Uint8Array>): AnswerPieces {
  const reader = stream.getReader();
  return {
    async next() {
      const { value, done } = await reader.read();
      return done ? undefined : [value];
    },
    cancel: () => void reader.cancel().catch(ignore),
  };
}

/** What of a body is sent in pieces, what after them, and how long it is where node:http cannot see it. */
function inPieces(body: PlainAnswer["body"]): {
  readonly pieces?: AnswerPieces;
  readonly last: string | Uint8Array;
  readonly length?: number;
} {
  if (body === null) return { last: "" };
  if (typeof body !== "string" && !(body instanceof Uint8Array)) return { pieces: body, last: "" };
  if (body.length <= PART_BYTES) return { last: body };
  const bytes = typeof body === "string" ? encodeUtf8(body) : body;
  return { pieces: parts(bytes), last: "", length: bytes.length };
}

function parts(bytes: Uint8Array): AnswerPieces {
  let sent = 0;
  return {
    next() {
      if (sent >= bytes.length) return Promise.resolve(undefined);
      const part = bytes.subarray(sent, sent + PART_BYTES);
      sent += part.length;
      return Promise.resolve([part]);
    },
    cancel: ignore,
  };
}

/** Resolves when there is room again, or nobody to write to. */
function drained(outgoing: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      outgoing.off("drain", settle).off("close", settle);
      resolve();
    };
    outgoing.on("drain", settle).on("close", settle);
  });
}

/** Reads a body on that nobody wants, until it ends or is not worth it. */
function discardRest(incoming: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    let bytes = 0;
    const count = (piece: Uint8Array): void => {
      if ((bytes += piece.length) > UNWANTED_BYTES_MAX) settle();
    };
    const settle = (): void => {
      clearTimeout(timer);
      incoming.off("data", count).off("end", settle).off("close", settle);
      resolve();
    };
    const timer = setTimeout(settle, UNWANTED_MS_MAX);
    if (incoming.destroyed) return settle();
    incoming.on("data", count).on("end", settle).on("close", settle);
    incoming.resume();
  });
}

/** The bytes in a buffer of just their length. */
function exactBuffer({ buffer, byteOffset, byteLength }: Uint8Array): ArrayBuffer {
  return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
}

function ignore(): void {}
