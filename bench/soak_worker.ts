// Soak worker: people on plain sockets who ask for chats, whole and streamed, leave in the middle, are refused, and keep count.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />

/** The stub answers the one with 32 tokens, and goes on with the other until its client leaves. */
export type SoakModel = "stub-burst" | "stub-endless";

/** Which requests there are, as bytes. */
export interface SoakRequests {
  readonly whole: Uint8Array;
  readonly stream: Uint8Array;
  readonly endless: Uint8Array;
}

export type SoakOrder =
  | {
    readonly kind: "start";
    readonly port: number;
    readonly callers: readonly { readonly requests: SoakRequests; readonly connections: number }[];
  }
  /** Each connection ends its request; then the last report comes. */
  | { readonly kind: "stop" };

/** What one caller was answered. */
export interface SoakCounts {
  /** Answers that came whole, streams included. */
  completed: number;
  inputTokens: number;
  outputTokens: number;
  /** Streams that were left after their first token. */
  left: number;
  /** Refusals by status and code, such as "429 budget_exhausted". */
  readonly refused: Record<string, number>;
}

/** Every second, and after the end. */
export interface SoakReport {
  readonly isLast: boolean;
  /** In the order of the callers. */
  readonly counts: readonly SoakCounts[];
}

const REPORT_MS = 1000;
/** Whoever is refused takes a breath, or there would be nothing but refusals. */
const REFUSED_PAUSE_MS = 25;
const BUFFER_BYTES = 64 * 1024;
const HEAD_END = "\r\n\r\n";
/** RFC 9112 §7.1. */
const LAST_CHUNK = "\r\n0\r\n\r\n";
const STREAM_DONE = `data: [DONE]\n\n${LAST_CHUNK}`;
const FIRST_TOKEN = '"delta":{"content":';
const USAGE = /"usage":\{"prompt_tokens":(\d+),"completion_tokens":(\d+)/;
const CODE = /"code":"([a-z_]+)"/;
/** What each connection does, over and over. */
const TURNS = ["whole", "whole", "stream", "whole", "endless"] as const;
const decoder = new TextDecoder("latin1");

const counts: SoakCounts[] = [];
let isStopping = false;

self.onmessage = async ({ data }: MessageEvent<SoakOrder>) => {
  if (data.kind === "stop") {
    isStopping = true;
    return;
  }
  const timer = setInterval(() => report(false), REPORT_MS);
  await Promise.all(data.callers.flatMap(({ requests, connections }) => {
    const counted: SoakCounts = { completed: 0, inputTokens: 0, outputTokens: 0, left: 0, refused: {} };
    counts.push(counted);
    return Array.from({ length: connections }, () => keepAsking(data.port, requests, counted));
  }));
  clearInterval(timer);
  report(true);
};

function report(isLast: boolean): void {
  self.postMessage({ isLast, counts } satisfies SoakReport);
}

async function keepAsking(port: number, requests: SoakRequests, counted: SoakCounts): Promise<void> {
  const connect = () => Deno.connect({ hostname: "127.0.0.1", port });
  const buffer = new Uint8Array(BUFFER_BYTES);
  let socket = await connect();
  for (let turn = 0; !isStopping; turn++) {
    const kind = TURNS[turn % TURNS.length] ?? "whole";
    const { status, body } = await exchange(socket, requests[kind], buffer, kind === "endless");
    if (status !== 200) {
      const reason = `${status} ${CODE.exec(body)?.[1] ?? "without a code"}`;
      counted.refused[reason] = (counted.refused[reason] ?? 0) + 1;
      await new Promise((resolve) => setTimeout(resolve, REFUSED_PAUSE_MS));
    } else if (kind === "endless") {
      counted.left++;
      socket.close();
      socket = await connect();
    } else {
      const [, input, output] = USAGE.exec(body) ?? [];
      if (kind === "stream" && !body.endsWith(STREAM_DONE)) {
        throw new Error(`Cannot go on: a stream broke: ${body}`);
      }
      if (output === undefined) throw new Error(`Cannot go on: an answer tells no usage: ${body}`);
      counted.completed++;
      counted.inputTokens += Number(input);
      counted.outputTokens += Number(output);
    }
  }
  socket.close();
}

/**
 * One request and its answer; the body of a stream with its chunks' heads.
 *
 * @param leaves whether the first token of a stream is enough
 */
async function exchange(
  socket: Deno.Conn,
  request: Uint8Array,
  buffer: Uint8Array,
  leaves: boolean,
): Promise<{ readonly status: number; readonly body: string }> {
  for (let written = 0; written < request.length;) written += await socket.write(request.subarray(written));
  let text = "";
  for (;;) {
    const count = await socket.read(buffer);
    if (count === null) throw new Error(`Cannot go on: the server closed a connection after: ${text}`);
    text += decoder.decode(buffer.subarray(0, count));
    const headEnd = text.indexOf(HEAD_END);
    if (headEnd === -1) continue;
    const bodyStart = headEnd + HEAD_END.length;
    const status = Number(text.slice(9, 12));
    const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(text)?.[1];
    const isWhole = length === undefined
      ? text.endsWith(LAST_CHUNK) || (leaves && status === 200 && text.includes(FIRST_TOKEN, bodyStart))
      : text.length - bodyStart >= Number(length);
    if (isWhole) return { status, body: text.slice(bodyStart) };
  }
}
