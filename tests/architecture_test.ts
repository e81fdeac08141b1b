// The architecture as a test: who may import whom, where each power lives, and that nothing lies about unused.
import { deepStrictEqual, ok } from "node:assert/strict";
import { join, normalize, relative } from "node:path/posix";

const ROOT = join(import.meta.dirname ?? "", "..");
const SOURCE = join(ROOT, "src");

const GROUND = ["faults", "encoding", "time", "telemetry"];
/** The twin of the table in ARCHITECTURE.md: each room and the rooms it may import from. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  faults: [],
  time: ["faults"],
  encoding: ["faults"],
  telemetry: ["faults", "time"],
  config: GROUND,
  store: GROUND,
  vault: [...GROUND, "store"],
  audit: [...GROUND, "store", "vault"],
  limits: [...GROUND, "store", "audit"],
  registry: [...GROUND, "store", "vault", "audit"],
  access: [...GROUND, "store", "vault"],
  identity: [...GROUND, "store", "vault", "audit", "limits", "access"],
  engines: [...GROUND, "registry"],
  inference: [...GROUND, "audit", "limits", "registry", "identity", "access", "engines"],
  http: [...GROUND, "audit", "limits", "registry", "identity", "access", "engines", "inference"],
  cli: [...GROUND, "config", "vault", "audit", "registry", "identity", "assembly"],
  assembly: [
    ...GROUND,
    "config",
    "store",
    "vault",
    "audit",
    "limits",
    "registry",
    "identity",
    "engines",
    "access",
  ],
  "assemble.ts": [
    ...GROUND,
    "config",
    "store",
    "vault",
    "audit",
    "limits",
    "registry",
    "identity",
    "engines",
    "access",
    "inference",
    "http",
    "assembly",
  ],
  "listener.ts": GROUND,
  "main.ts": [...GROUND, "config", "assemble.ts", "http", "listener.ts"],
};

/** Powers and the only places that have them. A folder stands for all files in it. */
const POWERS: readonly {
  readonly power: string;
  readonly pattern: RegExp;
  readonly homes: readonly string[];
}[] = [
  {
    power: "the environment",
    pattern: /\bDeno\.env\b|\bprocess\.env\b/,
    homes: ["config/environment.ts"],
  },
  {
    power: "a listening socket",
    pattern: /\bDeno\.(serve|listen|listenTls)\b|\bcreateServer\b/,
    homes: ["listener.ts"],
  },
  {
    power: "the time",
    pattern: /\bDate\.now\b|\bnew Date\(\)|\bperformance\.now\b/,
    homes: ["time/clock.ts"],
  },
  {
    power: "calls to other hosts",
    pattern: /(?<![.\w])fetch\(|\bDeno\.connect/,
    homes: [
      "engines/upstream",
      "identity/oidc",
      "vault/transit_master_key.ts",
      "audit/sinks",
      "cli/health_check.ts",
      "cli/rotate_vault.ts",
    ],
  },
  {
    power: "files",
    pattern:
      /\bDeno\.(open|read|write|stat|lstat|mkdir|rename|remove|truncate|copy|chmod|realPath|makeTemp|symlink|link)\w*\(/,
    homes: ["registry", "vault/private_file.ts", "config/environment.ts", "audit", "cli", "assembly"],
  },
  { power: "the terminal", pattern: /\bconsole\.|\bDeno\.std(out|err)\b/, homes: ["telemetry"] },
  { power: "other programs", pattern: /\bDeno\.(Command|run|dlopen)\b|\bchild_process\b/, homes: [] },
  { power: "code from text", pattern: /\beval\(|\bnew Function\b|\bimport\((?!\s*")/, homes: [] },
  { power: "chance that is not cryptographic", pattern: /\bMath\.random\b/, homes: [] },
];

interface SourceFile {
  /** Path below src/. */
  readonly name: string;
  readonly text: string;
  /** The text without comments and without the content of plain strings' lines that only speak. */
  readonly code: string;
  /** Paths below src/ that it imports or starts as workers. */
  readonly imports: readonly string[];
  /** Bare specifiers that it imports. */
  readonly packages: readonly string[];
}

const files = readFiles(SOURCE);

Deno.test("every import below src/ is allowed by the table of ARCHITECTURE.md", () => {
  const refused: string[] = [];
  for (const { name, imports } of files) {
    for (const target of imports) {
      const [from, to] = [roomOf(name), roomOf(target)];
      if (from !== to && !(MAY_IMPORT[from] ?? []).includes(to)) refused.push(`${name} → ${target}`);
    }
  }
  deepStrictEqual(refused, []);
});

Deno.test("every file below src/ stands in a room of the table", () => {
  deepStrictEqual(files.map(({ name }) => name).filter((name) => MAY_IMPORT[roomOf(name)] === undefined), []);
});

Deno.test("ARCHITECTURE.md has the same import table as this test", () => {
  const page = Deno.readTextFileSync(join(ROOT, "ARCHITECTURE.md"));
  const rows = new Map(
    [...page.matchAll(/^\| \d \| ([\w.]+) \| ([^|]*) \|/gm)].map((
      [, room = "", rooms = ""],
    ) => [room, rooms]),
  );
  const written = Object.fromEntries([...rows].map(([room, rooms]) => [
    room,
    rooms.trim().split(/[\s,]+/).filter((word) => word !== "" && word !== "nothing").flatMap((word) =>
      word === "G" ? GROUND : [word]
    ).sort(),
  ]));
  deepStrictEqual(
    written,
    Object.fromEntries(Object.entries(MAY_IMPORT).map(([room, rooms]) => [room, [...rooms].sort()])),
  );
});

Deno.test("no file below src/ imports itself through others", () => {
  const byName = new Map(files.map((file) => [file.name, file]));
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (name: string, way: readonly string[]): void => {
    if (way.includes(name)) {
      circles.push([...way.slice(way.indexOf(name)), name].join(" → "));
      return;
    }
    if (done.has(name)) return;
    // Type-only imports vanish at run time; a circle of them is one of documentation only and is refused all the same.
    for (const target of byName.get(name)?.imports ?? []) visit(target, [...way, name]);
    done.add(name);
  };
  for (const { name } of files) visit(name, []);
  deepStrictEqual(circles, []);
});

Deno.test("every file below src/ is reached from main.ts, a command or a worker", () => {
  const byName = new Map(files.map((file) => [file.name, file]));
  const reached = new Set<string>();
  const visit = (name: string): void => {
    if (reached.has(name)) return;
    reached.add(name);
    for (const target of byName.get(name)?.imports ?? []) visit(target);
  };
  for (const root of ["main.ts", "cli/cli.ts", "cli/health_check.ts"]) visit(root);
  const apart = ["audit/memory_audit_trail.ts", "store/memory_record_store.ts"]; // twins of ports, for tests
  deepStrictEqual(
    files.map(({ name }) => name).filter((name) => !reached.has(name) && !apart.includes(name)),
    [],
  );
});

for (const { power, pattern, homes } of POWERS) {
  Deno.test(`${power}: used only in ${homes.length === 0 ? "no file" : homes.join(", ")}`, () => {
    const strangers = files.filter(({ name, code }) =>
      pattern.test(code) && !homes.some((home) => name === home || name.startsWith(`${home}/`))
    );
    deepStrictEqual(strangers.map(({ name }) => name), []);
  });
}

Deno.test("no package of the web layer is imported below http", () => {
  const strangers = files.filter(({ name, packages }) =>
    roomOf(name) !== "http" && packages.some((each) => /^(@hono|hono)/.test(each))
  );
  deepStrictEqual(strangers.map(({ name }) => name), []);
});

Deno.test("the dialects of http do not import each other", () => {
  const dialects = ["openai", "anthropic", "oip", "account", "operations"];
  const dialectOf = (name: string): string | undefined =>
    dialects.find((dialect) => name.startsWith(`http/${dialect}/`));
  const crossings = files.flatMap(({ name, imports }) =>
    imports.filter((target) =>
      dialectOf(name) !== undefined && dialectOf(target) !== undefined &&
      dialectOf(name) !== dialectOf(target)
    )
      .map((target) => `${name} → ${target}`)
  );
  deepStrictEqual(crossings, []);
});

Deno.test("every file says its purpose in its first line, and bears a snake_case name that is no bucket", () => {
  const wrong = files.filter(({ name, text }) => {
    const base = name.split("/").at(-1) ?? "";
    return !/^\/\/ \S.{10,}/.test(text) || !/^[a-z0-9_]+\.ts$/.test(base) ||
      /^(utils?|helpers?|common|types|misc|index|mod)\.ts$/.test(base);
  });
  deepStrictEqual(wrong.map(({ name }) => name), []);
});

Deno.test("every exported thing says in a comment above it what it is", () => {
  const silent = files.flatMap(({ name, text }) => {
    const lines = text.split("\n");
    return lines.flatMap((line, index) =>
      /^export (?:async )?(?:abstract )?(?:function|class|interface|type|const) /.test(line) &&
        !/\*\/$/.test(lines[index - 1] ?? "")
        ? [`${name}:${index + 1}`]
        : []
    );
  });
  deepStrictEqual(silent, []);
});

Deno.test("there are enough files for these rules to mean something", () =>
  ok(files.length > 50, `only ${files.length} files were read`));

function readFiles(folder: string): SourceFile[] {
  return [...Deno.readDirSync(folder)].flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory) return readFiles(path);
    const text = Deno.readTextFileSync(path);
    const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
    const specifiers = [
      ...code.matchAll(
        /(?:\bfrom|\bimport)\s*\(?\s*"([^"]+)"|new URL\(\s*"(\.[^"]+\.ts)"|"([a-z_]+_worker\.ts)"/g,
      ),
    ]
      .map(([, imported, url, worker]) => imported ?? url ?? `./${worker}`);
    const relativeOnes = specifiers.filter((specifier) => specifier.startsWith("."));
    return [{
      name: relative(SOURCE, path),
      text,
      code,
      imports: relativeOnes.map((specifier) => relative(SOURCE, normalize(join(folder, specifier)))),
      packages: specifiers.filter((specifier) => !specifier.startsWith(".")),
    }];
  });
}

function roomOf(name: string): string {
  return name.split("/")[0] ?? name;
}
