// Documents: what they say of the code is held against it.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { settingsReference } from "../src/cli/settings_reference.ts";
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

Deno.test("the README's table of routes and the actions behind it name every route", () => {
  const readme = read("README.md");
  const app = read("src/http/app.ts");
  ok(app.includes("routeTable"));
  for (
    const path of [
      "/v1/auth/login",
      "/v1/auth/logout",
      "/v1/models",
      "/v1/models/{id}",
      "/v1/embeddings",
      "/v2/models/{id}/infer",
      "/v2/models/{id}/ready",
      "/healthz",
      "/readyz",
      "/openapi.json",
      "/.well-known/jwks.json",
    ]
  ) {
    ok(readme.includes(`${path}\``), `README.md does not name ${path}`);
  }
});

function exists(path: string): boolean {
  try {
    return Deno.statSync(path) !== undefined;
  } catch {
    return false;
  }
}
