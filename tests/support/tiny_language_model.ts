// Tiny language model: a Markov chain over words as the weights of a real llama graph, so that a real engine runs for real.
//
// Nothing is trained. The embedding of a token is one-hot, attention and feed-forward weigh nothing and pass it on, and the output
// matrix holds, for each token, the logarithms of how likely each other token follows it. What the model says is therefore known:
// at temperature 0 it says GREETING and stops; asked with tools it calls the weather tool; after a word of SENTENCES it goes on
// with that sentence. An embedding (mean pooling) is the bag of a text's tokens, so texts that share words are close.
//
// The file is in GGUF version 3 (github.com/ggml-org/ggml, docs/gguf.md), which llama.cpp loads.

/** What it answers at temperature 0. */
export const GREETING = "Hello from a tiny model that says one word after another.";
/** What it can go on with, word by word. */
export const SENTENCES = [
  "The gate sends your question to its engine, then brings this answer back.",
  "One two three four five six seven eight nine ten.",
] as const;
/** Begun so, by a prompt or by the assistant's own turn, it goes on until it is stopped. */
export const ENDLESS_BEGINNING = "It goes on";
const ENDLESS_ROUND = [" on", " and"] as const;
/** The call that it makes where it may call tools and a user spoke last. */
export const TOOL_CALL = { name: "get_weather", arguments: { city: "Paris" } } as const;
/** Length of its embeddings: a number for each token. */
export const TINY_MODEL_DIMENSIONS = 384;

/**
 * A call as templates of this form ask for it. Its opening mark comes in two pieces: the server refuses to run a vocabulary that
 * has the mark as one word.
 */
const CALL_PIECES = [
  "<tool",
  "_call>\n",
  '{"name": "',
  TOOL_CALL.name,
  '", "arguments": {"',
  "city",
  '": "',
  TOOL_CALL.arguments.city,
  '"}}',
  "\n</tool_call>",
];

/** Tokens that are no text. The server itself reads a token named `<|call|>` and fails on it, hence `<|tool|>`. */
const END_OF_TEXT = "<|endoftext|>";
const TURN_BEGINS = "<|im_start|>";
const TURN_ENDS = "<|im_end|>";
const CALL_BEGINS = "<|tool|>";

/** How conversations become text: turns between marks ("ChatML"), and tool calls as engines know them from many models. */
const CHAT_TEMPLATE = String.raw`
{%- if tools -%}
  {{- '<|im_start|>system\n# Tools\n<tools>' -}}
  {%- for tool in tools -%}{{- '\n' + (tool | tojson) -}}{%- endfor -%}
  {{- '\n</tools>\nCall a tool so:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'tool' -%}
    {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' -}}
  {%- elif message.role == 'assistant' -%}
    {{- '<|im_start|>assistant' -}}
    {%- if message.content -%}{{- '\n' + message.content -}}{%- endif -%}
    {%- for call in (message.tool_calls or []) -%}
      {%- set function = call.function or call -%}
      {{- '\n<tool_call>\n{"name": "' + function.name + '", "arguments": ' -}}
      {{- function.arguments | tojson -}}
      {{- '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
  {%- else -%}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
  {%- if tools and messages[-1].role == 'user' -%}{{- '<|tool|>' -}}{%- endif -%}
{%- endif -%}`;

/** Writes the model's file, about 3 MB. */
export async function writeTinyLanguageModel(path: string): Promise<void> {
  const vocabulary = vocabularyOf(TINY_MODEL_DIMENSIONS);
  await Deno.writeFile(path, ggufFile(settingsOf(vocabulary), tensorsOf(vocabulary)));
}

/** Tokens in the order of their ids. */
interface Vocabulary {
  readonly tokens: readonly { readonly text: string; readonly kind: TokenKind }[];
  /** @throws Error where there is no such token */
  idOf(text: string): number;
}

/** GGUF's `tokenizer.ggml.token_type`: bytes, marks, and whole words that are matched in texts as they stand. */
type TokenKind = "byte" | "mark" | "word";
const TOKEN_TYPES: Readonly<Record<TokenKind, number>> = { byte: 1, mark: 3, word: 4 };

/** Every byte, so that any text can be read and, under a grammar, written; then the words and the marks, filled up to `size`. */
function vocabularyOf(size: number): Vocabulary {
  const words = new Set([
    ...[GREETING, ...SENTENCES, ENDLESS_BEGINNING].flatMap(wordsOf),
    ...ENDLESS_ROUND,
    ...CALL_PIECES,
  ]);
  const tokens: { text: string; kind: TokenKind }[] = [
    ...byteCharacters().map((text) => ({ text, kind: "byte" as const })),
    ...[...words].map((text) => ({ text, kind: "word" as const })),
    ...[END_OF_TEXT, TURN_BEGINS, TURN_ENDS, CALL_BEGINS].map((text) => ({ text, kind: "mark" as const })),
  ];
  if (tokens.length > size) throw new Error(`${tokens.length} tokens do not fit into ${size}`);
  while (tokens.length < size) tokens.push({ text: `<|unused_${tokens.length}|>`, kind: "mark" });
  const ids = new Map(tokens.map(({ text }, id) => [text, id]));
  return {
    tokens,
    idOf(text) {
      const id = ids.get(text);
      if (id === undefined) throw new Error(`no token ${JSON.stringify(text)}`);
      return id;
    },
  };
}

/** Words with the space before them and the punctuation behind them. */
function wordsOf(sentence: string): string[] {
  return sentence.split(/(?= )/);
}

/** The characters that stand for the 256 bytes in vocabularies of GPT-2's form: visible ones for themselves, the others from U+0100. */
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const isVisible = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
    return String.fromCodePoint(isVisible ? byte : next++);
  });
}

/** How often what follows what. An answer begins behind a line end; a continuation begins behind any word. */
function chainOf({ tokens, idOf }: Vocabulary): Float64Array {
  const counts = new Float64Array(tokens.length ** 2);
  const lineEnd = idOf(byteCharacters()[0x0a] ?? "");
  const add = (start: number, pieces: readonly string[], weight: number): void => {
    let previous = start;
    for (const piece of pieces) {
      const next = idOf(piece);
      counts[previous * tokens.length + next] = weight + (counts[previous * tokens.length + next] ?? 0);
      previous = next;
    }
  };
  add(lineEnd, [...wordsOf(GREETING), TURN_ENDS], 3);
  for (const sentence of SENTENCES) add(lineEnd, [...wordsOf(sentence), TURN_ENDS], 1);
  add(idOf(CALL_BEGINS), [...CALL_PIECES, TURN_ENDS], 1);
  const [first = "", ...others] = wordsOf(ENDLESS_BEGINNING);
  add(idOf(first), [...others, ...ENDLESS_ROUND.toReversed()], 1);
  return counts;
}

/** A share of what is common anywhere goes to every token, so that it is never at a loss after a byte that no sentence has. */
const COMMON_SHARE = 0.02;
/** Instead of the logarithm of nothing. */
const LEAST_LOGARITHM = -18;

interface GgufTensor {
  readonly name: string;
  /** The fastest dimension first. */
  readonly shape: readonly number[];
  readonly values: Float32Array<ArrayBuffer>;
}

const HEAD_LENGTH = 64;
const FEED_FORWARD_LENGTH = 32;

/** The tensors of a llama graph of one block. Width and vocabulary have the same size: see the file's head. */
function tensorsOf(vocabulary: Vocabulary): GgufTensor[] {
  const size = vocabulary.tokens.length;
  const counts = chainOf(vocabulary);
  const common = Array.from({ length: size }, (_, next) => {
    let sum = 0;
    for (let previous = 0; previous < size; previous++) sum += counts[previous * size + next] ?? 0;
    return sum;
  });
  const commonTotal = common.reduce((sum, count) => sum + count, 0);

  const embedding = new Float32Array(size * size);
  const output = new Float32Array(size * size);
  for (let previous = 0; previous < size; previous++) {
    embedding[previous * size + previous] = 1;
    const row = counts.subarray(previous * size, (previous + 1) * size);
    const total = row.reduce((sum, count) => sum + count, 0);
    for (let next = 0; next < size; next++) {
      const commonly = COMMON_SHARE * (common[next] ?? 0) / commonTotal;
      const probability = ((row[next] ?? 0) + commonly) / (total + COMMON_SHARE);
      const logit = probability > 0 ? Math.log(probability) : LEAST_LOGARITHM;
      // The last norm makes of a one-hot vector one of length √size.
      output[next * size + previous] = logit / Math.sqrt(size);
    }
  }
  const ones = new Float32Array(size).fill(1);
  const nothing = (name: string, ...shape: [number, number]): GgufTensor => ({
    name,
    shape,
    values: new Float32Array(shape[0] * shape[1]),
  });
  return [
    { name: "token_embd.weight", shape: [size, size], values: embedding },
    { name: "output_norm.weight", shape: [size], values: ones },
    { name: "output.weight", shape: [size, size], values: output },
    { name: "blk.0.attn_norm.weight", shape: [size], values: ones },
    nothing("blk.0.attn_q.weight", size, size),
    nothing("blk.0.attn_k.weight", size, HEAD_LENGTH),
    nothing("blk.0.attn_v.weight", size, HEAD_LENGTH),
    nothing("blk.0.attn_output.weight", size, size),
    { name: "blk.0.ffn_norm.weight", shape: [size], values: ones },
    nothing("blk.0.ffn_gate.weight", size, FEED_FORWARD_LENGTH),
    nothing("blk.0.ffn_up.weight", size, FEED_FORWARD_LENGTH),
    nothing("blk.0.ffn_down.weight", FEED_FORWARD_LENGTH, size),
  ];
}

/** A value of the file's head, under the name of its type. */
type GgufValue =
  | { readonly text: string }
  | { readonly uint32: number }
  | { readonly float32: number }
  | { readonly bool: boolean }
  | { readonly texts: readonly string[] }
  | { readonly int32s: readonly number[] };

function settingsOf({ tokens, idOf }: Vocabulary): [name: string, value: GgufValue][] {
  const size = tokens.length;
  return [
    ["general.architecture", { text: "llama" }],
    ["general.name", { text: "tiny Markov chain" }],
    ["llama.vocab_size", { uint32: size }],
    ["llama.context_length", { uint32: 131_072 }],
    ["llama.embedding_length", { uint32: size }],
    ["llama.block_count", { uint32: 1 }],
    ["llama.feed_forward_length", { uint32: FEED_FORWARD_LENGTH }],
    ["llama.attention.head_count", { uint32: size / HEAD_LENGTH }],
    ["llama.attention.head_count_kv", { uint32: 1 }],
    ["llama.attention.layer_norm_rms_epsilon", { float32: 1e-6 }],
    ["llama.rope.dimension_count", { uint32: HEAD_LENGTH }],
    ["tokenizer.ggml.model", { text: "gpt2" }],
    ["tokenizer.ggml.pre", { text: "gpt-2" }],
    ["tokenizer.ggml.tokens", { texts: tokens.map(({ text }) => text) }],
    ["tokenizer.ggml.token_type", { int32s: tokens.map(({ kind }) => TOKEN_TYPES[kind]) }],
    // Words are matched whole, so no pairs of tokens are ever put together; the list must be there.
    ["tokenizer.ggml.merges", { texts: [] }],
    ["tokenizer.ggml.bos_token_id", { uint32: idOf(END_OF_TEXT) }],
    ["tokenizer.ggml.eos_token_id", { uint32: idOf(TURN_ENDS) }],
    ["tokenizer.ggml.padding_token_id", { uint32: idOf(END_OF_TEXT) }],
    ["tokenizer.ggml.add_bos_token", { bool: false }],
    ["tokenizer.chat_template", { text: CHAT_TEMPLATE.trimStart() }],
  ];
}

const GGUF_VERSION = 3;
const GGUF_ALIGNMENT = 32;
const GGUF_TYPES = { uint32: 4, int32: 5, float32: 6, bool: 7, text: 8, list: 9 } as const;
const GGUF_FLOAT32 = 0;

/** The file: head, settings, what tensors there are, and their values. */
function ggufFile(settings: [string, GgufValue][], tensors: readonly GgufTensor[]): Uint8Array<ArrayBuffer> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  const put = (bytes: Uint8Array<ArrayBuffer>): void => void pieces.push(bytes);
  const number = (bytes: number, set: (view: DataView) => void): void => {
    const view = new DataView(new ArrayBuffer(bytes));
    set(view);
    put(new Uint8Array(view.buffer));
  };
  const uint32 = (value: number): void => number(4, (view) => view.setUint32(0, value, true));
  const uint64 = (value: number): void => number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  const text = (value: string): void => {
    const bytes = new TextEncoder().encode(value);
    uint64(bytes.length);
    put(bytes);
  };
  const list = <Item>(type: number, items: readonly Item[], write: (item: Item) => void): void => {
    uint32(GGUF_TYPES.list);
    uint32(type);
    uint64(items.length);
    items.forEach(write);
  };
  const pad = (): void => {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    put(new Uint8Array(aligned(length) - length));
  };

  put(new TextEncoder().encode("GGUF"));
  uint32(GGUF_VERSION);
  uint64(tensors.length);
  uint64(settings.length);
  for (const [name, value] of settings) {
    text(name);
    if ("text" in value) {
      uint32(GGUF_TYPES.text);
      text(value.text);
    } else if ("uint32" in value) {
      uint32(GGUF_TYPES.uint32);
      uint32(value.uint32);
    } else if ("float32" in value) {
      uint32(GGUF_TYPES.float32);
      number(4, (view) => view.setFloat32(0, value.float32, true));
    } else if ("bool" in value) {
      uint32(GGUF_TYPES.bool);
      put(new Uint8Array([value.bool ? 1 : 0]));
    } else if ("texts" in value) {
      list(GGUF_TYPES.text, value.texts, text);
    } else {
      list(GGUF_TYPES.int32, value.int32s, uint32);
    }
  }
  let offset = 0;
  for (const { name, shape, values } of tensors) {
    text(name);
    uint32(shape.length);
    shape.forEach(uint64);
    uint32(GGUF_FLOAT32);
    uint64(offset);
    offset += aligned(values.byteLength);
  }
  pad();
  for (const { values } of tensors) {
    put(new Uint8Array(values.buffer));
    pad();
  }
  return concatenated(pieces);
}

function aligned(length: number): number {
  return Math.ceil(length / GGUF_ALIGNMENT) * GGUF_ALIGNMENT;
}

function concatenated(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
