// Chat events: reads the pieces of a streamed chat or completion. It runs once a token: plain checks only.
import type { ChatEvent, Sampling } from "../../chat.ts";
import type { Usage } from "../../usage.ts";
import { Fault } from "../../../faults/fault.ts";
import {
  answerInvalid,
  type AnswerObject,
  errorCodeOf,
  isErrorBody,
  isObject,
  listOf,
  objectOf,
  parseAnswer,
  textOf,
  TOOL_CALLS_MAX,
  wholeNumberOf,
} from "../answer_json.ts";
import type { EventReader, WireEvent, WireOptions } from "../wire.ts";
import {
  argumentsOf,
  type ChoiceCount,
  finishOf,
  logprobsOf,
  newToolCallId,
  stopSequenceOf,
  writtenIn,
} from "./choice.ts";
import { findUsage } from "./usage.ts";

const NOTHING: readonly ChatEvent[] = [];
const OPEN_BRACE = 0x7b;
/** Engines give each choice one piece an event, as a rule; so many pieces more are let pass. */
const PIECES_BESIDES_MAX = 16;

interface CallState {
  /** Ours: the position among the calls of the choice. */
  readonly position: number;
  readonly id: string;
}

interface ChoiceState {
  readonly calls: CallState[];
  /** The call that an index of the engine's stands for now. */
  readonly callAt: Map<number, CallState>;
  finished: boolean;
}

/**
 * One stream's reader. The end mark is `[DONE]`; engines that send none end with the last finish reason, or with the figures
 * that were asked for and come after it.
 */
export class ChatEventReader implements EventReader<ChatEvent> {
  readonly #form: "chat" | "completion";
  readonly #count: ChoiceCount;
  readonly #stop: readonly string[];
  readonly #wantsLogprobs: boolean;
  readonly #wantsUsage: boolean;
  readonly #choices = new Map<number, ChoiceState>();
  #choicesFinished = 0;
  #doneSeen = false;
  /** The last figures; engines that send them with every piece send sums. */
  #usage: Usage | undefined;
  #usageGiven = false;

  constructor(
    form: "chat" | "completion",
    count: ChoiceCount,
    request: Pick<Sampling, "stop" | "logprobs">,
    options: WireOptions,
  ) {
    this.#form = form;
    this.#count = count;
    this.#stop = request.stop;
    this.#wantsLogprobs = request.logprobs !== undefined;
    this.#wantsUsage = options.usageInStreams;
  }

  get ended(): boolean {
    return this.#doneSeen || (this.#allFinished && (this.#usageGiven || !this.#wantsUsage));
  }

  /** Figures that were asked for may never come: the answer is whole without them. */
  end(): readonly ChatEvent[] | undefined {
    return this.#doneSeen || this.#allFinished ? this.#close() : undefined;
  }

  get #allFinished(): boolean {
    return this.#choicesFinished === this.#count.max;
  }

  read({ event, data }: WireEvent): readonly ChatEvent[] {
    if (this.#doneSeen) return NOTHING;
    if (data.charCodeAt(0) !== OPEN_BRACE && data.trim() === "[DONE]") return this.#close();
    const chunk = parseAnswer(data);
    if (event === "error" || (isObject(chunk) && isErrorBody(chunk))) throw engineFailed(chunk);
    return this.#readChunk(objectOf(chunk, "an event"));
  }

  #readChunk(chunk: AnswerObject): readonly ChatEvent[] {
    const { choices } = chunk;
    const items: ChatEvent[] = [];
    if (choices !== null && choices !== undefined) {
      const pieces = listOf(choices, "its list of choices");
      if (pieces.length > this.#count.max + PIECES_BESIDES_MAX) {
        throw answerInvalid("an event has too many choices");
      }
      for (const choice of pieces) {
        this.#readChoice(objectOf(choice, "a choice"), items);
      }
    }
    const usage = findUsage(chunk.usage);
    if (usage !== undefined) {
      this.#usage = usage;
      if (this.#allFinished) this.#giveUsage(items);
    }
    return items.length === 0 ? NOTHING : items;
  }

  #readChoice(choice: AnswerObject, items: ChatEvent[]): void {
    // Which one it is may go unsaid where there is but one.
    const unsaid = choice.index === undefined || choice.index === null;
    const index = unsaid && this.#count.max === 1
      ? 0
      : wholeNumberOf(choice.index, this.#count.max, "a choice's index");
    let state = this.#choices.get(index);
    if (state === undefined) {
      state = { calls: [], callAt: new Map(), finished: false };
      this.#choices.set(index, state);
    }
    const before = items.length;
    if (this.#form === "completion") {
      this.#readText(choice, textOf(choice.text, "its text") ?? "", index, items);
    } else this.#readDelta(choice, state, index, items);
    if (state.finished && items.length > before) throw answerInvalid("a choice goes on after its end");
    const reason = finishOf(choice.finish_reason, state.calls.length > 0);
    if (reason === undefined || state.finished) return;
    state.finished = true;
    this.#choicesFinished++;
    const stopSequence = stopSequenceOf(choice, this.#stop);
    items.push(
      stopSequence === undefined
        ? { type: "finish", choice: index, reason }
        : { type: "finish", choice: index, reason, stopSequence },
    );
  }

  #readDelta(choice: AnswerObject, state: ChoiceState, index: number, items: ChatEvent[]): void {
    if (choice.delta === null || choice.delta === undefined) return;
    const delta = objectOf(choice.delta, "a delta");
    const { text, reasoning } = writtenIn(delta);
    if (reasoning !== "") items.push({ type: "reasoning", choice: index, text: reasoning });
    this.#readText(choice, text, index, items);
    const refusal = textOf(delta.refusal, "a refusal");
    if (refusal !== undefined && refusal !== "") {
      items.push({ type: "refusal", choice: index, text: refusal });
    }
    if (delta.tool_calls === null || delta.tool_calls === undefined) return;
    const fragments = listOf(delta.tool_calls, "its list of tool calls");
    if (fragments.length > TOOL_CALLS_MAX) throw answerInvalid("a delta has too many tool calls");
    for (const fragment of fragments) {
      readCall(objectOf(fragment, "a tool call"), state, index, items);
    }
  }

  #readText(choice: AnswerObject, text: string, index: number, items: ChatEvent[]): void {
    const logprobs = this.#wantsLogprobs ? logprobsOf(choice.logprobs) : undefined;
    if (logprobs !== undefined) items.push({ type: "text", choice: index, text, logprobs });
    else if (text !== "") items.push({ type: "text", choice: index, text });
  }

  /** The end mark. Choices whose end went unsaid end here. */
  #close(): readonly ChatEvent[] {
    if (this.#choices.size < this.#count.min) throw answerInvalid("it ends before every choice has begun");
    this.#doneSeen = true;
    const items: ChatEvent[] = [];
    for (const [choice, state] of this.#choices) {
      if (state.finished) continue;
      state.finished = true;
      items.push({ type: "finish", choice, reason: state.calls.length > 0 ? "tool_calls" : "stop" });
    }
    this.#giveUsage(items);
    return items;
  }

  #giveUsage(items: ChatEvent[]): void {
    if (this.#usage === undefined || this.#usageGiven) return;
    this.#usageGiven = true;
    items.push({ type: "usage", usage: this.#usage });
  }
}

/** A piece of a tool call, or the whole of it. */
function readCall(fragment: AnswerObject, state: ChoiceState, choice: number, items: ChatEvent[]): void {
  const called = fragment.function === null || fragment.function === undefined
    ? undefined
    : objectOf(fragment.function, "a tool call's function");
  const id = textOf(fragment.id, "a tool call's id") || undefined;
  const name = textOf(called?.name, "a tool call's name") || undefined;
  const slot = fragment.index === null || fragment.index === undefined
    ? undefined
    : wholeNumberOf(fragment.index, TOOL_CALLS_MAX, "a tool call's index");
  const text = argumentsOf(called?.arguments) ?? "";
  const known = findCall(state, slot, id, name);
  if (known !== undefined) {
    if (text !== "") items.push({ type: "tool_call", choice, index: known.position, arguments: text });
    return;
  }
  if (name === undefined) throw answerInvalid("a tool call begins without a name");
  if (state.calls.length === TOOL_CALLS_MAX) throw answerInvalid("it has too many tool calls");
  const call: CallState = { position: state.calls.length, id: id ?? newToolCallId() };
  state.calls.push(call);
  if (slot !== undefined) state.callAt.set(slot, call);
  items.push({ type: "tool_call", choice, index: call.position, id: call.id, name, arguments: text });
}

/**
 * The call that a fragment goes on with; undefined where it begins one. OpenAI gives an index to each fragment and the id to the
 * first. Others give no index, or 0 to all calls, each of them whole; or the id to every fragment: so a new id is a new call.
 */
function findCall(
  state: ChoiceState,
  slot: number | undefined,
  id: string | undefined,
  name: string | undefined,
): CallState | undefined {
  const atSlot = slot === undefined ? undefined : state.callAt.get(slot);
  if (slot === undefined && id === undefined) return name === undefined ? state.calls.at(-1) : undefined;
  if (id === undefined || atSlot?.id === id) return atSlot;
  return slot !== undefined && atSlot === undefined
    ? undefined
    : state.calls.findLast((call) => call.id === id);
}

function engineFailed(chunk: unknown): Fault {
  const code = isObject(chunk) ? errorCodeOf(chunk) : undefined;
  return new Fault(
    "upstream_failed",
    `Cannot go on with the stream: the engine failed, code ${code ?? "unknown"}`,
  );
}
