// Password rules: which passwords an account may be given, by length and by what guessers try first (ASVS V6.2).
import { no, ok, type Outcome } from "../faults/outcome.ts";

/** Why a password is refused. */
export type PasswordRefusal = "too_short" | "too_long" | "not_well_formed" | "common" | "like_name";

/** Characters are Unicode code points, not UTF-16 units: "🔑" counts once (NIST SP 800-63B §3.1.1.2). */
export const PASSWORD_CHARACTERS_MIN = 12;
/** In code points as well. */
export const PASSWORD_CHARACTERS_MAX = 256;

/** What the caller is told. */
export const PASSWORD_WORDS: Readonly<Record<PasswordRefusal, string>> = {
  too_short: `The password must have at least ${PASSWORD_CHARACTERS_MIN} characters.`,
  too_long: `The password must have at most ${PASSWORD_CHARACTERS_MAX} characters.`,
  not_well_formed: "The password must be well-formed Unicode.",
  common: "The password is too common or too simple. Choose another.",
  like_name: "The password is too much like the user name. Choose another.",
};

/** "Password1234!" is no better than "password": so many characters around a simple core do not save it. */
const AROUND_MAX = 8;
/** So few characters over and over are simple, whatever they are; more are when they are a common password. */
const UNIT_MAX = 4;
/** Shorter names are parts of too many words. */
const NAME_CHARACTERS_MIN = 4;

/** What fingers run along, and round again. */
const RUNS = [
  "1234567890",
  "!@#$%^&*()",
  "abcdefghijklmnopqrstuvwxyz",
  "qwertyuiopasdfghjklzxcvbnm",
  "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
];

// About 50,000 passwords that were leaked most often, in lower case. Loaded at the first use, for it takes some 20 MB and a
// server may run for months without anybody being given a password.
let common: Promise<ReadonlySet<string>> | undefined;

async function loadCommon(): Promise<ReadonlySet<string>> {
  const { dictionary } = await import("@zxcvbn-ts/language-common");
  return new Set(dictionary["passwords-common"]);
}

/**
 * Whether an account may have a password. Any mix of characters may be chosen (ASVS V6.2.5), and the password itself is
 * neither cut nor folded: lower case is only for the comparison.
 */
export async function checkPassword(
  password: string,
  username: string,
): Promise<Outcome<true, PasswordRefusal>> {
  // UTF-8 has no lone surrogates: all of them would become the same character, and passwords that differ the same bytes.
  if (!password.isWellFormed()) return no("not_well_formed");
  const length = countCharacters(password);
  if (length < PASSWORD_CHARACTERS_MIN) return no("too_short");
  if (length > PASSWORD_CHARACTERS_MAX) return no("too_long");
  const lower = password.toLowerCase();
  common ??= loadCommon();
  if (isCommon(lower, await common)) return no("common");
  return isLikeName(lower, username.toLowerCase()) ? no("like_name") : ok(true);
}

function isCommon(lower: string, common: ReadonlySet<string>): boolean {
  const length = countCharacters(lower);
  const cores = [
    lower.replace(/^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$/gu, ""),
    lower.replace(/^\P{L}+|\P{L}+$/gu, ""),
  ];
  return isSimple(lower, common) ||
    cores.some((core) => length - countCharacters(core) <= AROUND_MAX && isSimple(core, common));
}

/** Whether a text is a common password, a run, or a common password or a few characters over and over. */
function isSimple(lower: string, common: ReadonlySet<string>): boolean {
  if (common.has(lower) || isRun(lower)) return true;
  const characters = [...lower];
  for (let period = 1; period <= characters.length / 2; period++) {
    const unit = characters.slice(0, period).join("");
    if (period > UNIT_MAX && !common.has(unit)) continue;
    if (unit.repeat(Math.floor(characters.length / period)) === lower) return true;
  }
  return false;
}

function isRun(lower: string): boolean {
  const backwards = [...lower].reverse().join("");
  return RUNS.some((run) => {
    const rounds = run.repeat(Math.ceil(lower.length / run.length) + 1);
    return rounds.includes(lower) || rounds.includes(backwards);
  });
}

/** Whether the name, wherever and however often it stands there, makes up at least half of the password. */
function isLikeName(lower: string, name: string): boolean {
  if (countCharacters(name) < NAME_CHARACTERS_MIN) return false;
  return countCharacters(lower.replaceAll(name, "")) * 2 <= countCharacters(lower);
}

function countCharacters(text: string): number {
  return [...text].length;
}
