// Tests of password rules: length and guessability decide, and nothing else does.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { checkPassword, PASSWORD_WORDS, type PasswordRefusal } from "../../src/identity/password_rules.ts";

const GOOD = { ok: true, value: true };
const refused = (reason: PasswordRefusal) => ({ ok: false, reason });

Deno.test("ASVS V6.2.1: 12 to 256 characters are due, counted in code points", async () => {
  // No two neighbours repeat, and nothing of it is a word.
  const text = (length: number) =>
    Array.from({ length }, (_, at) => String.fromCodePoint(0x3b1 + (at * at + at % 7) % 24)).join("");
  deepStrictEqual(await checkPassword("", "ada"), refused("too_short"));
  deepStrictEqual(await checkPassword(text(11), "ada"), refused("too_short"));
  deepStrictEqual(await checkPassword(text(12), "ada"), GOOD);
  deepStrictEqual(await checkPassword(text(64), "ada"), GOOD);
  deepStrictEqual(await checkPassword(text(256), "ada"), GOOD);
  deepStrictEqual(await checkPassword(text(257), "ada"), refused("too_long"));
  // Each is two UTF-16 units.
  const keys = (length: number) =>
    Array.from({ length }, (_, at) => String.fromCodePoint(0x1f300 + (at * 37) % 256)).join("");
  deepStrictEqual(await checkPassword(keys(11), "ada"), refused("too_short"));
  deepStrictEqual(await checkPassword(keys(12), "ada"), GOOD);
  deepStrictEqual(await checkPassword(keys(256), "ada"), GOOD);
  deepStrictEqual(await checkPassword(keys(257), "ada"), refused("too_long"));
});

Deno.test("a password with a lone surrogate is refused: UTF-8 would make it the same as others", async () => {
  for (const lone of ["\ud83d", "\udd11", "\udd11\ud83d"]) {
    deepStrictEqual(await checkPassword(`correct horse ${lone} staple`, "ada"), refused("not_well_formed"));
    deepStrictEqual(await checkPassword(lone, "ada"), refused("not_well_formed"));
  }
  deepStrictEqual(await checkPassword("correct horse \ud83d\udd11 staple", "ada"), GOOD);
});

Deno.test("ASVS V6.2.4, V6.2.12: what guessers try first is refused, in any case and with something around it", async () => {
  for (
    const password of [
      "qwertyuiop123",
      "1q2w3e4r5t6y",
      "michaeljackson",
      "MichaelJackson",
      "PASSWORDPASSWORD",
      "Password1234!",
      "password12345678",
      "!!!Password!!!",
      "2024Sunshine!",
      "  letmein  2025",
      "Dragon.......",
      "1234567890!!",
      "dragondragon",
      "DragonDragonDragon",
      "Trustno1Trustno1",
      "passwordpassword1!",
      "121212121212",
      "q7!zq7!zq7!z",
      "q7!zq7!zq7!z2025",
      "123456123456123456",
      "aaaaaaaaaaaaa",
      "AAAAaaaaAAAA",
      "............",
      "            ",
      "🔑🔑🔑🔑🔑🔑🔑🔑🔑🔑🔑🔑",
      "123456789012",
      "012345678901234567890",
      "098765432109",
      "abcdefghijkl",
      "zyxwvutsrqpo",
      "AbcdefghijklM",
      "qwertyuiopas",
      "!@#$%^&*()!@",
      "1qaz2wsx3edc4rfv5tgb",
      "abcdefghijkl2024",
      "x".repeat(256),
    ]
  ) deepStrictEqual(await checkPassword(password, "ada"), refused("common"), password);
});

Deno.test("ASVS V6.2.5: any mix of characters will do", async () => {
  for (
    const password of [
      "correct horse battery staple",
      "correcthorsebatterystaple",
      "violet kettle 31",
      "830174659201", // digits alone
      "&)-_(:}/~?{|", // signs alone
      "沿岸の灯台は夜明けに消えた",
      "пусть всегда будет чай",
      "gefühlt ßünf Möwen",
      "🦀🌊🔑🎻🧭🪁🥝🐙🎲🛶🧊🪐",
      "tab\tand\nnewline and\u0000nul",
      "Passwordabcd2", // the core is no listed word
      "password123456789", // as long as this around it, the rest counts too
      "k3#Qz9!mk3#Qz9!m", // what repeats is not listed
      "abcabdabeabf",
    ]
  ) deepStrictEqual(await checkPassword(password, "ada"), GOOD, password);
});

Deno.test("random passwords are accepted", async () => {
  const bytes = fc.uint8Array({ minLength: 18, maxLength: 18 });
  // Without bias or shrinking: both prefer all bytes alike, which is no random password.
  await fc.assert(
    fc.asyncProperty(fc.noShrink(fc.noBias(bytes)), async (random) => {
      deepStrictEqual(await checkPassword(random.toBase64({ alphabet: "base64url" }), "administrator"), GOOD);
    }),
    { numRuns: 1000 },
  );
});

Deno.test("ASVS V6.2.11: a password that is for the most part the user name is refused", async () => {
  for (
    const [password, username] of [
      ["grace.hopper", "grace.hopper"],
      ["Grace.Hopper", "gRACE.hOPPER"],
      ["grace.hopper1906", "grace.hopper"],
      ["1906-grace.hopper", "grace.hopper"],
      ["xgracehopperx1906", "gracehopper"],
      ["zzgrzegorzzz", "grzegorz"],
      ["qwlovelaceqw", "lovela"], // exactly half
      ["ÅngströmÅngs", "ångström"],
      ["Hugo-hugo-2025!hugo", "hugo"], // 12 of 19
    ] as const
  ) deepStrictEqual(await checkPassword(password, username), refused("like_name"), password);
  for (
    const [password, username] of [
      ["qxlovelaceqxz", "lovela"], // less than half
      ["adaxadayadaw", "ada"], // a short name is part of too much
      ["hugo-hugo-202!", "hug"],
      ["$&hugo$&1234x", "$&h"],
      ["correct horse battery staple", ""],
      ["correct horse battery staple", "correct"],
      ["grace hopper", "grace.hopper"], // a name is no pattern
    ] as const
  ) deepStrictEqual(await checkPassword(password, username), GOOD, password);
});

Deno.test("a listed password is refused as long as it is long enough, and the length comes first", async () => {
  deepStrictEqual(await checkPassword("password", "ada"), refused("too_short"));
  deepStrictEqual(await checkPassword("1234567890qwerty", "1234567890qwerty"), refused("common"));
});

Deno.test("every text has an answer with public words, always the same one", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.string({ unit: "binary", maxLength: 300 }),
      fc.string({ maxLength: 20 }),
      async (password, username) => {
        const checked = await checkPassword(password, username);
        deepStrictEqual(await checkPassword(password, username), checked);
        if (!checked.ok) ok(PASSWORD_WORDS[checked.reason].length > 0);
        const length = [...password].length;
        strictEqual(!checked.ok && checked.reason === "too_short", password.isWellFormed() && length < 12);
        strictEqual(!checked.ok && checked.reason === "too_long", password.isWellFormed() && length > 256);
      },
    ),
  );
});

Deno.test("the public words tell both bounds and never the password", () => {
  strictEqual(PASSWORD_WORDS.too_short, "The password must have at least 12 characters.");
  strictEqual(PASSWORD_WORDS.too_long, "The password must have at most 256 characters.");
});

Deno.test("the rules need no permission: their list comes with the module graph", async () => {
  const module = new URL("../../src/identity/password_rules.ts", import.meta.url).href;
  const worker = new Worker(
    `data:text/javascript,${
      encodeURIComponent(
        `import { checkPassword } from ${JSON.stringify(module)};
         postMessage(await checkPassword("michaeljackson", "ada"));`,
      )
    }`,
    { type: "module", deno: { permissions: "none" } },
  );
  try {
    const answer = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
    });
    deepStrictEqual(answer, refused("common"));
  } finally {
    worker.terminate();
  }
});
