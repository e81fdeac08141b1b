// Event stream parser: server-sent events (WHATWG HTML §9.2.6) from bytes that come in any pieces.
import { UpstreamFault } from "./upstream_fault.ts";
import type { WireEvent } from "./wire.ts";

/** Parses one stream. */
export interface EventStreamParser {
  /**
   * Takes the next bytes and returns the events that they complete, in order. What no empty line ends is never an event.
   *
   * @throws Fault `upstream_answer_invalid` for bytes that are no UTF-8 and for an event that is too large; the parser is then over
   */
  push(bytes: Uint8Array): readonly WireEvent[];
}

const NONE: readonly WireEvent[] = [];
const COLON = 0x3a;
const SPACE = 0x20;

/**
 * Makes a parser. Unlike a browser's it is strict about UTF-8, and it ignores `id` and `retry`: nobody reconnects here.
 *
 * @param eventCharactersMax the most that one event's data, and any one line, may have: UTF-16 code units
 */
export function createEventStreamParser(eventCharactersMax = 1024 * 1024): EventStreamParser {
  // It takes the byte order mark off the beginning, as §9.2.5 wants it.
  const decoder = new TextDecoder("utf-8", { fatal: true });
  /** The beginning of a line whose end has not come. */
  let line = "";
  let data: string | undefined;
  let event = "";
  let afterCarriageReturn = false;

  function decode(bytes: Uint8Array): string {
    try {
      return decoder.decode(bytes, { stream: true });
    } catch {
      throw new UpstreamFault("upstream_answer_invalid", "Cannot read an event stream: it is not UTF-8");
    }
  }

  /** Makes every line end in LF. A CR ends its line at once; an LF that follows in the next piece belongs to it. */
  function unifyLineEnds(text: string): string {
    if (afterCarriageReturn && text !== "") {
      afterCarriageReturn = false;
      if (text.startsWith("\n")) text = text.slice(1);
    }
    if (!text.includes("\r")) return text;
    afterCarriageReturn = text.endsWith("\r");
    return text.replaceAll("\r\n", "\n").replaceAll("\r", "\n");
  }

  function requireSize(characters: number): void {
    if (characters > eventCharactersMax) {
      throw new UpstreamFault(
        "upstream_answer_invalid",
        "Cannot read an event stream: an event is too large",
      );
    }
  }

  /** Takes the line that stands from `start` to `end`; it is not empty. */
  function takeLine(text: string, start: number, end: number): void {
    if (text.startsWith("data", start)) {
      const value = valueOf(text, start + 4, end);
      if (value === undefined) return;
      data = data === undefined ? value : `${data}\n${value}`;
      requireSize(data.length);
    } else if (text.startsWith("event", start)) {
      event = valueOf(text, start + 5, end) ?? event;
    }
  }

  return {
    push(bytes) {
      const text = unifyLineEnds(decode(bytes));
      let end = text.indexOf("\n");
      if (end === -1) {
        // Joined, and never searched again: many small pieces of a long line cost no more than one large.
        requireSize(line.length + text.length);
        line += text;
        return NONE;
      }
      let events: WireEvent[] | undefined;
      let start = 0;
      if (line !== "") {
        line += text.slice(0, end);
        requireSize(line.length);
        takeLine(line, 0, line.length);
        line = "";
        start = end + 1;
        end = text.indexOf("\n", start);
      }
      for (; end !== -1; start = end + 1, end = text.indexOf("\n", start)) {
        if (end !== start) {
          takeLine(text, start, end);
          continue;
        }
        if (data !== undefined) (events ??= []).push({ event: event === "" ? "message" : event, data });
        data = undefined;
        event = "";
      }
      line = text.slice(start);
      requireSize(line.length);
      return events ?? NONE;
    },
  };
}

/** The value of a field whose name ends at `nameEnd`; undefined where the name goes on, and is thus another one. */
function valueOf(text: string, nameEnd: number, end: number): string | undefined {
  if (nameEnd === end) return "";
  // Beyond the line's end stands its LF or nothing: never a colon.
  if (text.charCodeAt(nameEnd) !== COLON) return undefined;
  const start = text.charCodeAt(nameEnd + 1) === SPACE ? nameEnd + 2 : nameEnd + 1;
  return text.slice(start, end);
}
