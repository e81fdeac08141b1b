// Count tokens: our own estimate, for engines that give no figures. No model's vocabulary; one pass over the text.
import type { JsonValue } from "../encoding/canonical_json.ts";
import type { ChatMessage, ChatPart, Tool } from "../engines/chat.ts";

// All costs are hundredths of a token, so that sums stay whole numbers.
const TOKEN = 100;

/** Of a word by its letters: up to four are one token; what is longer than the table grows by the last step. */
const WORD_COSTS = [0, 100, 100, 100, 101, 103, 106, 114, 128, 150, 180, 198, 220, 245, 280];
const WORD_STEP = 36;
/** Of a run of ASCII marks by its length. */
const MARKS_COSTS = [0, 100, 104, 122, 165, 210];
const MARKS_STEP = 50;

/** Each letter of a run of capitals longer than three. */
const CAPITAL_COST = 34;
/** A letter beyond ASCII within a Latin word, on top of the word's length. */
const ACCENT_COST = 42;
/** Each letter that stands against a digit: hexadecimal, base64, ids. */
const CIPHER_COST = 58;
/** What a mark saves that stands right before a letter, for some join. */
const JOINED_MARK_COST = 30;
const DIGITS_A_TOKEN = 3;
/** Runs of the same: only they share tokens. */
const SPACES_A_TOKEN = 64;
const TABS_A_TOKEN = 16;
const LINE_FEEDS_A_TOKEN = 16;
/** CR and LF together. */
const LINE_ENDS_A_TOKEN = 4;
const SAME_MARKS_A_TOKEN = 16;
/** Marks of which lines are drawn: vocabularies have long runs of these and of no others. */
const LINE_MARKS: ReadonlySet<number> = codesOf("!#%*+-./:;=_~");
/** The same beyond ASCII, and what each after the first costs. */
const LINE_SYMBOLS: ReadonlySet<number> = codesOf("\u00a0—…─━═");
const LINE_SYMBOL_COST = 12;

/** A surrogate pair: emoji, and whatever else, which is spelled byte by byte. */
const EMOJI_COST = 225;
const PAIR_COST = 400;
/** What no vocabulary has is spelled byte by byte, three of them. */
const SPELLED_COST = 300;

/** Code units that are neither ASCII's visible ones nor Latin letters, by ranges: each costs so much. The first that fits counts. */
const WIDE_COSTS: readonly (readonly [first: number, last: number, cost: number])[] = [
  [0x0000, 0x007f, 100], // controls
  [0x0080, 0x009f, 200], // more of them
  [0x00a0, 0x00bf, 110], // Latin-1 symbols
  [0x0250, 0x036f, 200], // phonetic letters, combining marks
  [0x0370, 0x03ff, 45], // Greek
  [0x0400, 0x045f, 26], // Cyrillic
  [0x0460, 0x052f, 200], // rare letters of it
  [0x0530, 0x06ff, 45], // Armenian, Hebrew, Arabic
  [0x0900, 0x0aff, 45], // Devanagari, Bengali, Gurmukhi, Gujarati
  [0x0b00, 0x0b7f, 120], // Odia
  [0x0b80, 0x0d7f, 45], // Tamil, Telugu, Kannada, Malayalam
  [0x0d80, 0x0dff, 60], // Sinhala
  [0x0e00, 0x0e7f, 45], // Thai
  [0x0e80, 0x0fff, 200], // Lao, Tibetan
  [0x1000, 0x109f, 60], // Burmese
  [0x10a0, 0x10ff, 45], // Georgian
  [0x1780, 0x17ff, 60], // Khmer
  [0x1ea0, 0x1ef9, 45], // Latin letters of Vietnamese
  [0x2000, 0x200a, 200], // rare spaces
  [0x200b, 0x2027, 110], // dashes, quotes, joiners of emoji
  [0x2028, 0x218f, 200], // rare marks, raised and lowered figures, currencies, letters as symbols
  [0x2190, 0x22ff, 110], // arrows, mathematics
  [0x2500, 0x27bf, 110], // boxes, symbols
  [0x3000, 0x3040, 92], // marks of CJK
  [0x3041, 0x30ff, 61], // kana
  [0x4e00, 0x9fff, 80], // Han
  [0xac00, 0xd7af, 69], // Hangul
  [0xfe0e, 0xfe0f, 110], // variation selectors of emoji
  [0xff00, 0xffef, 92], // full-width forms
  [0x0000, 0xffff, SPELLED_COST], // all others: rare Han and scripts, private use
];

const SPACE = 0, SMALL = 1, ACCENTED = 2, CAPITAL = 3, DIGIT = 4, MARK = 5, PAIR = 6, WIDE = 7;
const TAB = 0x09, LINE_FEED = 0x0a, CARRIAGE_RETURN = 0x0d, BLANK = 0x20;
const UNITS = 0x10000;
/** What each code unit is. */
const KINDS = Uint8Array.from({ length: UNITS }, (_, code) => kindOf(code));
/** What each code unit costs that is WIDE. */
const COSTS = Uint16Array.from({ length: UNITS }, (_, code) => KINDS[code] === WIDE ? wideCost(code) : 0);

/**
 * About how many tokens a text is. Pure; time grows with the text's length, whatever is in it.
 *
 * Measured against o200k_base (GPT-4o and after), estimate to count: English prose and documents 0 to +3 %, TypeScript and Python
 * +6 to +9 %, JSON -6 to +2 %, Greek, Arabic, Hindi, Thai +7 to +28 %, Vietnamese +50 %, random base64 -9 %. Against cl100k_base
 * (GPT-4) English and code are as above; other scripts need two to seven times as many tokens there as in newer vocabularies.
 *
 * Text can be made to be undercounted, by what no language has: random letters of one script are up to 2 times (ASCII, Latin), 3.3
 * times (Han, Hangul, Greek, Arabic, Indic) as many tokens by o200k_base as here, and 4 times by cl100k_base. What is spelled byte
 * by byte (controls, private use, rare Han, rare scripts) is counted as such.
 *
 * @returns 0 for the empty text, else at least 1
 */
export function countTokens(text: string): number {
  return text === "" ? 0 : Math.max(1, Math.ceil(costOf(text) / TOKEN));
}

/** What templates put around a message: its role and the marks of its begin and end. */
const MESSAGE_TOKENS = 4;
/** What templates put around a tool and around a call of one. */
const TOOL_TOKENS = 8;
/** Its size would tell, but engines count differently: OpenAI 765 for a square of 1024 pixels, Anthropic about 1,400. */
const IMAGE_TOKENS = 1000;
const SMALL_IMAGE_TOKENS = 85;
/** Base64 characters of a second of sound at common rates, and what OpenAI counts for it. */
const SOUND_CHARACTERS_A_SECOND = { wav: 64_000, mp3: 21_000 };
const SOUND_TOKENS_A_SECOND = 10;

/** About how many tokens a conversation is, tools and what templates add included. */
export function countChatTokens(messages: readonly ChatMessage[], tools: readonly Tool[]): number {
  let tokens = messages.length * MESSAGE_TOKENS;
  for (const message of messages) {
    for (const part of message.parts) tokens += countPart(part);
    if (message.role === "user" && message.name !== undefined) tokens += countTokens(message.name);
    if (message.role === "assistant") {
      if (message.refusal !== undefined) tokens += countTokens(message.refusal);
      for (const call of message.toolCalls) {
        tokens += TOOL_TOKENS + countTokens(call.name) + countTokens(call.arguments);
      }
    }
  }
  for (const { name, description, parameters } of tools) {
    tokens += TOOL_TOKENS + countTokens(name) + countTokens(description ?? "") + countJson(parameters);
  }
  return tokens;
}

function countPart(part: ChatPart): number {
  switch (part.type) {
    case "text":
      return countTokens(part.text);
    case "image":
      return part.detail === "low" ? SMALL_IMAGE_TOKENS : IMAGE_TOKENS;
    case "audio":
      return Math.ceil(part.data.length / SOUND_CHARACTERS_A_SECOND[part.format] * SOUND_TOKENS_A_SECOND);
  }
}

/** About how many tokens a value is as JSON; 0 where there is none. */
export function countJson(value: JsonValue | undefined): number {
  return value === undefined ? 0 : countTokens(JSON.stringify(value));
}

/** In hundredths of a token. */
function costOf(text: string): number {
  const { length } = text;
  let cost = 0;
  let index = 0;
  /** What came just before, without anything between. */
  let before = SPACE;
  while (index < length) {
    const start = index;
    const code = text.charCodeAt(index);
    const kind = KINDS[code];
    if (kind === SMALL || kind === ACCENTED || kind === CAPITAL) {
      while (index < length && KINDS[text.charCodeAt(index)] === CAPITAL) index++;
      const capitals = index - start;
      let accents = 0;
      for (; index < length; index++) {
        const next = KINDS[text.charCodeAt(index)];
        if (next === ACCENTED) accents++;
        else if (next !== SMALL) break;
      }
      const small = index - start - capitals;
      const ciphered = before === DIGIT || (index < length && KINDS[text.charCodeAt(index)] === DIGIT);
      // "JSONText": the last capital belongs to the word behind.
      if (small > 0) cost += wordCost(small + Math.min(capitals, 1), ciphered) + accents * ACCENT_COST;
      const alone = small > 0 ? capitals - 1 : capitals;
      if (alone > 0) cost += Math.max(TOKEN, alone * (ciphered ? CIPHER_COST : CAPITAL_COST));
      before = SMALL;
    } else if (kind === SPACE) {
      index = endOfSpaces(text, index);
      const next = index < length ? KINDS[text.charCodeAt(index)] : MARK;
      // A line end clings to marks before it, and a single space to what is behind it, unless that is a digit.
      const clings = code === LINE_FEED || code === CARRIAGE_RETURN
        ? before === MARK
        : index - start === 1 && next !== SPACE && next !== DIGIT;
      cost += (spaceTokens(code, index - start) - (clings ? 1 : 0)) * TOKEN;
      before = SPACE;
    } else if (kind === MARK) {
      let same = true;
      for (; index < length; index++) {
        const next = text.charCodeAt(index);
        if (KINDS[next] !== MARK) break;
        if (next !== code) same = false;
      }
      const count = index - start;
      if (same && count > 3 && LINE_MARKS.has(code)) cost += Math.ceil(count / SAME_MARKS_A_TOKEN) * TOKEN;
      else cost += stepped(MARKS_COSTS, MARKS_STEP, count);
      const next = index < length ? KINDS[text.charCodeAt(index)] : MARK;
      if (next === SMALL || next === CAPITAL) cost -= JOINED_MARK_COST;
      before = MARK;
    } else if (kind === DIGIT) {
      while (index < length && KINDS[text.charCodeAt(index)] === DIGIT) index++;
      cost += Math.ceil((index - start) / DIGITS_A_TOKEN) * TOKEN;
      before = DIGIT;
    } else if (kind === PAIR) {
      const isPair = (text.charCodeAt(index + 1) & 0xfc00) === 0xdc00;
      index += isPair ? 2 : 1;
      cost += !isPair ? SPELLED_COST : code >= 0xd83c && code <= 0xd83e ? EMOJI_COST : PAIR_COST;
      before = MARK;
    } else {
      while (index < length && text.charCodeAt(index) === code) index++;
      const unit = COSTS[code] ?? 0;
      const more = index - start - 1;
      cost += unit;
      if (more > 0) cost += more * (LINE_SYMBOLS.has(code) ? LINE_SYMBOL_COST : unit);
      before = MARK;
    }
  }
  return cost;
}

/** Where a run of the same white space ends; CR and LF together are one. */
function endOfSpaces(text: string, start: number): number {
  const code = text.charCodeAt(start);
  let index = start + 1;
  if (code !== CARRIAGE_RETURN) {
    while (text.charCodeAt(index) === code) index++;
    return index;
  }
  if (text.charCodeAt(index) !== LINE_FEED) return index;
  while (text.charCodeAt(index + 1) === CARRIAGE_RETURN && text.charCodeAt(index + 2) === LINE_FEED) {
    index += 2;
  }
  return index + 1;
}

/** Of so many code units of a run. */
function spaceTokens(code: number, units: number): number {
  switch (code) {
    case BLANK:
      return Math.ceil(units / SPACES_A_TOKEN);
    case TAB:
      return Math.ceil(units / TABS_A_TOKEN);
    case LINE_FEED:
      return Math.ceil(units / LINE_FEEDS_A_TOKEN);
    default:
      return Math.ceil(units / 2 / LINE_ENDS_A_TOKEN);
  }
}

function wordCost(letters: number, ciphered: boolean): number {
  return ciphered ? Math.max(TOKEN, letters * CIPHER_COST) : stepped(WORD_COSTS, WORD_STEP, letters);
}

/** From a table of costs by count; beyond its end each more costs a step. */
function stepped(costs: readonly number[], step: number, count: number): number {
  const last = costs.length - 1;
  return count <= last ? costs[count] ?? 0 : (costs[last] ?? 0) + (count - last) * step;
}

function kindOf(code: number): number {
  if (code === TAB || code === LINE_FEED || code === CARRIAGE_RETURN || code === BLANK) return SPACE;
  if (code < BLANK || code === 0x7f) return WIDE;
  if (code >= 0x61 && code <= 0x7a) return SMALL;
  if (code >= 0x41 && code <= 0x5a) return CAPITAL;
  if (code >= 0x30 && code <= 0x39) return DIGIT;
  if (code < 0x80) return MARK;
  // Letters of Latin-1, Latin Extended-A and -B; the two between are × and ÷.
  if (code >= 0xc0 && code <= 0x24f && code !== 0xd7 && code !== 0xf7) return ACCENTED;
  return code >= 0xd800 && code <= 0xdbff ? PAIR : WIDE;
}

function wideCost(code: number): number {
  return WIDE_COSTS.find(([first, last]) => code >= first && code <= last)?.[2] ?? 0;
}

function codesOf(characters: string): ReadonlySet<number> {
  return new Set(Array.from(characters, (character) => character.charCodeAt(0)));
}
