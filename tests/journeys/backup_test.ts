// Backup: a server under load is backed up, its machine is lost, and another machine takes its place with all that was acknowledged.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { hasRedisServer, startRedisServer } from "../support/redis_server.ts";
import { environmentOfServers, flagsFor, startServerUnderTest } from "../support/server_under_test.ts";
import { callsOf, expectStatus, refreshForm, requireIntactTrail, signIn, trailOf } from "./api_calls.ts";

const ROOT = `${import.meta.dirname}/../..`;

/** A command with the flags of its task in deno.json. */
async function command(
  name: string,
  parameters: readonly string[],
  variables: Record<string, string>,
): Promise<{ readonly code: number; readonly output: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      ...flagsFor(variables),
      "--allow-read=/",
      "--allow-write=/",
      "src/cli/cli.ts",
      name,
      ...parameters,
    ],
    cwd: ROOT,
    env: { ...environmentOfServers(), ...variables, NO_COLOR: "1" },
    clearEnv: true,
    stdin: "null",
  }).output();
  return { code, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

interface Made {
  readonly id: string;
  readonly key: string;
}

Deno.test("a machine is lost under load: from the backup another one has every account and key that was acknowledged before it, and a trail that is intact", async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-backup-" });
  const variables = { PORTCULLIS_DATA_DIR: `${folder}/data` };
  const lost = await startServerUnderTest({ dataDir: `${folder}/data`, variables });
  let ended = false;
  try {
    await lost.whenReady();
    const { access_token: token, refresh_token } = await signIn(lost);
    const admin = callsOf(lost, token);
    const made: Made[] = [];
    let computed = 0;
    const makeKeys = async (): Promise<void> => {
      while (!ended) {
        made.push(await expectStatus(admin("POST", "/v1/keys", { name: `key ${made.length}` }), 201));
      }
    };
    const compute = async (): Promise<void> => {
      while (!ended) {
        await expectStatus(
          admin("POST", "/v1/embeddings", { model: "use-lite", input: "How old are you?" }),
          200,
        );
        computed++;
      }
    };
    const load = [makeKeys(), compute(), compute()];
    while (made.length < 20 || computed < 20) await new Promise((resolve) => setTimeout(resolve, 20));
    const before = [...made];
    const computedBefore = computed;
    const backup = await command("backup", [`${folder}/backup`], variables);
    strictEqual(backup.code, 0, backup.output);
    match(backup.output, /^verified {5}\d+ entries of the audit trail$/m);
    match(backup.output, /NOT in this backup/);
    const after = made.length;
    while (made.length < after + 5) await new Promise((resolve) => setTimeout(resolve, 20));
    ended = true;
    await Promise.all(load);
    ok(made.length > before.length + 5, "nothing was under way while the backup was made");

    await lost.stop("SIGKILL");
    const masterKey = await Deno.readTextFile(`${folder}/data/master.key`);
    await Deno.remove(`${folder}/data`, { recursive: true });
    const place = { ...variables, PORTCULLIS_MASTER_KEY: masterKey };
    const restored = await command("restore", [`${folder}/backup`], place);
    strictEqual(restored.code, 0, restored.output);
    match(restored.output, /^opened {7}the master key fits$/m);
    await requireIntactTrail(`${folder}/data`);

    const next = await startServerUnderTest({ dataDir: `${folder}/data`, variables: place });
    try {
      await next.whenReady();
      const again = await signIn(next);
      for (const { key, id } of before) {
        await expectStatus(callsOf(next, key)("GET", "/v1/models"), 200).catch((cause) => {
          throw new Error(`${id} is not there`, { cause });
        });
      }
      // The session of before lives on, too.
      await expectStatus(callsOf(next)("POST", "/oauth2/token", refreshForm(refresh_token)), 200);
      const calls = callsOf(next, again.access_token);
      await expectStatus(calls("POST", "/v1/embeddings", { model: "use-lite", input: "And now?" }), 200);
    } finally {
      await next.stop();
    }
    await requireIntactTrail(`${folder}/data`);
    const trail = trailOf(`${folder}/data`);
    ok(trail.filter(({ type }) => type === "inference.finished").length > computedBefore);
    const restores = trail.filter(({ command }) => command === "restore");
    deepStrictEqual(restores.map(({ type, object }) => [type, object]), [["command.changed", "data"]]);
    // And a backup of a server that is stopped.
    const still = await command("backup", [`${folder}/second`], place);
    strictEqual(still.code, 0, still.output);
  } finally {
    ended = true;
    await lost.stop("SIGKILL");
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test({
  name:
    "with Redis the folder alone is backed up, which says so, and it is restored in front of a Redis whose keys the master key opens",
  ignore: !hasRedisServer,
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "portcullis-backup-" });
    await Deno.mkdir(`${folder}/no-models`);
    const redis = await startRedisServer();
    const variables = {
      PORTCULLIS_DATA_DIR: `${folder}/data`,
      PORTCULLIS_MODELS_DIR: `${folder}/no-models`,
      PORTCULLIS_REDIS_URL: redis.url,
      PORTCULLIS_MASTER_KEY: generateMasterKey(),
    };
    try {
      const server = await startServerUnderTest({ dataDir: `${folder}/data`, variables });
      try {
        await server.whenReady();
        await signIn(server);
        const backup = await command("backup", [`${folder}/backup`], variables);
        strictEqual(backup.code, 0, backup.output);
        match(backup.output, /^not here {5}what is in Redis/m);
        ok(![...Deno.readDirSync(`${folder}/backup`)].some(({ name }) => name.endsWith(".db")));
        // Redis remembers more of the trail than the backup has.
        await signIn(server);
      } finally {
        await server.stop();
      }
      await Deno.remove(`${folder}/data`, { recursive: true });
      const other = { ...variables, PORTCULLIS_MASTER_KEY: generateMasterKey() };
      const refused = await command("restore", [`${folder}/backup`], other);
      strictEqual(refused.code, 1, refused.output);
      match(refused.output, /master_[\w-]{12}/);
      const restored = await command("restore", [`${folder}/backup`], variables);
      strictEqual(restored.code, 0, restored.output);
      await requireIntactTrail(`${folder}/data`);
      const next = await startServerUnderTest({ dataDir: `${folder}/data`, variables });
      try {
        await next.whenReady();
      } finally {
        await next.stop();
      }
    } finally {
      await redis.stop();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
