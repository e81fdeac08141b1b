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
const SPACES_A_TOKEN = 64;
const SAME_MARKS_A_TOKEN = 16;
/** A surrogate pair: most emoji, rare ideographs. */
const PAIR_COST = 225;
/** A symbol right after the same: lines of boxes and dashes. */
const REPEATED_COST = 12;

/** Code units beyond ASCII that are no Latin letters, by their ranges: each costs so much. The first range that fits counts. */
const WIDE_COSTS: readonly (readonly [first: number, last: number, cost: number])[] = [
  [0x0080, 0x00bf, 110], // Latin-1 symbols
  [0x0400, 0x052f, 26], // Cyrillic
  [0x2000, 0x2bff, 110], // dashes, quotes, arrows, boxes, joiners of emoji
  [0x3000, 0x3040, 92], // marks of CJK
  [0x3041, 0x30ff, 61], // kana
  [0x3400, 0x9fff, 80], // Han
  [0xac00, 0xd7af, 69], // Hangul
  [0xfe00, 0xfe0f, 110], // variation selectors
  [0xff00, 0xffef, 92], // full-width forms
  [0x0080, 0xffff, 45], // all other scripts
];

const SPACE = 0, LINE_END = 1, SMALL = 2, ACCENTED = 3, CAPITAL = 4, DIGIT = 5, MARK = 6, PAIR = 7, WIDE = 8;
const UNITS = 0x10000;
/** What each code unit is. */
const KINDS = Uint8Array.from({ length: UNITS }, (_, code) => kindOf(code));
/** What each code unit costs that is WIDE. */
const COSTS = Uint8Array.from({ length: UNITS }, (_, code) => KINDS[code] === WIDE ? wideCost(code) : 0);

/**
 * About how many tokens a text is. Pure; time grows with the text's length, whatever is in it.
 *
 * Measured against o200k_base (GPT-4o and after), estimate to count: English +1 to +2 %, TypeScript and Python +5 %, minified
 * JavaScript +11 %, JSON -7 to +4 %, German -4 to -10 %, French +5 %, Russian -2 %, Turkish -14 %, Polish -19 %, Chinese +5 to
 * +10 % (lists of rare words -15 %), Japanese -5 %, Korean -1 %, emoji -12 to +30 %, base64 -8 %, hexadecimal +3 %. Against
 * cl100k_base (GPT-4) English and code are as above; German is -18 to -24 %, Chinese -12 to -40 %, emoji -15 to -28 %: older
 * vocabularies need more tokens for all but English.
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

function countJson(value: JsonValue | undefined): number {
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
    } else if (kind === SPACE || kind === LINE_END) {
      let lineEnd = start - 1;
      for (; index < length; index++) {
        const next = KINDS[text.charCodeAt(index)];
        if (next === LINE_END) lineEnd = index;
        else if (next !== SPACE) break;
      }
      // A line end clings to marks before it, and a single space to the word behind it.
      const lines = lineEnd + 1 - start;
      if (lines > 0) cost += (Math.floor(lines / SPACES_A_TOKEN) + (before === MARK ? 0 : 1)) * TOKEN;
      const spaces = index - 1 - lineEnd;
      if (spaces > 1) cost += Math.ceil(spaces / SPACES_A_TOKEN) * TOKEN;
      before = SPACE;
    } else if (kind === MARK) {
      let same = true;
      for (; index < length; index++) {
        const next = text.charCodeAt(index);
        if (KINDS[next] !== MARK) break;
        if (next !== code) same = false;
      }
      const count = index - start;
      if (same && count > 3) cost += Math.ceil(count / SAME_MARKS_A_TOKEN) * TOKEN;
      else cost += stepped(MARKS_COSTS, MARKS_STEP, count);
      const next = index < length ? KINDS[text.charCodeAt(index)] : MARK;
      if (next === SMALL || next === CAPITAL) cost -= JOINED_MARK_COST;
      before = MARK;
    } else if (kind === DIGIT) {
      while (index < length && KINDS[text.charCodeAt(index)] === DIGIT) index++;
      cost += Math.ceil((index - start) / DIGITS_A_TOKEN) * TOKEN;
      before = DIGIT;
    } else if (kind === PAIR) {
      index += 2;
      cost += PAIR_COST;
      before = MARK;
    } else {
      while (index < length && text.charCodeAt(index) === code) index++;
      const unit = COSTS[code] ?? 0;
      cost += unit < TOKEN ? unit * (index - start) : unit + REPEATED_COST * (index - start - 1);
      before = MARK;
    }
  }
  return cost;
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
  if (code === 0x0a || code === 0x0d) return LINE_END;
  if (code <= 0x20) return SPACE;
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
