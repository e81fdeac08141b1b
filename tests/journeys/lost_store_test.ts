// Lost store: what servers do whose Redis has lost its data. None goes on with keys that nobody else has, and no first password is good again.
import { match, strictEqual } from "node:assert/strict";
import { generateSigningKey } from "../../src/identity/signing_keys.ts";
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { withInstances } from "../support/instances.ts";
import { hasRedisServer } from "../support/redis_server.ts";
import {
  ADMIN_PASSWORD,
  flagsFor,
  freePort,
  type ServerUnderTest,
  startServerUnderTest,
} from "../support/server_under_test.ts";
import { callsOf, expectStatus, signIn, until } from "./api_calls.ts";

const ROOT = `${import.meta.dirname}/../..`;

for (
  const [loss, lose] of [
    ["is emptied", (redis: { cli(...args: string[]): Promise<string> }) => redis.cli("FLUSHALL")],
    [
      "starts again without its data",
      (redis: { restart(): Promise<void> }) => redis.restart(),
    ],
  ] as const
) {
  Deno.test({
    name:
      `ASVS V16.5.2: where Redis ${loss}, a server that lives writes nothing there and is not ready until it is restarted; others start`,
    ignore: !hasRedisServer,
    fn: async () => {
      await withInstances({ servers: [{}, {}] }, async ({ servers, redis, stop }) => {
        const [one, other] = servers as readonly [ServerUnderTest, ServerUnderTest];
        const { access_token } = await signIn(one);
        await lose(redis);
        // Anybody's probing gets an address banned, which is a sealed record.
        for (let probe = 0; probe < 10; probe++) {
          await callsOf(one)("GET", "/.env", undefined, { "x-forwarded-for": "203.0.113.9" });
        }
        // It may be not ready for the interruption alone; what it says comes a moment later.
        await until(
          () => callsOf(one)("GET", "/readyz"),
          ({ status }) => status === 503 && one.output().includes('"redis.other_store"'),
        );
        await expectStatus(callsOf(one, access_token)("GET", "/v1/users"), 503);
        strictEqual(await redis.cli("KEYS", "*:records:*"), "", "nothing was written there");

        // One of them starts anew, and makes keys of its own; the other one leaves those alone.
        await stop(1);
        const next = await startServerUnderTest({
          dataDir: other.dataDir,
          variables: variablesOf(redis.url, `${other.dataDir}/../no-models`),
        });
        try {
          await next.whenReady();
          const fresh = await signIn(next);
          await expectStatus(
            callsOf(one)("POST", "/v1/auth/login", { username: "admin", password: ADMIN_PASSWORD }),
            503,
          );
          strictEqual((await callsOf(one)("GET", "/readyz")).status, 503);
          await expectStatus(callsOf(next, fresh.access_token)("GET", "/v1/users"), 200);
          await expectStatus(callsOf(next)("GET", "/readyz"), 200);
          strictEqual(one.output().split('"redis.other_store"').length, 2, "it is said once");
        } finally {
          await next.stop();
        }
      });
    },
  });
}

/** Of a server that shares nothing with the others but their Redis. */
function variablesOf(redisUrl: string, modelsDir: string): Record<string, string> {
  return {
    PORTCULLIS_REDIS_URL: redisUrl,
    PORTCULLIS_MASTER_KEY: generateMasterKey(),
    PORTCULLIS_MODELS_DIR: modelsDir,
    PORTCULLIS_PUBLIC_URL: "http://portcullis.test",
  };
}

Deno.test("ASVS V6.3.2: in production a data folder that has served does not start on a store that lost its users", async () => {
  const folder = await Deno.makeTempDir();
  const dataDir = `${folder}/data`;
  const variables: Record<string, string> = {
    PORTCULLIS_MODE: "production",
    PORTCULLIS_MODELS_DIR: `${folder}/no-models`,
    PORTCULLIS_PUBLIC_URL: "https://ai.example.com",
    PORTCULLIS_TRUSTED_PROXIES: "127.0.0.1",
    PORTCULLIS_MASTER_KEY: generateMasterKey(),
    PORTCULLIS_SIGNING_KEY: await generateSigningKey(),
    PORTCULLIS_DATA_DIR: dataDir,
  };
  try {
    // A first start that fails is none that has served.
    match(
      await failToStart({ ...variables, PORTCULLIS_ADMIN_PASSWORD: ADMIN_PASSWORD }),
      /Cannot read the models folder/,
    );
    await Deno.mkdir(`${folder}/no-models`);
    const server = await startServerUnderTest({ dataDir, variables });
    await server.whenReady();
    await server.stop("SIGKILL");
    for (const { name } of Deno.readDirSync(dataDir)) {
      if (name.startsWith("portcullis.db")) await Deno.remove(`${dataDir}/${name}`);
    }
    const said = await failToStart({ ...variables, PORTCULLIS_ADMIN_PASSWORD: ADMIN_PASSWORD });
    match(said, /the store has no user, but this data folder has served before: restore the store/);
    // And the refused start changes nothing about that.
    match(
      await failToStart({ ...variables, PORTCULLIS_ADMIN_PASSWORD: ADMIN_PASSWORD }),
      /has served before/,
    );
    await Deno.remove(dataDir, { recursive: true });
    const anew = await startServerUnderTest({ dataDir, variables });
    await anew.whenReady();
    await anew.stop();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** What a server says that does not come up. */
async function failToStart(settings: Record<string, string>): Promise<string> {
  const variables = { ...settings, PORTCULLIS_PORT: String(freePort()) };
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", ...flagsFor(variables), "src/main.ts"],
    cwd: ROOT,
    env: { ...variables, NO_COLOR: "1" },
  }).output();
  const said = new TextDecoder().decode(stderr);
  strictEqual(code, 69, said);
  return said;
}
