// Count tokens: the estimate against counts of a real vocabulary (o200k_base), and its bounds.
import { ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { countChatTokens, countTokens } from "../../src/inference/count_tokens.ts";
import { anyText } from "../support/any_text.ts";

/** Each with its count by o200k_base, and by how much of it the estimate may be off. */
const SAMPLES: readonly (readonly [kind: string, tokens: number, off: number, text: string])[] = [
  [
    "english",
    71,
    0.1,
    "The gate reads every request before anything costs: who is asking, what may be done, and how much of it. What it refuses is written down with the reason, and what it allows is written down before the model runs. A server that cannot keep its record does not answer, because an answer without a record is one that nobody can account for.",
  ],
  [
    "german",
    64,
    0.1,
    "Die Verarbeitung personenbezogener Daten ist zu dokumentieren, und auf Anfrage ist Auskunft zu erteilen. Bitte schicken Sie mir die Rechnung noch einmal zu, ich habe sie leider nicht erhalten. Kannst du mir erklären, wie eine Wärmepumpe funktioniert und ab wann sie sich für ein Einfamilienhaus lohnt?",
  ],
  [
    "code",
    102,
    0.1,
    "export function stepped(costs: readonly number[], step: number, count: number): number {\n  const last = costs.length - 1;\n  return count <= last ? costs[count] ?? 0 : (costs[last] ?? 0) + (count - last) * step;\n}\n\nfor (let index = 0; index < text.length; index++) {\n  if (text.charCodeAt(index) > 127) throw new RangeError(`no ASCII at ${index}`);\n}\n",
  ],
  [
    "JSON",
    64,
    0.1,
    '{"id":"msg_01","type":"message","role":"assistant","content":[{"type":"text","text":"Hello"}],"usage":{"input_tokens":1234,"output_tokens":56},"stop_reason":"end_turn","tags":["a","b"],"score":0.9375,"parent":null}',
  ],
  [
    "Chinese",
    60,
    0.15,
    "人工智能，这个曾经只存在于科幻小说中的概念，如今已经悄然渗透到我们生活的每一个角落。从手机里的语音助手到社交媒体的推荐算法，从医院的影像诊断到自动驾驶的感知系统。",
  ],
  ["emoji", 31, 0.3, "😀🎉🚀❤️👍🏽👨‍👩‍👧‍👦🔥✅🇩🇪🤷‍♂️"],
];

for (const [kind, tokens, off, text] of SAMPLES) {
  Deno.test(`the estimate of ${kind} is at most ${off * 100} % off`, () => {
    const estimate = countTokens(text);
    ok(Math.abs(estimate - tokens) <= tokens * off, `${estimate} for ${tokens}`);
  });
}

Deno.test("the empty text has no tokens and every other has at least one", () => {
  strictEqual(countTokens(""), 0);
  for (const text of [" ", "\n", "a", "\ud83d", "é", "。"]) ok(countTokens(text) >= 1, JSON.stringify(text));
});

Deno.test("a text has at most three tokens a code unit (property)", () => {
  fc.assert(fc.property(anyText, (text) => {
    const tokens = countTokens(text);
    ok(Number.isSafeInteger(tokens) && tokens <= 3 * text.length, String(tokens));
  }));
});

Deno.test("time grows with the length alone: megabytes of one kind are counted", () => {
  for (
    const unit of [" ", "\n", "a", "A", "é", "1", "-", "─", "漢", "\ud83d", "😀", "a1", "aB", "\\", "\r\n\t "]
  ) {
    const text = unit.repeat(2_000_000 / unit.length);
    ok(countTokens(text) > 1000, JSON.stringify(unit));
  }
});

Deno.test("lines of boxes and dashes are not taken for words", () => {
  ok(countTokens("─".repeat(80)) < 20);
  ok(countTokens("=".repeat(80)) < 20);
  ok(countTokens(" ".repeat(80)) < 5);
});

Deno.test("all parts of a conversation count", () => {
  const none = countChatTokens([], []);
  strictEqual(none, 0);
  const user = (parts: Parameters<typeof countChatTokens>[0][number]["parts"]) =>
    countChatTokens([{ role: "user", parts: parts as never }], []);
  const text = user([{ type: "text", text: "hello there" }]);
  ok(text >= 2 && text < 12);
  strictEqual(user([{ type: "image", url: "data:image/png;base64,AAAA" }]), user([]) + 1000);
  ok(user([{ type: "image", url: "https://a.example/", detail: "low" }]) < 100);
  ok(user([{ type: "audio", data: "A".repeat(640_000), format: "wav" }]) > 90);
  const call = {
    role: "assistant",
    parts: [],
    toolCalls: [{ id: "c", name: "weather", arguments: '{"city":"Ulm"}' }],
  } as const;
  ok(countChatTokens([call], []) > countChatTokens([{ ...call, toolCalls: [] }], []) + 5);
  const tool = { name: "weather", description: "Tells the weather.", parameters: { type: "object" } };
  ok(countChatTokens([], [tool]) > 12);
  ok(countChatTokens([], [{ name: "weather" }]) < countChatTokens([], [tool]));
});

Deno.test("what vocabularies spell byte by byte is not taken for common text: each with its count by o200k_base", () => {
  const repeated = (text: string) => text.repeat(500);
  const cases: readonly (readonly [what: string, tokens: number, text: string])[] = [
    ["controls", 2000, repeated("\u0001\u0002\u0003\u0004")],
    ["nothing but NUL", 500, repeated("\0\0")],
    ["mixed white space", 1000, repeated("\t \t\u000b")],
    ["a blank before each digit", 2000, repeated(" 1 2")],
    ["private use", 2500, repeated("\ue000\ue123")],
    ["the same of private use", 1000, repeated("\ue000")],
    ["rare Han", 3000, repeated("\u3405\u4a01")],
    ["Yi", 3000, repeated("\ua100\ua200")],
    ["Ethiopic", 2000, repeated("\u1201\u1302")],
    ["combining marks", 1500, repeated("\u0302\u0310")],
    ["hieroglyphs", 4000, repeated("\u{13001}\u{13123}")],
    ["one rare mark again and again", 1000, repeated("\u2042")],
    ["brackets", 250, repeated("[")],
  ];
  for (const [what, tokens, text] of cases) {
    // What is reserved is a quarter more than the estimate.
    const estimate = countTokens(text);
    ok(1.25 * estimate >= tokens, `${what}: ${estimate} for ${tokens}`);
  }
});

Deno.test("runs of the same white space share tokens, also of line ends of two characters", () => {
  for (const [unit, max] of [[" ", 10], ["\n", 40], ["\t", 40], ["\r\n", 140]] as const) {
    ok(countTokens(unit.repeat(512)) <= max, JSON.stringify(unit));
  }
});

Deno.test("scripts with vocabularies of their own are not overcounted", () => {
  // Each with its count by o200k_base.
  const cases: readonly (readonly [tokens: number, text: string])[] = [
    [28, "Η τεχνητή νοημοσύνη αλλάζει τον τρόπο με τον οποίο εργαζόμαστε και ζούμε καθημερινά."],
    [18, "הבינה המלאכותית משנה את הדרך שבה אנו עובדים וחיים מדי יום."],
    [19, "الذكاء الاصطناعي يغير الطريقة التي نعمل ونعيش بها كل يوم."],
    [21, "कृत्रिम बुद्धिमत्ता हर दिन हमारे काम करने और जीने का तरीका बदल रही है।"],
    [27, "ปัญญาประดิษฐ์กำลังเปลี่ยนวิธีการทำงานและการใช้ชีวิตของเราทุกวัน"],
  ];
  for (const [tokens, text] of cases) {
    const estimate = countTokens(text);
    ok(Math.abs(estimate - tokens) <= 0.4 * tokens, `${estimate} for ${tokens}`);
  }
});
