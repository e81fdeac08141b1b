// The operations document: what it says of Redis's commands and of the log is held against the code.
import { deepStrictEqual, ok } from "node:assert/strict";
import { OPERATIONS, redisRulesIn, tableBelow } from "./support/operations_document.ts";

const SRC = `${import.meta.dirname}/../src`;

Deno.test("the user of Redis in docs/operations.md may run exactly the commands that the code runs", () => {
  const commands = new Set(["eval", "evalsha"]);
  for (const folder of ["store", "store/redis", "limits"]) {
    for (const { name, isFile } of Deno.readDirSync(`${SRC}/${folder}`)) {
      if (!isFile || !/redis/.test(name)) continue;
      const text = Deno.readTextFileSync(`${SRC}/${folder}/${name}`);
      for (const [, word = ""] of text.matchAll(/(?:\bcall\(|[(,?:] ?\[)"([A-Z]{2,})"/g)) {
        commands.add(word.toLowerCase());
      }
    }
  }
  // Wished for, and left out by whoever does not want to be warned.
  commands.delete("info");
  const allowed = redisRulesIn(OPERATIONS).filter((rule) => rule.startsWith("+")).map((rule) =>
    rule.slice(1)
  );
  deepStrictEqual(allowed.toSorted(), [...commands].toSorted());
});

Deno.test("docs/operations.md tells of every event that is logged as a warning or an error, and of none that is not logged", () => {
  const code = sourcesBelow(SRC).join("\n");
  const told = tableBelow("What to watch", OPERATIONS).slice(1)
    .flatMap(([events = ""]) => [...events.matchAll(/`([a-z_.]+)`/g)].map(([, event = ""]) => event));
  for (const event of told) ok(code.includes(`"${event}"`), `nothing logs ${event}`);
  const grave = [...code.matchAll(/(?:write|line)\(\s*(?:[^;"]*)"(?:warn|error)",\s*"([a-z_.]+)"/g)];
  ok(grave.length > 10);
  // A setting that is not used is no event of operation.
  const missing = grave.map(([, event = ""]) => event).filter((event) =>
    !told.includes(event) && !event.startsWith("settings.")
  );
  deepStrictEqual([...new Set(missing)], []);
});

function sourcesBelow(folder: string): readonly string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    return isDirectory ? sourcesBelow(path) : name.endsWith(".ts") ? [Deno.readTextFileSync(path)] : [];
  });
}
