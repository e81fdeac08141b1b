// Doors: the ways in which an inference is asked for here, each with what a well engine behind it answers and how its dialect says
// that something failed.
import { answerJson, eventOf, type Script, streamEvents } from "./scripted_upstream.ts";

/** One way. */
export interface Door {
  readonly name: string;
  readonly dialect: "openai" | "anthropic" | "oip";
  /** Of the upstream behind it. */
  readonly kind: "openai" | "anthropic" | "openinference";
  readonly capability: "chat" | "completion" | "tensor";
  /** Whether the answer comes in events. */
  readonly streams: boolean;
  path(model: string): string;
  /** The body of a request that holds some words. */
  body(model: string, words: string): unknown;
  /** What the upstream sends of an answer before its text, with its text, and behind it; of a whole answer all of it is `text`. */
  readonly begin: readonly string[];
  text(words: string): string;
  readonly end: readonly string[];
}

const chatPieces = {
  begin: [],
  text: (words: string) =>
    eventOf({ choices: [{ index: 0, delta: { content: words }, finish_reason: null }] }),
  end: [
    eventOf({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
    eventOf({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 2 } }),
    eventOf("[DONE]"),
  ],
};
const whole = { streams: false, begin: [], end: [] };
const messagesOf = (words: string) => [{ role: "user", content: words }];

/** By name. */
export const DOORS = {
  chat: {
    ...whole,
    name: "chat",
    dialect: "openai",
    kind: "openai",
    capability: "chat",
    path: () => "/v1/chat/completions",
    body: (model, words) => ({ model, messages: messagesOf(words) }),
    text: (words) =>
      JSON.stringify({
        choices: [{ index: 0, message: { role: "assistant", content: words }, finish_reason: "stop" }],
        usage: { prompt_tokens: 3, completion_tokens: 2 },
      }),
  },
  chatStream: {
    ...chatPieces,
    name: "chat, streamed",
    dialect: "openai",
    kind: "openai",
    capability: "chat",
    streams: true,
    path: () => "/v1/chat/completions",
    body: (model, words) => ({ model, messages: messagesOf(words), stream: true }),
  },
  completionStream: {
    ...chatPieces,
    name: "completions, streamed",
    dialect: "openai",
    kind: "openai",
    capability: "completion",
    streams: true,
    path: () => "/v1/completions",
    body: (model, words) => ({ model, prompt: words, stream: true }),
    text: (words) => eventOf({ choices: [{ index: 0, text: words, finish_reason: null }] }),
    end: [
      eventOf({ choices: [{ index: 0, text: "", finish_reason: "stop" }] }),
      ...chatPieces.end.slice(1),
    ],
  },
  responsesStream: {
    ...chatPieces,
    name: "responses, streamed",
    dialect: "openai",
    kind: "openai",
    capability: "chat",
    streams: true,
    path: () => "/v1/responses",
    body: (model, words) => ({ model, input: words, stream: true }),
  },
  messages: {
    ...whole,
    name: "messages",
    dialect: "anthropic",
    kind: "anthropic",
    capability: "chat",
    path: () => "/v1/messages",
    body: (model, words) => ({ model, max_tokens: 50, messages: messagesOf(words) }),
    text: (words) =>
      JSON.stringify({
        type: "message",
        role: "assistant",
        content: [{ type: "text", text: words }],
        stop_reason: "end_turn",
        usage: { input_tokens: 3, output_tokens: 2 },
      }),
  },
  messagesStream: {
    name: "messages, streamed",
    dialect: "anthropic",
    kind: "anthropic",
    capability: "chat",
    streams: true,
    path: () => "/v1/messages",
    body: (model, words) => ({ model, max_tokens: 50, messages: messagesOf(words), stream: true }),
    begin: [
      eventOf({ type: "message_start", message: { usage: { input_tokens: 3 } } }, "message_start"),
      eventOf(
        { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
        "content_block_start",
      ),
    ],
    text: (words) =>
      eventOf(
        { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: words } },
        "content_block_delta",
      ),
    end: [
      eventOf({ type: "content_block_stop", index: 0 }, "content_block_stop"),
      eventOf(
        { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 2 } },
        "message_delta",
      ),
      eventOf({ type: "message_stop" }, "message_stop"),
    ],
  },
  infer: {
    ...whole,
    name: "infer",
    dialect: "oip",
    kind: "openinference",
    capability: "tensor",
    path: (model) => `/v2/models/${encodeURIComponent(model)}/infer`,
    body: (_, words) => ({ inputs: [{ name: "x", shape: [1], datatype: "BYTES", data: [words] }] }),
    text: (words) =>
      JSON.stringify({ outputs: [{ name: "y", shape: [1], datatype: "BYTES", data: [words] }] }),
  },
} as const satisfies Record<string, Door>;

/** Sends a good answer that says some words. */
export function answerWell(door: Door, words: string): Script {
  return door.streams
    ? streamEvents([...door.begin, door.text(words), ...door.end])
    : answerJson(JSON.parse(door.text(words)));
}

/** What an upstream is set to behind a door, and the model of the same name that it serves. */
export function servedBehind(
  door: Door,
  name: string,
  origin: string,
  settings: { readonly key?: string } & Readonly<Record<string, unknown>> = {},
): { upstream: { name: string; key?: string } & Record<string, unknown>; model: Record<string, unknown> } {
  return {
    upstream: {
      name,
      kind: door.kind,
      url: door.kind === "openai" ? `${origin}/v1` : origin,
      // At the start and never again.
      healthSeconds: 3600,
      ...settings,
    },
    model: { id: name, capabilities: [door.capability], servedBy: [{ upstream: name }] },
  };
}

/** The options of a request through a door. */
export function requestThrough(door: Door, model: string, words: string, token: string): RequestInit {
  return {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify(door.body(model, words)),
  };
}

/** Codes of what can go wrong behind the gate: status, our words for it, and Anthropic's type. */
const FAILURES = {
  "upstream-unreachable": [
    502,
    "The engine behind this model could not be reached, or dropped the connection.",
    "api_error",
  ],
  "upstream-failed": [502, "The engine behind this model failed.", "api_error"],
  "upstream-answer-invalid": [
    502,
    "The engine behind this model answered with something that is no valid answer.",
    "api_error",
  ],
  "upstream-timeout": [504, "The engine behind this model did not answer in time.", "timeout_error"],
  "deadline-exceeded": [504, "The request took longer than the server allows.", "timeout_error"],
  "overloaded": [503, "The server is busy. Try again shortly.", "overloaded_error"],
  "unavailable": [503, "The model is not ready.", "overloaded_error"],
  "stopping": [503, "The server is stopping. Try again shortly.", "overloaded_error"],
  "input-refused": [400, "The engine behind this model refused the input.", "invalid_request_error"],
  "context-length-exceeded": [
    400,
    "The input and the answer asked for are longer than the model's context.",
    "invalid_request_error",
  ],
  "internal": [500, "Something failed inside. The request id names the record of it.", "api_error"],
} as const;

/** A code of the trail for a failure. */
export type FailureCode = keyof typeof FAILURES;

/** The status and the whole body of a failure's answer. */
export function failureAnswer(
  dialect: Door["dialect"],
  code: FailureCode,
  requestId: string | null,
): readonly [status: number, body: unknown] {
  const [status, message, anthropicType] = FAILURES[code];
  switch (dialect) {
    case "openai": {
      const type = status < 500 ? "invalid_request_error" : "server_error";
      return [status, { error: { message, type, param: null, code: code.replaceAll("-", "_") } }];
    }
    case "anthropic":
      return [status, {
        type: "error",
        error: { type: anthropicType, message },
        request_id: requestId,
      }];
    case "oip":
      return [status, { error: message }];
  }
}

/** The events of a stream, as a client that is strict about their form reads them (WHATWG HTML §9.2.6). */
export function eventsIn(text: string): { readonly event: string; readonly data: string }[] {
  const blocks = text.split(/\r\n\r\n|\n\n|\r\r/);
  if (blocks.pop() !== "") throw new Error("the stream ends within an event");
  return blocks.map((block) => {
    const fields = block.split(/\r\n|\n|\r/).map((line) => /^(event|data): (.*)$/s.exec(line) ?? [line]);
    const of = (name: string): string[] =>
      fields.flatMap(([, field, value = ""]) => field === name ? [value] : []);
    if (fields.some(([, field]) => field === undefined)) throw new Error(`no event: ${block}`);
    return { event: of("event")[0] ?? "message", data: of("data").join("\n") };
  });
}

/** The text that the events of a stream hold for its reader. */
export function textIn(door: Door, events: readonly { readonly data: string }[]): string {
  return events.filter(({ data }) => data !== "[DONE]").map(({ data }) => JSON.parse(data)).map((event) => {
    if (door.dialect === "anthropic") return event.delta?.text ?? "";
    if (door.path("") === "/v1/responses") {
      return event.type === "response.output_text.delta" ? event.delta : "";
    }
    return event.choices?.[0]?.delta?.content ?? event.choices?.[0]?.text ?? "";
  }).join("");
}

/** Whether the last of the events is the mark of a stream that ended well. */
export function endsWell(events: readonly { readonly event: string; readonly data: string }[]): boolean {
  const last = events.at(-1);
  return last !== undefined &&
    (last.data === "[DONE]" || ["message_stop", "response.completed"].includes(last.event));
}

/** What the last event of a stream that broke is. */
export function failureEvent(
  door: Door,
  code: FailureCode,
  requestId: string | null,
): { readonly event: string; readonly data: unknown } {
  const [, body] = failureAnswer(door.dialect, code, requestId);
  if (door.dialect === "anthropic") return { event: "error", data: body };
  if (door.path("") !== "/v1/responses") return { event: "message", data: body };
  const { error } = body as { readonly error: Readonly<Record<string, unknown>> };
  return { event: "error", data: { code: error.code, message: error.message, param: null } };
}
