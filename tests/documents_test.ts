// Documents: what they say of the code is held against it.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { settingsReference } from "../src/cli/settings_reference.ts";
import { parseConfig } from "../src/config/config.ts";
import { type SettingName, SETTINGS, variableOf } from "../src/config/schema.ts";

const ROOT = `${import.meta.dirname}/..`;
const read = (file: string): string => Deno.readTextFileSync(`${ROOT}/${file}`);
const documents = [
  "README.md",
  "ARCHITECTURE.md",
  "SECURITY.md",
  "CONTRIBUTING.md",
  "CHANGELOG.md",
  "permissions.md",
]
  .concat(
    [...Deno.readDirSync(`${ROOT}/docs`)].filter(({ name }) => name.endsWith(".md")).map(({ name }) =>
      `docs/${name}`
    ),
  );

Deno.test("docs/settings.md is what deno task settings prints", () =>
  strictEqual(read("docs/settings.md").trimEnd(), settingsReference().trimEnd()));

Deno.test("every setting's variable has its own name", () => {
  const names = (Object.keys(SETTINGS) as SettingName[]).map(variableOf);
  deepStrictEqual([...new Set(names)], names);
});

Deno.test("the README opens with the two commands", () => {
  const first = /```\n([\s\S]*?)```/.exec(read("README.md"))?.[1] ?? "";
  deepStrictEqual(first.trim().split("\n").map((line) => line.split("#")[0]?.trim()), [
    "deno task start",
    "deno task test",
  ]);
});

Deno.test("every link between documents leads to a file, and every task they name exists", () => {
  const tasks = Object.keys(JSON.parse(read("deno.json")).tasks);
  for (const document of documents) {
    const text = read(document);
    const folder = document.includes("/") ? `${document.slice(0, document.lastIndexOf("/"))}/` : "";
    for (const [, target = ""] of text.matchAll(/\]\(([^)#]+)\)/g)) {
      if (!/^https?:/.test(target)) {
        ok(exists(`${ROOT}/${folder}${target}`), `${document} leads to ${target}`);
      }
    }
    for (const [, task = ""] of text.matchAll(/deno(?:@[\d.]+)? task (?:--quiet )?([a-z][a-z:-]*)/g)) {
      ok(tasks.includes(task), `${document} names deno task ${task}`);
    }
  }
});

Deno.test("the README's list of tasks is the list of deno.json", () => {
  const listed = [...read("README.md").matchAll(/^\| `deno task ([a-z:-]+)` \|/gm)].map(([, task]) => task);
  // `setup` runs by itself, before whatever needs it.
  deepStrictEqual(
    listed.sort(),
    Object.keys(JSON.parse(read("deno.json")).tasks).filter((task) => task !== "setup").sort(),
  );
});

Deno.test("the README's table of routes names every route, itself or by what it stands under, and none that is not there", () => {
  // The table of docs/access.md is held against the route table by a test of its own.
  const routes = [...read("docs/access.md").matchAll(/^\| `[A-Z]+ (\/\S*)` \|/gm)].map(([, path = ""]) =>
    path
  );
  const rows = /\| route \| who \| what \|\n[\s\S]*?\n\n/.exec(read("README.md"))?.[0] ?? "";
  const named = [...rows.matchAll(/^\| ([^|]*) \|/gm)].flatMap(([, cell = ""]) =>
    [...cell.matchAll(/(\/[^`, ]*)`/g)].map(([, path = ""]) => path)
  );
  const covers = (path: string, route: string): boolean => route === path || route.startsWith(`${path}/`);
  deepStrictEqual(routes.filter((route) => !named.some((path) => covers(path, route))), []);
  deepStrictEqual(named.filter((path) => !routes.some((route) => covers(path, route))), []);
  ok(routes.length > 50, `only ${routes.length} routes were read`);
});

Deno.test("docs/storage.md has every table of the stores and every key of Redis", () => {
  const page = read("docs/storage.md");
  const stored = new Set<string>();
  for (const file of filesBelow("src")) {
    const text = read(file);
    for (const [, table = ""] of text.matchAll(/\b(?:\w*TABLE|PAIRS|CEILINGS) = "([a-z_]+)"/g)) {
      stored.add(table);
    }
    for (const [, table = ""] of text.matchAll(/\bsealed\("([a-z_]+)"\)/g)) stored.add(table);
    if (file.includes("limits")) {
      for (const [, table = ""] of text.matchAll(/CREATE TABLE IF NOT EXISTS (\w+)/g)) stored.add(table);
    }
    for (const [, key = ""] of text.matchAll(/redis\.key\([^)]*?[`"]([a-z]+):/g)) stored.add(`{P}:${key}:`);
    for (const [, key = ""] of text.matchAll(/^(?:export )?const [A-Z_]+ = "(record[a-z-]*:?)";$/gm)) {
      stored.add(`{P}:${key}`);
    }
  }
  deepStrictEqual(
    [...stored].filter((name) => !page.includes(name.includes(":") ? name : `\`${name}\``)),
    [],
  );
  ok(stored.size > 25, [...stored].join(" "));
});

Deno.test("every line of .env.example sets a setting to what is allowed", () => {
  const lines = [...read(".env.example").matchAll(/^#?(PORTCULLIS_\w+)=(.*)$/gm)];
  const variables: Record<string, string> = {};
  for (const [, variable = "", value = ""] of lines) {
    const secret = (Object.keys(SETTINGS) as SettingName[]).find((name) =>
      variable === `${variableOf(name)}_FILE`
    );
    // What is in the file of a secret is no matter here.
    if (secret === undefined) variables[variable] = value.replace(/^'(.*)'$/, "$1");
    else ok(SETTINGS[secret].secret, variable);
  }
  const parsed = parseConfig({ variables, file: undefined, cores: 2, storeExists: () => true });
  ok(parsed.ok, JSON.stringify(parsed));
  ok(lines.length > 10);
});

function filesBelow(folder: string): string[] {
  return [...Deno.readDirSync(`${ROOT}/${folder}`)].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesBelow(`${folder}/${name}`) : [`${folder}/${name}`]
  );
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path) !== undefined;
  } catch {
    return false;
  }
}
