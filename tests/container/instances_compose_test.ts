// Two servers with a Redis: what of deploy/ can be held against the code without containers, and its Redis run for real.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { permissionFlags } from "../../src/cli/permission_flags.ts";
import { parseConfig } from "../../src/config/config.ts";
import { type SettingName, SETTINGS, variableOf } from "../../src/config/schema.ts";
import { generateSigningKey } from "../../src/identity/signing_keys.ts";
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { answerChat, MODEL } from "../support/instances.ts";
import { hasRedisServer, type RedisServer, startRedisServer } from "../support/redis_server.ts";
import { startScriptedUpstream } from "../support/scripted_upstream.ts";
import { ADMIN_PASSWORD, freePort, startServerUnderTest } from "../support/server_under_test.ts";

const ROOT = `${import.meta.dirname}/../..`;
const read = (file: string): string => Deno.readTextFileSync(`${ROOT}/${file}`);
const compose = read("deploy/compose.instances.yaml");
const serverPart = compose.slice(0, compose.indexOf("\nservices:"));
const redisPart = /\n {2}redis:\n([\s\S]*?)\n(?! {3})\S/.exec(compose)?.[1] ?? "";

Deno.test("the servers' flags in compose.instances.yaml are what their settings need and no more", async () => {
  const inImage = [...read("Dockerfile").replace(/^#.*/gm, "").matchAll(/\b(PORTCULLIS_\w+)=(\S+)/g)];
  const inCompose = [...serverPart.matchAll(/^ {4}(PORTCULLIS_\w+): (\S+)$/gm)];
  const settings = new Map([...inImage, ...inCompose].map(([, name = "", value = ""]) => [name, value]));
  const files = [...settings].filter(([name, value]) => isSecretFile(name) && value.startsWith("/run/"));
  const variables = Object.fromEntries([...settings].filter(([name]) => !isSecretFile(name)));
  const parsed = parseConfig({
    variables: {
      ...variables,
      PORTCULLIS_MASTER_KEY: generateMasterKey(),
      PORTCULLIS_SIGNING_KEY: await generateSigningKey(),
      PORTCULLIS_ADMIN_PASSWORD: ADMIN_PASSWORD,
      // As deploy/redis/make_secrets writes it.
      PORTCULLIS_REDIS_URL: "rediss://portcullis:0f1e2d3c4b5a69788796a5b4c3d2e1f0@redis:6379",
    },
    file: undefined,
    cores: 2,
    storeExists: () => false,
  });
  ok(parsed.ok, JSON.stringify(parsed));
  const entrypoint: string[] = JSON.parse(
    /entrypoint: (\[[^\]]*\])/.exec(serverPart)?.[1]?.replace(/,(\s*\])/, "$1") ?? "[]",
  );
  deepStrictEqual(entrypoint, [
    "/usr/local/bin/deno",
    "run",
    ...permissionFlags(parsed.config, files.map(([, file]) => file)),
    "src/main.ts",
  ]);
});

Deno.test("compose.instances.yaml keeps the hardening of servers and Redis, publishes on loopback only, and no Redis", () => {
  for (const part of [serverPart, redisPart]) {
    for (
      const line of ["read_only: true", "cap_drop: [ALL]", "security_opt: [no-new-privileges:true]"]
    ) ok(part.includes(line), line);
    for (const bound of ["mem_limit", "pids_limit", "cpus"]) match(part, new RegExp(`^ +${bound}: `, "m"));
  }
  ok(!/ports:|front/.test(redisPart) && redisPart.includes("networks: [back]"));
  match(compose, /\n {2}back:\n {4}internal: true\n/);
  deepStrictEqual([...compose.matchAll(/ports: (.*)/g)].map(([, ports]) => ports), [
    "[127.0.0.1:8001:8000]",
    "[127.0.0.1:8002:8000]",
  ]);
  ok(!/privileged: true|network_mode: host|docker\.sock|seccomp|latest/.test(compose));
  match(compose, /image: docker\.io\/library\/redis:7\./);
});

Deno.test("every secret that compose.instances.yaml names is made by docs/container.md or by make_secrets", () => {
  const named = [...compose.matchAll(/file: \/etc\/portcullis\/secrets\/(\w+)/g)].map(([, name]) => name);
  const made = [read("docs/container.md"), read("deploy/redis/make_secrets")].flatMap((text) =>
    [...text.matchAll(/(?:>\s?|-out |-keyout )(\w+)/g)].map(([, name]) => name)
  );
  deepStrictEqual(named.filter((name) => !made.includes(name)), []);
  strictEqual(named.length, 8);
});

Deno.test("the Redis user may use the commands that the server uses and no others", () => {
  const used = new Set<string>();
  for (const file of ["src/store", "src/store/redis", "src/limits"].flatMap(filesIn)) {
    const text = read(file);
    // In scripts, and as the first word of a command. Lists of texts are no commands; what a sentinel is asked is one of these.
    for (const [, command = ""] of text.matchAll(/\bcall\("([A-Z]+)"/g)) used.add(command);
    for (const [, command = ""] of text.matchAll(/\["([A-Z]+)", (?!")/g)) used.add(command);
  }
  const granted = [...read("deploy/redis/make_secrets").matchAll(/\s\+([a-z]+)/g)].map(([, command]) =>
    command
  );
  deepStrictEqual(granted.toSorted(), [...used].map((command) => command.toLowerCase()).sort());
});

Deno.test({
  name:
    "a production server works with the Redis of redis.conf and the secrets of make_secrets, and nobody else does" +
    (hasRedisServer ? "" : " (there is no redis-server here)"),
  ignore: !hasRedisServer,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "portcullis-deploy-" });
    const made = await new Deno.Command(`${ROOT}/deploy/redis/make_secrets`, {
      args: [folder, "localhost"],
      stdin: "null",
    }).output();
    ok(made.success, new TextDecoder().decode(made.stderr));
    for (const { name } of Deno.readDirSync(folder)) {
      strictEqual((Deno.statSync(`${folder}/${name}`).mode ?? 0) & 0o77, 0, name);
    }
    const tlsPort = freePort();
    await Deno.mkdir(`${folder}/no-models`);
    const redis = await startDeployedRedis(folder, tlsPort);
    const upstream = await startScriptedUpstream();
    upstream.plays(answerChat(3, 4));
    const url = Deno.readTextFileSync(`${folder}/redis_url`).replace(":6379", `:${tlsPort}`);
    const server = await startServerUnderTest({
      variables: {
        PORTCULLIS_MODE: "production",
        PORTCULLIS_PUBLIC_URL: "https://ai.example.com",
        PORTCULLIS_MASTER_KEY: generateMasterKey(),
        PORTCULLIS_SIGNING_KEY: await generateSigningKey(),
        PORTCULLIS_MODELS_DIR: `${folder}/no-models`,
        // Loopback not among them: who guesses here has strikes counted.
        PORTCULLIS_BAN_EXEMPT: "192.0.2.1",
        PORTCULLIS_REDIS_URL: url,
        PORTCULLIS_REDIS_CA_FILE: `${folder}/redis_ca`,
        PORTCULLIS_LIMITS: JSON.stringify([
          {
            name: "everybody",
            subject: "user",
            tokensPerDay: 100_000,
            requestsPerMinute: 10,
            requestsAtOnce: 2,
          },
        ]),
        PORTCULLIS_UPSTREAMS: JSON.stringify([
          { name: "engine", kind: "openai", url: `${upstream.url}/v1`, healthSeconds: 3600 },
        ]),
        PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([
          { id: MODEL, capabilities: ["chat"], servedBy: [{ upstream: "engine" }] },
        ]),
      },
    });
    try {
      await server.whenReady();
      const headers = {
        authorization: `Bearer ${await server.signIn()}`,
        "content-type": "application/json",
      };
      const call = async (method: string, path: string, body?: unknown) => {
        const response = await fetch(`${server.origin}${path}`, {
          method,
          headers: body === undefined ? { authorization: headers.authorization } : headers,
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        });
        return [response.status, await response.json().catch(() => undefined)];
      };
      const [chatted] = await call("POST", "/v1/chat/completions", {
        model: MODEL,
        messages: [{ role: "user", content: "hello" }],
      });
      strictEqual(chatted, 200);
      const [, bans] = await call("GET", "/v1/bans");
      deepStrictEqual(bans.data, []);
      const [banned] = await call("POST", "/v1/bans", { address: "198.51.100.7", seconds: 60 });
      strictEqual(banned, 201);
      // Settling is not waited for.
      let usage;
      for (let tries = 0; tries < 100 && usage?.total.requests !== 1; tries++) {
        [, usage] = await call("GET", "/v1/usage");
      }
      deepStrictEqual([usage.total.input_tokens, usage.total.output_tokens], [3, 4]);
      strictEqual(usage.limits[0].used, 7);
      await rejects(server.signIn("admin", "not the password at all"), /401/);

      // The default user, and ours on keys of others.
      await rejects(redis.cli("GET", "x"), /NOAUTH|Authentication required/);
      const password = new URL(url).password;
      const ours = ["--user", "portcullis", "--pass", password];
      strictEqual(await redis.cli(...ours, "GET", "{portcullis}:nothing"), "");
      await rejects(redis.cli(...ours, "GET", "other"), /NOPERM/);
      await rejects(redis.cli(...ours, "FLUSHALL"), /NOPERM/);
    } finally {
      await server.stop();
      await upstream.close();
      await redis.stop();
      await Deno.remove(folder, { recursive: true });
    }
    // At its end all of it is written.
    const output = server.output();
    ok(!/NOPERM|redis\.|limits\.|not_counted|"level":"error"/.test(output), output);
  },
});

/** With the file as it is deployed, but for its paths and ports. The harness asks on a plain port. */
function startDeployedRedis(folder: string, tlsPort: number): Promise<RedisServer> {
  const port = freePort();
  return startRedisServer({
    port,
    args: ["--include", `${ROOT}/deploy/redis/redis.conf`, "--port", `${port}`].concat(
      ["--bind", "127.0.0.1", "--tls-port", `${tlsPort}`, "--dir", folder],
      ["--tls-cert-file", `${folder}/redis_certificate`, "--tls-key-file", `${folder}/redis_key`],
      ["--aclfile", `${folder}/redis_users`],
    ),
  });
}

function filesIn(folder: string): string[] {
  return [...Deno.readDirSync(`${ROOT}/${folder}`)].filter(({ name }) => name.endsWith(".ts")).map((
    { name },
  ) => `${folder}/${name}`);
}

/** Whether a variable names the file of a secret; `redisCaFile` is a setting of its own. */
function isSecretFile(variable: string): boolean {
  return variable.endsWith("_FILE") &&
    !(Object.keys(SETTINGS) as SettingName[]).map(variableOf).includes(variable);
}
