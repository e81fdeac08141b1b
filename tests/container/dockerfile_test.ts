// Dockerfile: what can be held against the code without building it. `.ci/container` builds it and runs it.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { generateSigningKey } from "../../src/identity/signing_keys.ts";
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { permissionFlags } from "../../src/cli/permission_flags.ts";
import { parseConfig } from "../../src/config/config.ts";

const ROOT = `${import.meta.dirname}/../..`;
const read = (file: string): string => Deno.readTextFileSync(`${ROOT}/${file}`);

interface Instruction {
  readonly name: string;
  readonly argument: string;
}

/** The instructions, with continued lines joined and comments left out. */
function parseDockerfile(text: string): Instruction[] {
  const lines = text.split("\n").filter((line) => !/^\s*#/.test(line)).join("\n").replace(/\\\n\s*/g, " ");
  return lines.split("\n").filter((line) => line.trim() !== "").map((line) => {
    const [, name = "", argument = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    return { name, argument: argument.trim() };
  });
}

const instructions = parseDockerfile(read("Dockerfile"));
const named = (name: string, among = instructions): string[] =>
  among.filter((instruction) => instruction.name === name).map(({ argument }) => argument);
const lastStage = instructions.slice(instructions.findLastIndex(({ name }) => name === "FROM"));
const entrypoint: string[] = JSON.parse(named("ENTRYPOINT", lastStage)[0] ?? "[]");
const environment = Object.fromEntries(
  named("ENV", lastStage).flatMap((argument) =>
    argument.split(/\s+/).map((pair): [string, string] => {
      const [name = "", ...value] = pair.split("=");
      return [name, value.join("=")];
    })
  ),
);

Deno.test("the entrypoint's flags are what the image's settings need and no more", async () => {
  const variables: Record<string, string> = {
    PORTCULLIS_PUBLIC_URL: "https://ai.example.com",
    PORTCULLIS_TRUSTED_PROXIES: "10.0.0.1",
    PORTCULLIS_ADMIN_PASSWORD: "l0ng-and-random-9f3a",
    PORTCULLIS_SIGNING_KEY: await generateSigningKey(),
    PORTCULLIS_MASTER_KEY: generateMasterKey(),
  };
  const secretFiles: string[] = [];
  for (const [name, value] of Object.entries(environment)) {
    if (name.endsWith("_FILE")) secretFiles.push(value);
    else if (name.startsWith("PORTCULLIS_")) variables[name] = value;
  }
  const settings = parseConfig({ variables, file: undefined, cores: 2, storeExists: () => false });
  ok(settings.ok, JSON.stringify(settings));
  const [program, command, ...rest] = entrypoint;
  deepStrictEqual([program, command, rest.at(-1)], ["/usr/local/bin/deno", "run", "src/main.ts"]);
  deepStrictEqual(
    rest.slice(0, -1),
    permissionFlags(settings.config, [...secretFiles, "/run/secrets/admin_password"]),
  );
});

Deno.test("the image runs in production as a numeric user who is not root, and stops on SIGTERM", () => {
  strictEqual(environment.PORTCULLIS_MODE, "production");
  match(named("USER", lastStage).at(-1) ?? "", /^[1-9]\d{3,}:[1-9]\d{3,}$/);
  deepStrictEqual(named("STOPSIGNAL", lastStage), ["SIGTERM"]);
});

Deno.test("the health check needs no shell and may reach the server's port on loopback only", () => {
  const [argument = ""] = named("HEALTHCHECK", lastStage);
  const command: string[] = JSON.parse(/CMD (\[.*\])$/.exec(argument)?.[1] ?? "[]");
  deepStrictEqual(command.slice(0, 2), ["/usr/local/bin/deno", "run"]);
  deepStrictEqual(command.filter((part) => part.startsWith("--allow")), ["--allow-net=127.0.0.1:8000"]);
  strictEqual(command.at(-1), "http://127.0.0.1:8000/healthz");
  const script = command.at(-2) ?? "";
  ok(Deno.statSync(`${ROOT}/${script}`).isFile, script);
});

Deno.test("the last stage begins with nothing and runs nothing, so that no shell or package manager is in it", () => {
  strictEqual(lastStage[0]?.argument, "scratch");
  deepStrictEqual(named("RUN", lastStage), []);
  for (const source of named("COPY", lastStage)) match(source, /^--from=(deno|app) /);
});

Deno.test("nothing is fetched by ADD, and no image goes by the tag latest or without a tag", () => {
  deepStrictEqual(named("ADD"), []);
  const stages = named("FROM").flatMap((argument) => / AS (\w+)$/.exec(argument)?.[1] ?? []);
  const images = [
    ...named("FROM").map((argument) => argument.split(" ")[0] ?? ""),
    ...named("ARG").flatMap(
      (argument) => /^BASE=(.*)$/.exec(argument)?.[1] ?? [],
    ),
  ].filter((image) => !["scratch", "${BASE}", ...stages].includes(image));
  strictEqual(images.length, 1);
  for (const image of images) match(image, /:(?!latest)[\w.-]+(@sha256:[0-9a-f]{64})?$/);
});

Deno.test("no secret stands in ENV or ARG: settings that are secret name files", () => {
  for (const argument of [...named("ENV"), ...named("ARG")]) {
    for (const pair of argument.split(/\s+/)) {
      const [name = "", value = ""] = pair.split("=");
      if (/KEY|PASSWORD|SECRET|TOKEN|CREDENTIAL/.test(name)) {
        match(`${name}=${value}`, /_FILE=\/run\/secrets\/\w+$/);
      }
    }
  }
});

Deno.test("packages are installed in the instruction that updates their list, and the list does not stay", () => {
  for (const command of named("RUN").filter((each) => each.includes("apt-get"))) {
    match(
      command,
      /apt-get update .*apt-get install .*--no-install-recommends .*rm -rf \/var\/lib\/apt\/lists/,
    );
  }
});

Deno.test("a build sees what .dockerignore names and nothing else: no .git, data, tests or .env", () => {
  const [first, ...rest] = read(".dockerignore").split("\n").filter((line) =>
    line !== "" && !line.startsWith("#")
  );
  strictEqual(first, "*");
  deepStrictEqual(rest.sort(), ["!deno.json", "!deno.lock", "!models", "!src"]);
});

Deno.test("compose.yaml keeps the hardening: read-only, no capabilities, no new privileges, bounds, loopback only", () => {
  const compose = read("deploy/compose.yaml");
  for (
    const line of [
      "read_only: true",
      "cap_drop: [ALL]",
      "security_opt: [no-new-privileges:true]",
      "- 127.0.0.1:8000:8000",
    ]
  ) {
    ok(compose.includes(line), line);
  }
  for (const bound of ["mem_limit", "pids_limit", "cpus"]) match(compose, new RegExp(`^ {4}${bound}: `, "m"));
  ok(!/privileged: true|network_mode: host|docker\.sock|seccomp|latest/.test(compose));
});
