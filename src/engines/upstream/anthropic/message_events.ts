// Message events: Anthropic's event stream of one message, read into the neutral pieces of a chat.
import { Fault } from "../../../faults/fault.ts";
import type { ChatEvent } from "../../chat.ts";
import type { EventReader } from "../wire.ts";
import {
  answerInvalid,
  type AnswerObject,
  errorCodeOf,
  isObject,
  objectOf,
  parseAnswer,
  textOf,
  TOOL_CALLS_MAX,
} from "../answer_json.ts";
import { argumentsOf, type MessageStop, stopOf, usageOf, wordOf } from "./messages.ts";

const NOTHING: readonly ChatEvent[] = [];
/** What `usage` tells; the figures of later events replace those of earlier ones, for they are sums. */
const COUNTS = [
  "input_tokens",
  "output_tokens",
  "cache_creation_input_tokens",
  "cache_read_input_tokens",
  "output_tokens_details",
] as const;

/** Blocks come one after the other; servers that open all calls before they close one have room as well. */
const BLOCKS_OPEN_MAX = 256;

/** One content block that has begun. */
interface OpenBlock {
  /** Which call of the answer it is, for a call of a tool; else undefined. */
  readonly call: number | undefined;
  hasArguments: boolean;
}

/** A reader for one stream: `message_start`, content blocks, `message_delta`, and `message_stop` as its end mark. */
export function openMessageReader(): EventReader<ChatEvent> {
  const blocks = new Map<unknown, OpenBlock>();
  const counts: Record<string, unknown> = {};
  let calls = 0;
  let started = false;
  let ended = false;
  let stop: MessageStop | undefined;

  const count = (usage: unknown): void => {
    if (!isObject(usage)) return;
    for (const name of COUNTS) {
      if (usage[name] !== undefined && usage[name] !== null) counts[name] = usage[name];
    }
  };

  const openBlock = ({ index, content_block: block }: AnswerObject): readonly ChatEvent[] => {
    if (typeof index !== "number" || !isObject(block)) throw answerInvalid("a content block is none");
    if (blocks.has(index)) throw answerInvalid("a content block begins twice");
    if (blocks.size === BLOCKS_OPEN_MAX) throw answerInvalid("too many content blocks are open");
    if (block.type !== "tool_use") {
      blocks.set(index, { call: undefined, hasArguments: false });
      // Empty by the protocol; a server that begins with text means it.
      if (block.type === "text") return written("text", block.text);
      return block.type === "thinking" ? written("reasoning", block.thinking) : NOTHING;
    }
    if (calls === TOOL_CALLS_MAX) throw answerInvalid("it has too many tool calls");
    const call = calls++;
    const input = block.input === undefined ? "{}" : argumentsOf(block.input);
    const hasArguments = input !== "{}";
    blocks.set(index, { call, hasArguments });
    return [{
      type: "tool_call",
      choice: 0,
      index: call,
      id: wordOf(block.id),
      name: wordOf(block.name),
      arguments: hasArguments ? input : "",
    }];
  };

  const readDelta = ({ index, delta }: AnswerObject): readonly ChatEvent[] => {
    const block = blocks.get(index);
    if (block === undefined || !isObject(delta)) throw answerInvalid("a piece belongs to no content block");
    switch (delta.type) {
      case "text_delta":
        return written("text", delta.text);
      case "thinking_delta":
        return written("reasoning", delta.thinking);
      case "input_json_delta": {
        const json = textOf(delta.partial_json, "the arguments of a call") ?? "";
        // The calls of their own tools are none of the caller's.
        if (block.call === undefined || json === "") return NOTHING;
        block.hasArguments = true;
        return [{ type: "tool_call", choice: 0, index: block.call, arguments: json }];
      }
      default:
        return NOTHING;
    }
  };

  const closeBlock = ({ index }: AnswerObject): readonly ChatEvent[] => {
    const block = blocks.get(index);
    if (block === undefined) throw answerInvalid("a content block ends that has not begun");
    blocks.delete(index);
    if (block.call === undefined || block.hasArguments) return NOTHING;
    // A call without arguments comes as no text at all; joined, they have to be JSON.
    return [{ type: "tool_call", choice: 0, index: block.call, arguments: "{}" }];
  };

  const close = (): readonly ChatEvent[] => {
    if (stop === undefined) throw answerInvalid("it ended without a stop reason");
    const usage = usageOf(counts);
    const items = [...blocks.keys()].flatMap((index) => closeBlock({ index }));
    items.push({ type: "finish", choice: 0, ...stop });
    if (usage !== undefined) items.push({ type: "usage", usage });
    ended = true;
    return items;
  };

  return {
    get ended() {
      return ended;
    },
    read({ data }) {
      if (ended) return NOTHING;
      const event = objectOf(parseAnswer(data), "an event");
      if (event.type === "error") throw errorFault(event);
      if (event.type === "message_start") {
        if (started || !isObject(event.message)) throw answerInvalid("a message begins that is none");
        started = true;
        count(event.message.usage);
        return NOTHING;
      }
      if (event.type === "ping") return NOTHING;
      if (!started) throw answerInvalid("its first event begins no message");
      switch (event.type) {
        case "content_block_delta":
          return readDelta(event);
        case "content_block_start":
          return openBlock(event);
        case "content_block_stop":
          return closeBlock(event);
        case "message_delta":
          stop = stopOf(objectOf(event.delta, "a change of the message")) ?? stop;
          count(event.usage);
          return NOTHING;
        case "message_stop":
          return close();
        default:
          // "New event types may be added": the API's versioning asks its readers to pass over them.
          return NOTHING;
      }
    },
  };
}

function written(type: "text" | "reasoning", value: unknown): readonly ChatEvent[] {
  const text = textOf(value, "a text") ?? "";
  return text === "" ? NOTHING : [{ type, choice: 0, text }];
}

/** Of an error only its code is told on: its words may quote anything. */
function errorFault(event: AnswerObject): Fault {
  const code = errorCodeOf(event);
  const kind = code === "overloaded_error" ? "overloaded" : "upstream_failed";
  return new Fault(kind, `Cannot go on with the stream: the engine failed, code ${code ?? "unknown"}`);
}
