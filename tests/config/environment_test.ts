// Tests of the environment: what a process reads from its variables, its settings file and its secret files.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { join } from "node:path";
import { generateSigningKey } from "../../src/identity/signing_keys.ts";
import { type EnvironmentOutcome, PROXY_VARIABLES } from "../../src/config/environment.ts";

const PRINT = join(import.meta.dirname ?? "", "fixtures/print_environment.ts");
/** Not those of the machine that runs the tests: what is empty counts as not set. */
const NO_PROXIES = Object.fromEntries(PROXY_VARIABLES.map((name) => [name, ""]));
const MASTER_KEY = "3q2-7wAdZfN4XbYh0kQmRsTuVgWc1iLjE5oPlC8y9zA";

/** Reads the environment in a process of its own, started in a folder that holds `files`. */
async function read(
  variables: Record<string, string>,
  files: Record<string, string> = {},
  permissions: readonly string[] = ["--allow-read", "--allow-env"],
): Promise<{ outcome: EnvironmentOutcome; folder: string; text: string }> {
  const folder = await Deno.makeTempDir({ prefix: "environment-" });
  try {
    for (const [name, content] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, content);
    }
    const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--cached-only", "--no-check", ...permissions, PRINT],
      cwd: folder,
      env: { NO_COLOR: "1", ...NO_PROXIES, ...variables },
    }).output();
    const text = new TextDecoder().decode(stdout);
    ok(success, new TextDecoder().decode(stderr));
    return { outcome: JSON.parse(text), folder, text };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function mistakesOf({ outcome }: { outcome: EnvironmentOutcome }): Record<string, string> {
  return outcome.ok ? {} : Object.fromEntries(outcome.mistakes.map(({ where, what }) => [where, what]));
}

Deno.test("without variables and files the settings are the defaults, and no file was read", async () => {
  const { outcome } = await read({});
  ok(outcome.ok);
  strictEqual(outcome.config.port, 8000);
  deepStrictEqual(outcome.files, []);
});

Deno.test("portcullis.json of the working folder is read, under the environment", async () => {
  const { outcome } = await read({ PORTCULLIS_PORT: "81", OTHER_PORT: "82" }, {
    "portcullis.json": '{"port":80,"logLevel":"warn"}',
  });
  ok(outcome.ok);
  deepStrictEqual([outcome.config.port, outcome.config.logLevel], [81, "warn"]);
  deepStrictEqual(outcome.files, ["portcullis.json"]);
});

Deno.test("PORTCULLIS_CONFIG names another file, and then portcullis.json counts for nothing", async () => {
  const { outcome } = await read({ PORTCULLIS_CONFIG: "other.json" }, {
    "portcullis.json": '{"port":80}',
    "other.json": '{"port":90}',
  });
  ok(outcome.ok);
  strictEqual(outcome.config.port, 90);
  deepStrictEqual(outcome.files, ["other.json"]);
});

Deno.test("PORTCULLIS_CONFIG that names nothing, or nothing readable, is a mistake beside all others", async () => {
  const [absent, empty, folder] = await Promise.all([
    read({ PORTCULLIS_CONFIG: "absent.json", PORTCULLIS_PORT: "x" }),
    read({ PORTCULLIS_CONFIG: "" }),
    read({ PORTCULLIS_CONFIG: "." }),
  ]);
  strictEqual(mistakesOf(absent).PORTCULLIS_CONFIG, "names absent.json, which is absent");
  ok("PORTCULLIS_PORT" in mistakesOf(absent));
  ok("PORTCULLIS_CONFIG" in mistakesOf(empty));
  strictEqual(mistakesOf(folder).PORTCULLIS_CONFIG, "names ., which is not readable");
});

Deno.test("a settings file that is no JSON, or sets a setting twice, is a mistake", async () => {
  const broken = ["{", "", "\ufeff{}", "{} // comment", '{"port":1,"port":2}', '{"port":1,"\\u0070ort":2}'];
  const outcomes = await Promise.all(broken.map((text) => read({}, { "portcullis.json": text })));
  for (const [index, outcome] of outcomes.entries()) {
    ok("portcullis.json" in mistakesOf(outcome), JSON.stringify(broken[index]));
  }
});

Deno.test("a secret comes from the file that its _FILE variable names, less one line end", async () => {
  const variables = {
    PORTCULLIS_MASTER_KEY_FILE: "master",
    PORTCULLIS_ADMIN_PASSWORD_FILE: "password",
  };
  for (
    const [end, password] of [["", "violet kettle 31"], ["\n", "violet kettle 31"], [
      "\r\n",
      "violet kettle 31",
    ], [
      "\n\n",
      "violet kettle 31\n",
    ]] as const
  ) {
    const { outcome } = await read(variables, { master: MASTER_KEY, password: `violet kettle 31${end}` });
    ok(outcome.ok);
    strictEqual(outcome.config.masterKey, MASTER_KEY);
    strictEqual(outcome.config.adminPassword, password);
    deepStrictEqual([...outcome.files].sort(), ["master", "password"]);
  }
});

Deno.test("the file of a secret is kept in mind, may hold several master keys, and an empty name names none", async () => {
  const keys = `${MASTER_KEY}\n${[...MASTER_KEY].reverse().join("")}`;
  const { outcome } = await read(
    { PORTCULLIS_MASTER_KEY_FILE: "master", PORTCULLIS_SIGNING_KEY_FILE: "" },
    { master: `${keys}\n` },
  );
  ok(outcome.ok);
  strictEqual(outcome.config.masterKey, keys);
  deepStrictEqual(outcome.config.secretFiles, { PORTCULLIS_MASTER_KEY: "master" });
  deepStrictEqual(outcome.files, ["master"]);
});

Deno.test("a secret set twice, an absent file, and a file for what is no secret are mistakes, all reported, none with a secret", async () => {
  const result = await read({
    PORTCULLIS_MASTER_KEY: MASTER_KEY,
    PORTCULLIS_MASTER_KEY_FILE: "master",
    PORTCULLIS_SIGNING_KEY_FILE: "/no/such/file",
    PORTCULLIS_ADMIN_PASSWORD_FILE: "password",
    PORTCULLIS_PORT_FILE: "port",
  }, { master: MASTER_KEY, password: "too short", port: "80" });
  const mistakes = mistakesOf(result);
  deepStrictEqual(Object.keys(mistakes).sort(), [
    "PORTCULLIS_ADMIN_PASSWORD",
    "PORTCULLIS_MASTER_KEY_FILE",
    "PORTCULLIS_PORT_FILE",
    "PORTCULLIS_SIGNING_KEY_FILE",
  ]);
  strictEqual(
    mistakes.PORTCULLIS_MASTER_KEY_FILE,
    "is set together with PORTCULLIS_MASTER_KEY; set one of them",
  );
  strictEqual(mistakes.PORTCULLIS_SIGNING_KEY_FILE, "names /no/such/file, which is absent");
  for (const secret of [MASTER_KEY, "too short"]) ok(!result.text.includes(secret));
});

Deno.test("a file outside what the process may read is a mistake that says so", async () => {
  const result = await read({ PORTCULLIS_MASTER_KEY_FILE: "/etc/hostname" }, {}, [
    "--allow-env",
    "--allow-read=portcullis.json,data",
  ]);
  ok(mistakesOf(result).PORTCULLIS_MASTER_KEY_FILE?.includes("outside what the process may read"));
});

Deno.test("production asks for the first password only where its data folder has no store", async () => {
  const key = await generateSigningKey();
  const variables = {
    PORTCULLIS_MODE: "production",
    PORTCULLIS_PUBLIC_URL: "https://ai.example.com",
    PORTCULLIS_MASTER_KEY: MASTER_KEY,
    PORTCULLIS_SIGNING_KEY: key,
    PORTCULLIS_DATA_DIR: ".",
  };
  const [without, present] = await Promise.all([read(variables), read(variables, { "portcullis.db": "" })]);
  deepStrictEqual(Object.keys(mistakesOf(without)), ["PORTCULLIS_ADMIN_PASSWORD"]);
  strictEqual(present.outcome.ok, true);
});

const UPSTREAMS = '[{"name":"gpu","kind":"openai","url":"http://127.0.0.1:9/v1"}]';
const PROXY = "http://user:proxy-password-9f3a@proxy.example:3128";

Deno.test("each variable that names a proxy is a mistake where upstreams are set: it names both ways out and repeats no value", async () => {
  deepStrictEqual(
    [...PROXY_VARIABLES].sort(),
    ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "http_proxy", "https_proxy"],
  );
  await Promise.all(PROXY_VARIABLES.map(async (name) => {
    const result = await read({ PORTCULLIS_UPSTREAMS: UPSTREAMS, [name]: PROXY });
    const mistakes = mistakesOf(result);
    deepStrictEqual(Object.keys(mistakes), [name]);
    match(mistakes[name] ?? "", /unset it.*PORTCULLIS_UPSTREAM_PROXY=environment/);
    for (const part of ["proxy.example", "proxy-password-9f3a"]) ok(!result.text.includes(part), result.text);
  }));
});

Deno.test("variables that name a proxy are no mistake without upstreams, empty, or where the settings say that they are meant", async () => {
  const upstreams = { PORTCULLIS_UPSTREAMS: UPSTREAMS };
  const outcomes = await Promise.all([
    read({ HTTP_PROXY: PROXY, https_proxy: PROXY }),
    read(upstreams),
    read({ ...upstreams, HTTP_PROXY: PROXY, PORTCULLIS_UPSTREAM_PROXY: "environment" }),
    read({ ...upstreams, ALL_PROXY: PROXY }, { "portcullis.json": '{"upstreamProxy":"environment"}' }),
  ]);
  for (const outcome of outcomes) {
    deepStrictEqual(mistakesOf(outcome), {});
    ok(!outcome.text.includes("proxy-password-9f3a"));
  }
});

Deno.test("a process that may not read the variables of proxies takes no upstreams and no issuers, unless proxies are meant", async () => {
  const blind = ["--allow-read", "--allow-env=PORTCULLIS_*", "--ignore-env"];
  const upstreams = { PORTCULLIS_UPSTREAMS: UPSTREAMS, HTTP_PROXY: PROXY };
  const issuers = { PORTCULLIS_ISSUERS: '[{"issuer":"https://login.example.com","discovery":true}]' };
  const [closed, alike, meant, without] = await Promise.all([
    read(upstreams, {}, blind),
    read(issuers, {}, blind),
    read({ ...upstreams, PORTCULLIS_UPSTREAM_PROXY: "environment" }, {}, blind),
    read({ HTTP_PROXY: PROXY }, {}, blind),
  ]);
  deepStrictEqual([closed, alike].map((outcome) => Object.keys(mistakesOf(outcome))), [
    ["HTTP_PROXY"],
    ["HTTP_PROXY"],
  ]);
  match(mistakesOf(closed).HTTP_PROXY ?? "", /outside what the process may read.*deno task serve/);
  deepStrictEqual([mistakesOf(meant), mistakesOf(without)], [{}, {}]);
});
