// Setting types: how one setting's value is read from text (environment) or JSON (file), and what is allowed.
import { no, ok, type Outcome } from "../faults/outcome.ts";

/** How a kind of value is read. `allowed` completes the sentence "allowed: …". */
export interface SettingType<Value> {
  readonly allowed: string;
  /** `raw` is a string from the environment, or any JSON value from the file. */
  read(raw: unknown): Outcome<Value, "wrong">;
  /** What exactly is wrong with a value that `read` refused, where there is more to say than what is allowed. */
  explain?(raw: unknown): string;
}

/** A whole number between two bounds, both allowed. */
export function integer(min: number, max: number): SettingType<number> {
  return {
    allowed: `a whole number from ${min} to ${max}`,
    read(raw) {
      const value = typeof raw === "string" && /^\d{1,15}$/.test(raw) ? Number(raw) : raw;
      return typeof value === "number" && Number.isInteger(value) && value >= min && value <= max
        ? ok(value)
        : no("wrong");
    },
  };
}

/** One of a few words. */
export function oneOf<const Word extends string>(...words: readonly Word[]): SettingType<Word> {
  return {
    allowed: words.map((word) => `"${word}"`).join(" or "),
    read: (raw) => (words as readonly unknown[]).includes(raw) ? ok(raw as Word) : no("wrong"),
  };
}

/** A text that matches a pattern. */
export function text(allowed: string, pattern: RegExp): SettingType<string> {
  return { allowed, read: (raw) => typeof raw === "string" && pattern.test(raw) ? ok(raw) : no("wrong") };
}

/** A list: JSON array in the file, comma-separated in the environment. */
export function listOf<Item>(item: SettingType<Item>): SettingType<readonly Item[]> {
  return {
    allowed: `a list of: ${item.allowed}`,
    read(raw) {
      const parts = typeof raw === "string"
        ? (raw === "" ? [] : raw.split(",").map((part) => part.trim()))
        : raw;
      if (!Array.isArray(parts)) return no("wrong");
      const values: Item[] = [];
      for (const part of parts) {
        const read = item.read(part);
        if (!read.ok) return no("wrong");
        values.push(read.value);
      }
      return ok(values);
    },
  };
}

/** An origin: scheme, host and port, nothing behind (RFC 6454 §6.2). */
export const origin: SettingType<string> = {
  allowed: "an origin such as https://ai.example.com",
  read(raw) {
    if (typeof raw !== "string" || !URL.canParse(raw)) return no("wrong");
    const url = new URL(raw);
    return (url.protocol === "https:" || url.protocol === "http:") && url.origin === raw
      ? ok(raw)
      : no("wrong");
  },
};
