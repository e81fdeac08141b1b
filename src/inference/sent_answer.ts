// Sent answer: what of an answer in pieces was sent, put together again to be kept, up to a bound.
import { createHash, type Hash } from "node:crypto";
import type { ChatEvent } from "../engines/chat.ts";

/** UTF-16 code units of all texts together; the sealing bounds the bytes as well. */
const CHARACTERS_MAX = 1024 * 1024;

/** What an entry without any text counts. */
const ENTRY_CHARACTERS = 100;

interface SentCall {
  id: string;
  name: string;
  arguments: string;
}

interface SentChoice {
  text: string;
  reasoning: string;
  refusal: string;
  readonly toolCalls: Map<number, SentCall>;
  finish: string | null;
}

/** Collects what was sent of one answer: texts, and of sound its digest and size. */
export class SentAnswer {
  // Whatever numbers an engine gives them.
  readonly #choices = new Map<number, SentChoice>();
  #digest: Hash | undefined;
  #bytes = 0;
  #characters = 0;
  #cut = false;

  /** Whether the rest was too long to be kept. */
  get cut(): boolean {
    return this.#cut;
  }

  /** Takes pieces as they are sent: of a chat or completion, or of sound. */
  add(items: readonly (ChatEvent | Uint8Array)[]): void {
    for (const item of items) {
      if (item instanceof Uint8Array) {
        this.#digest ??= createHash("sha256");
        this.#digest.update(item);
        this.#bytes += item.length;
      } else this.#addEvent(item);
    }
  }

  /** What was sent as JSON; undefined where it was nothing. May be asked once. */
  text(): string | undefined {
    if (this.#digest !== undefined) {
      return JSON.stringify({ sha256: this.#digest.digest("hex"), bytes: this.#bytes });
    }
    if (this.#choices.size === 0) return undefined;
    const choices = inOrder(this.#choices).map(({ refusal, toolCalls, ...rest }) => ({
      ...rest,
      ...(refusal === "" ? {} : { refusal }),
      toolCalls: inOrder(toolCalls),
    }));
    return JSON.stringify({ choices });
  }

  #addEvent(event: ChatEvent): void {
    if (event.type === "usage") return;
    const choice = this.#entry(this.#choices, event.choice, newChoice);
    if (choice === undefined) return;
    switch (event.type) {
      case "text":
      case "reasoning":
      case "refusal":
        choice[event.type] += this.#fitting(event.text);
        return;
      case "tool_call": {
        const call = this.#entry(choice.toolCalls, event.index, newCall);
        if (call === undefined) return;
        call.id += this.#fitting(event.id ?? "");
        call.name += this.#fitting(event.name ?? "");
        call.arguments += this.#fitting(event.arguments);
        return;
      }
      case "finish":
        choice.finish = event.reason;
    }
  }

  #entry<Entry>(entries: Map<number, Entry>, index: number, make: () => Entry): Entry | undefined {
    let entry = entries.get(index);
    if (entry !== undefined) return entry;
    if (this.#characters + ENTRY_CHARACTERS > CHARACTERS_MAX) {
      this.#cut = true;
      return undefined;
    }
    this.#characters += ENTRY_CHARACTERS;
    entries.set(index, entry = make());
    return entry;
  }

  #fitting(text: string): string {
    const room = CHARACTERS_MAX - this.#characters;
    if (text.length > room) this.#cut = true;
    const fitting = text.slice(0, room);
    this.#characters += fitting.length;
    return fitting;
  }
}

function newChoice(): SentChoice {
  return { text: "", reasoning: "", refusal: "", toolCalls: new Map(), finish: null };
}

function newCall(): SentCall {
  return { id: "", name: "", arguments: "" };
}

function inOrder<Entry>(entries: ReadonlyMap<number, Entry>): readonly Entry[] {
  return [...entries].sort(([one], [other]) => one - other).map(([, entry]) => entry);
}
