// Stub answers: what the stub upstream sends, made beforehand, so that it costs the upstream next to nothing.

/** How the stub writes: callers choose by the model that they name. */
export const STUB_PACES = {
  /** One write after the other without a pause. */
  "stub-burst": 0,
  /** A write each millisecond at most, as engines do that compute for many. */
  "stub-paced": 1,
  /** As paced, until its client leaves. */
  "stub-endless": 1,
  /** A write each second until its client leaves: what holds a stream open for long. */
  "stub-slow": 1000,
} as const;

export type StubModel = keyof typeof STUB_PACES;

/** Tokens of every answer that ends. */
export const STUB_TOKENS = 32;
const STUB_INPUT_TOKENS = 29;

/** The request that is sent to the gate and to the bare proxy alike. */
export function chatBody(model: StubModel, stream: boolean): string {
  return JSON.stringify({
    model,
    messages: [
      { role: "system", content: "You are a helpful assistant who answers in one sentence." },
      { role: "user", content: "What does the quick brown fox do, and why does the dog not mind?" },
    ],
    max_tokens: 256,
    temperature: 0.7,
    ...(stream ? { stream: true, stream_options: { include_usage: true } } : {}),
  });
}

const encoder = new TextEncoder();
const HEAD = { id: "chatcmpl-stub", created: 1_700_000_000, model: "stub" };
const USAGE = {
  prompt_tokens: STUB_INPUT_TOKENS,
  completion_tokens: STUB_TOKENS,
  total_tokens: STUB_INPUT_TOKENS + STUB_TOKENS,
};
const WORDS = ["The", " quick", " brown", " fox", " jumps", " over", " the", " dog"];
const TOKENS = Array.from({ length: STUB_TOKENS }, (_, index) => WORDS[index % WORDS.length] ?? "");

/** The whole answer, head and body in one write. */
export const WHOLE_ANSWER = answer(JSON.stringify({
  ...HEAD,
  object: "chat.completion",
  choices: [{ index: 0, message: { role: "assistant", content: TOKENS.join("") }, finish_reason: "stop" }],
  usage: USAGE,
}));

/** The head of a stream. */
export const STREAM_HEAD = encoder.encode(
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
);

/** One chunk of the body for each token. */
export const TOKEN_CHUNKS: readonly Uint8Array[] = TOKENS.map((content) =>
  event({ choices: [{ index: 0, delta: { content }, finish_reason: null }] })
);

/** What follows the last token: finish, figures, end mark, end of the body. */
export const LAST_CHUNKS: readonly Uint8Array[] = [
  event({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  event({ choices: [], usage: USAGE }),
  chunk("data: [DONE]\n\n"),
  encoder.encode("0\r\n\r\n"),
];

/** `GET /v1/models`. */
export const MODELS_ANSWER = answer(
  JSON.stringify({ object: "list", data: Object.keys(STUB_PACES).map((id) => ({ id, object: "model" })) }),
);

function answer(body: string): Uint8Array {
  return encoder.encode(
    `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${
      encoder.encode(body).length
    }\r\n\r\n${body}`,
  );
}

function event(fields: Readonly<Record<string, unknown>>): Uint8Array {
  return chunk(`data: ${JSON.stringify({ ...HEAD, object: "chat.completion.chunk", ...fields })}\n\n`);
}

/** RFC 9112 §7.1. */
function chunk(text: string): Uint8Array {
  return encoder.encode(`${encoder.encode(text).length.toString(16)}\r\n${text}\r\n`);
}
