// Permissions: the table is true, and the server's set is minimal.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { permissionFlags } from "../src/cli/permission_flags.ts";
import { parseConfig } from "../src/config/config.ts";
import { PROXY_VARIABLES } from "../src/config/environment.ts";
import { generateMasterKey } from "../src/vault/master_key.ts";
import { goodCalls, openObjects, prepare } from "./http/good_calls.ts";
import {
  answerBytes,
  answerJson,
  answerStatus,
  type Script,
  startScriptedUpstream,
} from "./support/scripted_upstream.ts";
import { startServerUnderTest } from "./support/server_under_test.ts";

const ROOT = `${import.meta.dirname}/..`;

type Grant = boolean | readonly string[] | { readonly allow?: readonly string[]; readonly ignore?: boolean };
const SETS: Record<string, Record<string, Grant>> =
  JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.json`)).permissions;
const TASKS: Record<string, string | { readonly command: string }> =
  JSON.parse(Deno.readTextFileSync(`${ROOT}/deno.json`)).tasks;

Deno.test("permissions.md has a row for each grant of deno.json and no other, naming a file that exists", () => {
  const rows = [
    ...Deno.readTextFileSync(`${ROOT}/permissions.md`).matchAll(
      /^\| (\w+) \| (\w+) \| ([^|]+) \| `([^`]+)` \| [^|]{5,} \|$/gm,
    ),
  ];
  const written = rows.flatMap(([, set, kind, values = ""]) =>
    values.split(",").map((value) => `${set} ${kind} ${value.trim().replaceAll("`", "")}`)
  );
  const granted = Object.entries(SETS).flatMap(([set, kinds]) =>
    Object.entries(kinds).flatMap(([kind, grant]) =>
      valuesOf(grant).map((value) => `${set} ${kind} ${value}`)
    )
  );
  deepStrictEqual(written.sort(), granted.sort());
  for (const [, , , , file] of rows) ok(exists(`${ROOT}/${file}`), `${file} is named and does not exist`);
});

Deno.test("no set grants all, ffi or import; the server's grants no run, no sys and nothing without a scope", () => {
  for (const [name, kinds] of Object.entries(SETS)) {
    for (const kind of ["all", "ffi", "import"]) ok(!(kind in kinds), `${name} grants ${kind}`);
  }
  deepStrictEqual(Object.keys(SETS.server ?? {}).sort(), ["env", "net", "read", "write"]);
  for (const grant of Object.values(SETS.server ?? {})) {
    ok(grant !== true && valuesOf(grant).every((value) => value.length >= 3));
  }
});

Deno.test("every task that runs code names its set, never prompts, and takes no code that is not locked and cached", () => {
  for (const [name, task] of Object.entries(TASKS)) {
    const whole = typeof task === "string" ? task : task.command;
    // `serve` takes its flags from the command inside: see permissionFlags(), which the last test here proves minimal.
    const inner = /\$\(([^)]*)\)/.exec(whole)?.[1];
    if (inner !== undefined) {
      ok(
        / flags(?: models| vault)?$/.test(inner) &&
          /^(?:MALLOC_ARENA_MAX=1 )?deno run --no-prompt \$\(/.test(whole),
        `${name}: ${whole}`,
      );
    }
    const command = inner ?? whole;
    for (
      const part of command.split("&&").map((each) => each.trim()).filter((each) =>
        /^deno (run|test|bench) /.test(each)
      )
    ) {
      ok(!/ -A\b|--allow-all/.test(part), `${name}: ${part}`);
      for (const flag of ["-P=", "--no-prompt", "--cached-only", "--frozen", "--no-remote"]) {
        ok(part.includes(flag), `${name} lacks ${flag}: ${part}`);
      }
    }
  }
});

Deno.test("the server asks for nothing outside its grants, and for each of its grants", async () => {
  const folder = await Deno.makeTempDir();
  const asksFile = `${folder}/asks.jsonl`;
  const upstream = await startScriptedUpstream();
  upstream.plays((reply, request) => (UPSTREAM_ANSWERS[request.target] ?? answerStatus(404))(reply, request));
  const server = await startServerUnderTest({
    environment: { DENO_AUDIT_PERMISSIONS: asksFile },
    variables: {
      PORTCULLIS_UPSTREAMS: JSON.stringify([{ name: "behind", kind: "openai", url: `${upstream.url}/v1` }]),
      PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([{
        id: "behind",
        capabilities: ["chat", "completion", "rerank", "moderation", "speech", "transcription", "image"],
        servedBy: [{ upstream: "behind" }],
      }]),
    },
  });
  await server.whenReady();
  await driveEveryRoute(server.origin, await server.signIn());
  await server.stop();
  await upstream.close();
  const asks = Deno.readTextFileSync(asksFile).split("\n").filter((line) => line !== "").map((
    line,
  ): { permission: string; value: string | null } => JSON.parse(line));

  const grants = [
    { kind: "net", value: `127.0.0.1:${server.port}` },
    { kind: "net", value: new URL(upstream.url).host },
    { kind: "read", value: server.dataDir },
    { kind: "read", value: "models" },
    { kind: "read", value: "portcullis.json" },
    { kind: "read", value: "src" },
    { kind: "read", value: "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm" },
    { kind: "write", value: server.dataDir },
    ...["PORTCULLIS_*", ...PROXY_VARIABLES].map((value) => ({ kind: "env", value })),
  ];
  // The grants under test are the set of deno.json, with this server's own port and folder, and the upstream's host.
  const asInSet = grants.filter(({ value }) => value !== new URL(upstream.url).host).map(({ kind, value }) =>
    `${kind} ${value.replace(`:${server.port}`, ":8000").replace(server.dataDir, "data")}`
  );
  deepStrictEqual(
    asInSet.sort(),
    Object.entries(SETS.server ?? {}).flatMap(([kind, grant]) =>
      valuesOf(grant).map((value) => `${kind} ${value}`)
    ).sort(),
  );

  const root = Deno.realPathSync(ROOT);
  const covers = (
    grant: { kind: string; value: string },
    ask: { permission: string; value: string | null },
  ): boolean => {
    if (grant.kind !== ask.permission) return false;
    if (grant.kind === "env") {
      // Without a value: the environment is enumerated, for the settings. A single variable is asked for by its name.
      return grant.value === "PORTCULLIS_*"
        ? ask.value === null || ask.value.startsWith("PORTCULLIS_")
        : ask.value === grant.value;
    }
    // Without a value: a worker is made with less than its parent has.
    if (ask.value === null) return true;
    // A call is asked for by its whole address, a socket by host and port.
    if (grant.kind === "net" && URL.canParse(ask.value) && ask.value.startsWith("http")) {
      return new URL(ask.value).host === grant.value;
    }
    const value = ask.value.startsWith(`${root}/`) ? ask.value.slice(root.length + 1) : ask.value;
    return value === grant.value || (grant.kind !== "net" && value.startsWith(`${grant.value}/`));
  };
  deepStrictEqual(
    asks.filter((ask) => !grants.some((grant) => covers(grant, ask))),
    [],
    "asked for and not granted",
  );
  const unused = grants.filter((grant) =>
    !asks.some((ask) => (ask.value !== null || grant.kind === "env") && covers(grant, ask))
  );
  deepStrictEqual(unused, [], "granted and never asked for");
  ok(asks.length > 20);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a Redis adds its hosts, those that it may point to and the file of its authorities, and nothing else", () => {
  const grantsOf = (variables: Record<string, string>): readonly string[] => {
    const parsed = parseConfig({ variables, file: undefined, cores: 2, storeExists: () => true });
    ok(parsed.ok, JSON.stringify(parsed));
    return permissionFlags(parsed.config, []).flatMap((flag) => {
      const [name, values] = flag.split("=");
      return values === undefined ? [flag] : values.split(",").map((value) => `${name}=${value}`);
    });
  };
  const without = grantsOf({});
  const added = (variables: Record<string, string>): readonly string[] =>
    grantsOf(variables).filter((grant) => !without.includes(grant));
  const PORTCULLIS_MASTER_KEY = generateMasterKey();
  deepStrictEqual(added({ PORTCULLIS_MASTER_KEY, PORTCULLIS_REDIS_URL: "redis://127.0.0.1/3" }), [
    "--allow-net=127.0.0.1:6379",
  ]);
  deepStrictEqual(
    added({
      PORTCULLIS_MASTER_KEY,
      PORTCULLIS_REDIS_URL: "rediss+sentinel://:word@one.example,[fd00::2]:26380/main",
      PORTCULLIS_REDIS_HOSTS: "10.0.0.7:6379,10.0.0.8:6379",
      PORTCULLIS_REDIS_CA_FILE: "/etc/redis/ca.pem",
    }),
    [
      "--allow-net=one.example:26379",
      "--allow-net=[fd00::2]:26380",
      "--allow-net=10.0.0.7:6379",
      "--allow-net=10.0.0.8:6379",
      "--allow-read=/etc/redis/ca.pem",
    ],
  );
});

const CHAT_ANSWER = answerJson({
  choices: [{ index: 0, message: { role: "assistant", content: "hello" }, finish_reason: "stop" }],
});

/** What the upstream answers, by the target that it is asked for. */
const UPSTREAM_ANSWERS: Readonly<Record<string, Script>> = {
  "/v1/chat/completions": CHAT_ANSWER,
  "/v1/completions": answerJson({ choices: [{ index: 0, text: "hello", finish_reason: "stop" }] }),
  "/v1/rerank": answerJson({ results: [{ index: 0, relevance_score: 0.5 }] }),
  "/v1/moderations": answerJson({ results: [{ flagged: false, categories: {}, category_scores: {} }] }),
  "/v1/audio/speech": answerBytes(new Uint8Array([1, 2, 3]), "audio/mpeg"),
  "/v1/audio/transcriptions": answerJson({ text: "hello" }),
  "/v1/images/generations": answerJson({ created: 1, data: [{ b64_json: "aGk=" }] }),
};

/** Each route that the server describes, by a call that works. */
async function driveEveryRoute(origin: string, token: string): Promise<void> {
  const send = (path: string, init?: RequestInit): Promise<Response> => fetch(`${origin}${path}`, init);
  const description = await (await send("/openapi.json")).json();
  const names = Object.entries(description.paths as Record<string, Record<string, unknown>>).flatMap((
    [path, methods],
  ) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`));
  const calls = goodCalls("use-lite", "behind");
  for (const name of names) {
    const good = calls[name];
    ok(good, `${name} has no good call`);
    // Objects of its own, for some calls delete theirs.
    const { path, init } = await prepare(name, good, openObjects(send, token), token);
    const response = await send(path, init);
    strictEqual(
      response.status,
      good.status ?? 200,
      `${name} answered ${response.status} ${await response.text()}`,
    );
  }
}

function valuesOf(grant: Grant): string[] {
  if (grant === true) return ["everything"];
  if (grant === false) return [];
  if (Array.isArray(grant)) return [...grant];
  const { allow } = grant as { readonly allow?: readonly string[] };
  return allow === undefined ? ["nothing"] : [...allow];
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path) !== undefined;
  } catch {
    return false;
  }
}
