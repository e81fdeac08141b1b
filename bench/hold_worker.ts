// Hold worker: opens many streams at once and keeps them open.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

export type HoldOrder =
  | { readonly kind: "open"; readonly port: number; readonly request: Uint8Array; readonly streams: number }
  | { readonly kind: "close" };

/** To `open`, once every stream has begun; to `close`, what came in between. */
export interface HoldReport {
  /** Reads that brought something: about one for each event. */
  readonly pieces: number;
  /** Streams that the server ended, or did not begin with 200. */
  readonly broken: number;
}

/** A server's queue of new connections is short: so many are opened together. */
const OPENED_TOGETHER = 50;
const BUFFER_BYTES = 4096;
const decoder = new TextDecoder("latin1");
const sockets: Deno.Conn[] = [];
let pieces = 0;
let broken = 0;
let closing = false;

self.onmessage = async ({ data }: MessageEvent<HoldOrder>) => {
  if (data.kind === "open") await open(data.port, data.request, data.streams);
  else {
    closing = true;
    for (const socket of sockets) socket.close();
  }
  self.postMessage({ pieces, broken } satisfies HoldReport);
  pieces = 0;
};

async function open(port: number, request: Uint8Array, streams: number): Promise<void> {
  while (sockets.length < streams) {
    const wanted = Math.min(OPENED_TOGETHER, streams - sockets.length);
    await Promise.all(Array.from({ length: wanted }, async () => {
      const socket = await Deno.connect({ hostname: "127.0.0.1", port });
      sockets.push(socket);
      await socket.write(request);
      const buffer = new Uint8Array(BUFFER_BYTES);
      const count = await socket.read(buffer);
      if (count === null || !decoder.decode(buffer.subarray(0, count)).startsWith("HTTP/1.1 200")) broken++;
      keepReading(socket, buffer);
    }));
  }
}

async function keepReading(socket: Deno.Conn, buffer: Uint8Array): Promise<void> {
  try {
    while (await socket.read(buffer) !== null) pieces++;
  } catch (thrown) {
    if (!closing) throw thrown;
  }
  if (!closing) broken++;
}
