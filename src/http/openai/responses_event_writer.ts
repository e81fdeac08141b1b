// Responses event writer: the pieces of a neutral answer as the numbered events of OpenAI's Responses API.
import type { ChatEvent, FinishReason } from "../../engines/chat.ts";
import type { Usage } from "../../engines/usage.ts";
import { Fault } from "../../faults/fault.ts";
import { FAULT_TABLE } from "../../faults/fault_table.ts";
import { eventText, type EventWriter } from "../event_stream.ts";
import { openaiDialect } from "./openai_error.ts";
import {
  callId,
  callItem,
  endStatus,
  INCOMPLETE,
  itemId,
  type ItemStatus,
  type OpenResponse,
  type OutputItem,
  type OutputPart,
  outputPart,
  responseObject,
  spokenItem,
} from "./responses_answer.ts";

/** A text that grows by deltas: a part of an item, or the arguments of a call. */
interface Growing {
  /** All of a delta's event before its number. */
  readonly head: string;
  /** All of it behind its text. */
  readonly tail: string;
  text: string;
}

/** A message or a reasoning that is under way. */
interface OpenSpoken {
  readonly type: "message" | "reasoning";
  readonly id: string;
  readonly index: number;
  readonly done: OutputPart[];
  part: Growing & { readonly type: OutputPart["type"] } | undefined;
}

/** A call that is under way. */
interface OpenCall extends Growing {
  readonly type: "function_call";
  readonly id: string;
  readonly index: number;
  readonly callId: string;
  readonly name: string;
}

const DELTA_EVENTS = {
  output_text: "response.output_text.delta",
  refusal: "response.refusal.delta",
  reasoning_text: "response.reasoning_text.delta",
  arguments: "response.function_call_arguments.delta",
} as const;

/** Each costs several events, and stands whole in the last one: an engine that alternates makes much of little. */
const ITEMS_MAX = 1000;
const PARTS_MAX = 1000;

/** Writes one stream. */
export class ResponsesEventWriter implements EventWriter<ChatEvent> {
  readonly #response: OpenResponse;
  readonly #requestId: string;
  readonly #nowSeconds: () => number;
  #sequence = 0;
  #parts = 0;
  /** By `output_index`; what is under way has its place already. */
  readonly #output: OutputItem[] = [];
  #spoken: OpenSpoken | undefined;
  /** By the engine's index. They stay open until the end, for an engine may write several at once. */
  readonly #calls = new Map<number, OpenCall>();
  readonly #callIds = new Set<string>();
  #finish: FinishReason = "stop";
  #usage: Usage | undefined;

  /** @param nowSeconds whole seconds since 1970, asked at the end */
  constructor(response: OpenResponse, requestId: string, nowSeconds: () => number) {
    this.#response = response;
    this.#requestId = requestId;
    this.#nowSeconds = nowSeconds;
  }

  open(): string {
    const response = responseObject(this.#response);
    return this.#event("response.created", { response }) + this.#event("response.in_progress", { response });
  }

  items(batch: readonly ChatEvent[]): string {
    let written = "";
    for (const event of batch) {
      // One answer was asked for, and only one has a place here.
      if (event.type !== "usage" && event.choice !== 0) continue;
      switch (event.type) {
        case "text":
          written += this.#say("message", "output_text", event.text);
          break;
        case "reasoning":
          written += this.#say("reasoning", "reasoning_text", event.text);
          break;
        case "refusal":
          written += this.#say("message", "refusal", event.text);
          break;
        case "tool_call":
          written += this.#call(event);
          break;
        case "finish":
          this.#finish = event.reason;
          written += this.#endItems();
          break;
        case "usage":
          this.#usage = event.usage;
          break;
      }
    }
    return written;
  }

  close(): string {
    const items = this.#endItems();
    const response = responseObject(this.#response, {
      output: this.#output,
      finish: this.#finish,
      usage: this.#usage,
      completedAt: this.#nowSeconds(),
    });
    const type = INCOMPLETE[this.#finish] === undefined ? "response.completed" : "response.incomplete";
    return items + this.#event(type, { response });
  }

  fault(fault: Fault): string {
    const body = openaiDialect.errorBody(fault, FAULT_TABLE[fault.kind], this.#requestId);
    const { code, message, param } =
      (body as { error: { code: string; message: string; param: string | null } }).error;
    return this.#event("error", { code, message, param });
  }

  /** A piece of what the model says or thinks. */
  #say(itemType: OpenSpoken["type"], partType: OutputPart["type"], text: string): string {
    if (text === "") return "";
    const open = this.#spoken;
    if (open?.part?.type === partType) return this.#grow(open.part, text);
    let written = "";
    let item = open;
    if (item?.type !== itemType) {
      written += this.#endSpoken("completed");
      const index = this.#output.length;
      item = {
        type: itemType,
        id: itemId(itemType, this.#response.id, index),
        index,
        done: [],
        part: undefined,
      };
      this.#spoken = item;
      written += this.#addItem(index, spokenItem(itemType, item.id, [], "in_progress"));
    } else written += this.#endPart(item);
    if (++this.#parts > PARTS_MAX) throw tooMany("parts", PARTS_MAX);
    const place = { item_id: item.id, output_index: item.index, content_index: item.done.length };
    written += this.#event("response.content_part.added", { ...place, part: outputPart(partType, "") });
    // Every delta of a text has to carry log probabilities, an empty list where there are none.
    const tail = partType === "output_text" ? ',"logprobs":[]}\n\n' : "}\n\n";
    const part = { ...growing(DELTA_EVENTS[partType], place, tail), type: partType };
    item.part = part;
    return written + this.#grow(part, text);
  }

  /** A piece of a call. */
  #call(event: Extract<ChatEvent, { type: "tool_call" }>): string {
    let written = "";
    let call = this.#calls.get(event.index);
    if (call === undefined) {
      written += this.#endSpoken("completed");
      const index = this.#output.length;
      const id = itemId("function_call", this.#response.id, index);
      const place = { item_id: id, output_index: index };
      call = {
        ...growing(DELTA_EVENTS.arguments, place, "}\n\n"),
        type: "function_call",
        id,
        index,
        callId: callId(event.id, id, this.#callIds),
        name: event.name ?? "",
      };
      this.#calls.set(event.index, call);
      written += this.#addItem(index, callItem(id, call.callId, call.name, "", "in_progress"));
    }
    return event.arguments === "" ? written : written + this.#grow(call, event.arguments);
  }

  /** The hot path: one event a token. JSON escapes every line end, so that no text can forge an event. */
  #grow(growing: Growing, delta: string): string {
    growing.text += delta;
    return `${growing.head}${this.#sequence++},"delta":${JSON.stringify(delta)}${growing.tail}`;
  }

  #addItem(output_index: number, item: OutputItem): string {
    if (output_index >= ITEMS_MAX) throw tooMany("items", ITEMS_MAX);
    this.#output.push(item);
    return this.#event("response.output_item.added", { output_index, item });
  }

  #doneItem(output_index: number, item: OutputItem): string {
    this.#output[output_index] = item;
    return this.#event("response.output_item.done", { output_index, item });
  }

  #endPart(item: OpenSpoken): string {
    const { part } = item;
    if (part === undefined) return "";
    const place = { item_id: item.id, output_index: item.index, content_index: item.done.length };
    const whole = outputPart(part.type, part.text);
    item.part = undefined;
    item.done.push(whole);
    const { type, text } = part;
    const done = type === "output_text"
      ? this.#event("response.output_text.done", { ...place, text, logprobs: [] })
      : type === "refusal"
      ? this.#event("response.refusal.done", { ...place, refusal: text })
      : this.#event("response.reasoning_text.done", { ...place, text });
    return done + this.#event("response.content_part.done", { ...place, part: whole });
  }

  #endSpoken(status: ItemStatus): string {
    const item = this.#spoken;
    if (item === undefined) return "";
    this.#spoken = undefined;
    return this.#endPart(item) +
      this.#doneItem(item.index, spokenItem(item.type, item.id, item.done, status));
  }

  #endCall({ id, index, callId, name, text }: OpenCall, status: ItemStatus): string {
    const place = { item_id: id, output_index: index };
    return this.#event("response.function_call_arguments.done", { ...place, arguments: text }) +
      this.#doneItem(index, callItem(id, callId, name, text, status));
  }

  /** Ends all that is under way. */
  #endItems(): string {
    const last = this.#output.length - 1;
    let written = "";
    for (const call of this.#calls.values()) {
      written += this.#endCall(call, endStatus(this.#finish, call.index === last));
    }
    this.#calls.clear();
    return written + this.#endSpoken(endStatus(this.#finish, this.#spoken?.index === last));
  }

  #event(type: string, fields: Readonly<Record<string, unknown>>): string {
    return eventText({ type, sequence_number: this.#sequence++, ...fields }, type);
  }
}

function growing(type: string, place: Readonly<Record<string, unknown>>, tail: string): Growing {
  const data = JSON.stringify({ type, ...place });
  return { head: `event: ${type}\ndata: ${data.slice(0, -1)},"sequence_number":`, tail, text: "" };
}

function tooMany(what: string, max: number): Fault {
  return new Fault(
    "upstream_answer_invalid",
    `Cannot write a response: the engine's answer has more than ${max} ${what}`,
  );
}
