// Stub upstream: an engine that computes nothing and speaks OpenAI's protocol on plain sockets, in a process of its own.
import {
  LAST_CHUNKS,
  MODELS_ANSWER,
  STREAM_HEAD,
  STUB_PACES,
  type StubModel,
  TOKEN_CHUNKS,
  WHOLE_ANSWER,
} from "./stub_answers.ts";

const BUFFER_BYTES = 4096;
const MODELS = Object.keys(STUB_PACES) as StubModel[];
const decoder = new TextDecoder("latin1");

for await (const socket of Deno.listen({ hostname: "127.0.0.1", port: Number(Deno.args[0]) })) {
  socket.setNoDelay(true);
  // A client that leaves makes a read or a write fail: that is how a connection ends here.
  serve(socket).catch(() => undefined).finally(() => socket.close());
}

async function serve(socket: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(BUFFER_BYTES);
  for (;;) {
    const request = await readRequest(socket, buffer);
    if (request === undefined) return;
    if (request.startsWith("GET ")) await write(socket, MODELS_ANSWER);
    else if (request.includes('"stream":true')) await stream(socket, modelOf(request));
    else await write(socket, WHOLE_ANSWER);
  }
}

/** Head and body; they fit into the buffer. */
async function readRequest(socket: Deno.Conn, buffer: Uint8Array): Promise<string | undefined> {
  for (let filled = 0;;) {
    const count = await socket.read(buffer.subarray(filled));
    if (count === null) return undefined;
    filled += count;
    const text = decoder.decode(buffer.subarray(0, filled));
    const bodyStart = text.indexOf("\r\n\r\n") + 4;
    if (bodyStart < 4) continue;
    const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(text)?.[1];
    const isWhole = length !== undefined
      ? filled - bodyStart >= Number(length)
      : !/\r\ntransfer-encoding:/i.test(text) || text.endsWith("\r\n0\r\n\r\n");
    if (isWhole) return text;
  }
}

function modelOf(request: string): StubModel {
  const model = MODELS.find((name) => request.includes(`"model":"${name}"`));
  if (model === undefined) throw new Error("Cannot answer: the request names no model of the stub");
  return model;
}

async function stream(socket: Deno.Conn, model: StubModel): Promise<void> {
  const paceMs = STUB_PACES[model];
  await write(socket, STREAM_HEAD);
  do {
    for (const token of TOKEN_CHUNKS) {
      await write(socket, token);
      if (paceMs > 0) await new Promise((resolve) => setTimeout(resolve, paceMs));
    }
  } while (model === "stub-slow" || model === "stub-endless");
  for (const last of LAST_CHUNKS) await write(socket, last);
}

async function write(socket: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await socket.write(bytes.subarray(written));
}
