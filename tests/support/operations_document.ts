// Operations document: what docs/operations.md says, for the tests that hold it against what happens.

/** The whole text. */
export const OPERATIONS = Deno.readTextFileSync(`${import.meta.dirname}/../../docs/operations.md`);

/** The rules of the ACL user that it tells to make, without state and password. */
export function redisRulesIn(text: string): readonly string[] {
  const [, rules = ""] = /^ *user portcullis on >PASSWORD (.+)$/m.exec(text) ?? [];
  return rules.split(" ");
}

/** The rows of the table below a heading: the texts of their cells. */
export function tableBelow(heading: string, text: string): readonly (readonly string[])[] {
  const section = text.split(`\n## ${heading}\n`)[1]?.split("\n## ")[0] ?? "";
  return section.split("\n").filter((line) => line.startsWith("| ")).map((line) =>
    line.split("|").slice(1, -1).map((cell) => cell.trim())
  );
}
