// Load worker: writes requests and reads answers on plain sockets, for that costs less than fetch and hides nothing.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

export interface LoadOrder {
  readonly port: number;
  /** Whole requests, as bytes. */
  readonly requests: readonly Uint8Array[];
  readonly connections: number;
  readonly durationMs: number;
}

export interface LoadReport {
  readonly answers: number;
  /** The status of each answer that was not 200; 0 for a stream that ended without its mark. */
  readonly refusals: readonly number[];
  /** From the first request to the last answer. */
  readonly elapsedMs: number;
  /** Of each stream: from before the request to the first byte of the body. */
  readonly firstByteMs: readonly number[];
  /** Of each answer: from before the request to its last byte. */
  readonly answerMs: readonly number[];
}

const BUFFER_BYTES = 64 * 1024;
/** How a stream ends that is whole: OpenAI's mark, then the last chunk (RFC 9112 §7.1). */
const STREAM_END = "data: [DONE]\n\n\r\n0\r\n\r\n";
const decoder = new TextDecoder("latin1");

self.onmessage = async ({ data }: MessageEvent<LoadOrder>) => self.postMessage(await load(data));

async function load({ port, requests, connections, durationMs }: LoadOrder): Promise<LoadReport> {
  const sockets = await Promise.all(
    Array.from({ length: connections }, () => Deno.connect({ hostname: "127.0.0.1", port })),
  );
  let answers = 0;
  const refusals: number[] = [];
  const firstByteMs: number[] = [];
  const answerMs: number[] = [];
  const startMs = performance.now();
  await Promise.all(sockets.map(async (socket) => {
    const buffer = new Uint8Array(BUFFER_BYTES);
    while (performance.now() - startMs < durationMs) {
      const request = requests[answers++ % requests.length];
      if (request === undefined) throw new Error("Cannot put load on a server: there are no requests");
      const askedMs = performance.now();
      const status = await exchange(socket, request, buffer, firstByteMs);
      answerMs.push(performance.now() - askedMs);
      if (status !== 200) refusals.push(status);
    }
  }));
  const elapsedMs = performance.now() - startMs;
  for (const socket of sockets) socket.close();
  return { answers, refusals, elapsedMs, firstByteMs, answerMs };
}

/** One request and its whole answer; the status. Answers have a head that fits in the buffer. */
async function exchange(
  socket: Deno.Conn,
  request: Uint8Array,
  buffer: Uint8Array,
  firstByteMs: number[],
): Promise<number> {
  const askedMs = performance.now();
  for (let written = 0; written < request.length;) written += await socket.write(request.subarray(written));
  let filled = 0;
  let head = "";
  while (!head.includes("\r\n\r\n")) {
    filled += await read(socket, buffer.subarray(filled));
    head = decoder.decode(buffer.subarray(0, filled));
  }
  const bodyStart = head.indexOf("\r\n\r\n") + 4;
  const status = Number(head.slice(9, 12));
  const length = /^content-length: *(\d+)\r$/im.exec(head.slice(0, bodyStart))?.[1];
  if (length === undefined) {
    // A stream. What it says is not looked at here, only how it ends.
    let end = head.slice(bodyStart);
    if (end === "") end = decoder.decode(buffer.subarray(0, await read(socket, buffer)));
    firstByteMs.push(performance.now() - askedMs);
    while (!end.endsWith("\r\n0\r\n\r\n")) {
      const count = await read(socket, buffer);
      end = end.slice(-STREAM_END.length) +
        decoder.decode(buffer.subarray(Math.max(0, count - STREAM_END.length), count));
    }
    return end.endsWith(STREAM_END) ? status : 0;
  }
  // What the body says is not looked at here; how long it is decides where the next answer begins.
  for (let missing = Number(length) - (filled - bodyStart); missing > 0;) {
    missing -= await read(socket, buffer.subarray(0, Math.min(missing, buffer.length)));
  }
  return status;
}

async function read(socket: Deno.Conn, into: Uint8Array): Promise<number> {
  const count = await socket.read(into);
  if (count === null) throw new Error("Cannot read an answer: the server closed the connection");
  return count;
}
