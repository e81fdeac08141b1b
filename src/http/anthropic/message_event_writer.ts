// Message event writer: a streamed answer as Anthropic's events. Runs for every token: text is put together here, and only what
// changes is serialised.
import type { ChatEvent, FinishReason } from "../../engines/chat.ts";
import type { Usage } from "../../engines/usage.ts";
import { Fault } from "../../faults/fault.ts";
import { FAULT_TABLE } from "../../faults/fault_table.ts";
import { eventText, type EventWriter } from "../event_stream.ts";
import { anthropicDialect } from "./anthropic_error.ts";
import { describeUsage, type MessageHead, stopReasonOf } from "./messages_answer.ts";

/** What a stream has to know besides its events. */
export interface MessageForm {
  readonly head: MessageHead;
  /** Our estimate, for the first event; the engine's figure comes with the last. */
  readonly inputTokens: number;
  readonly showThinking: boolean;
  /** For an error that ends the stream. */
  readonly requestId: string;
}

type ToolCallEvent = Extract<ChatEvent, { readonly type: "tool_call" }>;

/** A call as far as it has come. */
interface Call {
  readonly id: string;
  readonly name: string;
  /** Arguments that were not sent yet. */
  held: string;
  closed: boolean;
  /** Where its JSON stands: open brackets, and whether in a string and behind a backslash. */
  depth: number;
  quoted: boolean;
  escaped: boolean;
  /** Its JSON object has ended. */
  complete: boolean;
}

/**
 * Writes one stream. Anthropic's blocks come one after the other, while engines may mix the pieces of several calls: a call that
 * comes while another's JSON is not complete waits until it is.
 */
export function messageEventWriter(
  { head, inputTokens, showThinking, requestId }: MessageForm,
): EventWriter<ChatEvent> {
  const calls = new Map<number, Call>();
  /** In their order; those before `nextCall` have begun. Nothing is taken off its beginning, which would move all that follow. */
  const ordered: Call[] = [];
  let nextCall = 0;
  let openCall: Call | undefined;
  let openBlock: "none" | "text" | "thinking" | "tool_use" = "none";
  /** Index of the open block, or of the last. */
  let block = -1;
  let refused = false;
  let ending: { readonly finish: FinishReason; readonly stopSequence?: string } = { finish: "stop" };
  let usage: Usage = { inputTokens, outputTokens: 0, countedBy: "estimate" };

  const closeBlock = (): string => {
    if (openBlock === "none") return "";
    openBlock = "none";
    if (openCall !== undefined) openCall.closed = true;
    openCall = undefined;
    return `event: content_block_stop\ndata: {"type":"content_block_stop","index":${block}}\n\n`;
  };
  /** `start` is the text of a JSON object. */
  const openNext = (kind: typeof openBlock, start: string): string => {
    const closing = closeBlock();
    openBlock = kind;
    block++;
    return `${closing}event: content_block_start\n` +
      `data: {"type":"content_block_start","index":${block},"content_block":${start}}\n\n`;
  };
  const delta = (type: string, field: string, text: string): string =>
    `event: content_block_delta\ndata: {"type":"content_block_delta","index":${block},` +
    `"delta":{"type":"${type}","${field}":${JSON.stringify(text)}}}\n\n`;

  const writeText = (text: string): string => {
    if (text === "") return "";
    const opening = openBlock === "text"
      ? ""
      : sendCalls(true) + openNext("text", '{"type":"text","text":""}');
    return opening + delta("text_delta", "text", text);
  };
  const writeThinking = (text: string): string => {
    if (text === "" || !showThinking) return "";
    const opening = openBlock === "thinking"
      ? ""
      : sendCalls(true) + openNext("thinking", '{"type":"thinking","thinking":"","signature":""}');
    return opening + delta("thinking_delta", "thinking", text);
  };
  const writeToolCall = (event: ToolCallEvent): string => {
    let call = calls.get(event.index);
    if (call === undefined) {
      call = newCall(event);
      calls.set(event.index, call);
      ordered.push(call);
    }
    if (call.closed) {
      // What follows a whole object means nothing; a piece of one that was cut off cannot be told any more.
      if (call.complete || event.arguments === "") return "";
      throw new Fault(
        "upstream_answer_invalid",
        "Cannot pass on a tool call: it goes on after its block has ended",
      );
    }
    call.held += event.arguments;
    follow(call, event.arguments);
    return sendCalls(false);
  };
  /** Sends what may be sent of the calls in their order. The last stays open, for more of it may come. */
  const sendCalls = (all: boolean): string => {
    let text = "";
    for (;;) {
      if (openCall === undefined) {
        const call = ordered[nextCall];
        if (call === undefined) return text;
        nextCall++;
        text += openNext(
          "tool_use",
          `{"type":"tool_use","id":${JSON.stringify(call.id)},"name":${
            JSON.stringify(call.name)
          },"input":{}}`,
        );
        openCall = call;
      }
      if (openCall.held !== "") text += delta("input_json_delta", "partial_json", openCall.held);
      openCall.held = "";
      if (nextCall === ordered.length || !(all || openCall.complete)) return text;
      text += closeBlock();
    }
  };
  const write = (event: ChatEvent): string => {
    switch (event.type) {
      case "text":
        return writeText(event.text);
      case "reasoning":
        return writeThinking(event.text);
      case "refusal":
        refused = true;
        return writeText(event.text);
      case "tool_call":
        return writeToolCall(event);
      case "finish":
        ending = event.stopSequence === undefined
          ? { finish: event.reason }
          : { finish: event.reason, stopSequence: event.stopSequence };
        return "";
      case "usage":
        usage = event.usage;
        return "";
    }
  };

  return {
    open: () =>
      eventText({
        type: "message_start",
        message: {
          id: head.id,
          type: "message",
          role: "assistant",
          model: head.model,
          content: [],
          stop_reason: null,
          stop_sequence: null,
          usage: describeUsage(usage),
        },
      }, "message_start"),
    items(batch) {
      let text = "";
      for (const event of batch) text += write(event);
      return text;
    },
    close() {
      const blocks = sendCalls(true) + closeBlock();
      const end = eventText({
        type: "message_delta",
        delta: {
          stop_reason: stopReasonOf(ending, calls.size > 0, refused),
          stop_sequence: ending.stopSequence ?? null,
        },
        usage: describeUsage(usage),
      }, "message_delta");
      return blocks + end + eventText({ type: "message_stop" }, "message_stop");
    },
    fault: (fault) =>
      eventText(anthropicDialect.errorBody(fault, FAULT_TABLE[fault.kind], requestId), "error"),
  };
}

function newCall({ id = "", name = "" }: ToolCallEvent): Call {
  return { id, name, held: "", closed: false, depth: 0, quoted: false, escaped: false, complete: false };
}

/** Follows the JSON of a call as far as it takes to see where its object ends. */
function follow(call: Call, piece: string): void {
  for (let index = 0; index < piece.length && !call.complete; index++) {
    const character = piece[index];
    if (call.escaped) call.escaped = false;
    else if (call.quoted) {
      if (character === "\\") call.escaped = true;
      else if (character === '"') call.quoted = false;
    } else if (character === '"') call.quoted = true;
    else if (character === "{" || character === "[") call.depth++;
    else if (character === "}" || character === "]") call.complete = --call.depth <= 0;
  }
}
