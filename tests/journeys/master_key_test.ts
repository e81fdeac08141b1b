// Master keys: a server whose master key is in a key service, and one whose key is in a file that is replaced while it runs.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { generateMasterKey, masterKeyIdOf } from "../../src/vault/master_key.ts";
import {
  environmentOfServers,
  flagsFor,
  freePort,
  type ServerUnderTest,
  startServerUnderTest,
} from "../support/server_under_test.ts";
import { masterKeyPolicy, startTransitServer } from "../support/transit_server.ts";
import { callsOf, expectStatus, signIn, trailOf, until } from "./api_calls.ts";

const ROOT = `${import.meta.dirname}/../..`;

/** Ids of the master keys that the data keys at rest are under. */
function masterKeysOf(dataDir: string): readonly string[] {
  using database = new DatabaseSync(`${dataDir}/portcullis.db`, { readOnly: true });
  const rows = database.prepare("SELECT value FROM records WHERE collection = 'data_keys'").all();
  return [...new Set(rows.map(({ value }) => masterKeyIdOf(new Uint8Array(value as Uint8Array))))];
}

/** Rotates and waits for the end. */
async function rotate(server: ServerUnderTest, token: string): Promise<void> {
  const calls = callsOf(server, token);
  await expectStatus(calls("POST", "/admin/v1/vault/rotate"), 202);
  await until(
    () => calls("GET", "/admin/v1/vault"),
    ({ body }) => body.rotation?.state !== "running",
  );
}

/** A start that must fail. */
async function failedStart(variables: Record<string, string>): Promise<string> {
  const all = { PORTCULLIS_PORT: String(freePort()), ...variables };
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", ...flagsFor(all), "src/main.ts"],
    cwd: ROOT,
    env: { ...environmentOfServers(), ...all, NO_COLOR: "1" },
    clearEnv: true,
    stdin: "null",
  }).output();
  const said = new TextDecoder().decode(stderr);
  strictEqual(code, 69, said);
  return said;
}

Deno.test("with a key service no master key is on the machine; a service that is away stops nothing but new keys; its rotation reaches every data key", async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-service-" });
  const service = startTransitServer();
  service.makeKey("portcullis");
  service.allow("hvs.first", masterKeyPolicy("portcullis"));
  Deno.writeTextFileSync(`${folder}/token`, "hvs.first\n");
  const dataDir = `${folder}/data`;
  const variables = {
    PORTCULLIS_DATA_DIR: dataDir,
    PORTCULLIS_KEY_SERVICE_URL: service.url,
    PORTCULLIS_KEY_SERVICE_TOKEN_FILE: `${folder}/token`,
  };
  try {
    let server = await startServerUnderTest({ dataDir, variables });
    try {
      await server.whenReady();
      const { access_token: token } = await signIn(server);
      const admin = callsOf(server, token);
      deepStrictEqual(masterKeysOf(dataDir), ["vault:v1"]);
      ok(![...Deno.readDirSync(dataDir)].some(({ name }) => name === "master.key"));

      service.seal();
      const again = await signIn(server);
      await expectStatus(admin("POST", "/v1/keys", { name: "made meanwhile" }), 201);
      await expectStatus(
        callsOf(server, again.access_token)("POST", "/v1/embeddings", { model: "use-lite", input: "x" }),
        200,
      );
      await expectStatus(admin("POST", "/admin/v1/vault/rotate"), 503);
      service.unseal();

      // The agent that renews the token writes it into its file; the old one ends.
      service.revoke("hvs.first");
      service.allow("hvs.second", masterKeyPolicy("portcullis"));
      Deno.writeTextFileSync(`${folder}/token`, "hvs.second\n");
      service.rotate("portcullis");
      await rotate(server, token);
      deepStrictEqual(masterKeysOf(dataDir), ["vault:v2"]);
      service.setMinDecryptionVersion("portcullis", 2);
    } finally {
      await server.stop();
    }
    // A newer version is taken up by the next start, too.
    service.rotate("portcullis");
    server = await startServerUnderTest({ dataDir, variables });
    try {
      await server.whenReady();
      await signIn(server);
      deepStrictEqual(masterKeysOf(dataDir), ["vault:v3"]);
      const rewrapped = trailOf(dataDir).filter(({ type, change }) =>
        type === "key.changed" && change === "rewrapped"
      );
      ok(rewrapped.length >= 4, `${rewrapped.length} keys were recorded as wrapped anew`);
    } finally {
      await server.stop();
    }
    service.revoke("hvs.second");
    match(await failedStart(variables), /Cannot use the key service: it does not let this token in/);
  } finally {
    await service.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a master key in a file is replaced while the server runs: the new one before the old, a rotation, then the new one alone", async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-master-" });
  const [old, next] = [generateMasterKey(), generateMasterKey()];
  const file = `${folder}/master`;
  Deno.writeTextFileSync(file, old);
  const dataDir = `${folder}/data`;
  const variables = { PORTCULLIS_DATA_DIR: dataDir, PORTCULLIS_MASTER_KEY_FILE: file };
  try {
    let server = await startServerUnderTest({ dataDir, variables });
    try {
      await server.whenReady();
      const { access_token: token } = await signIn(server);
      const [before] = masterKeysOf(dataDir);
      Deno.writeTextFileSync(file, `${next}\n${old}\n`);
      await rotate(server, token);
      const after = masterKeysOf(dataDir);
      strictEqual(after.length, 1);
      ok(after[0] !== before);
    } finally {
      await server.stop();
    }
    Deno.writeTextFileSync(file, next);
    server = await startServerUnderTest({ dataDir, variables });
    try {
      await server.whenReady();
      await signIn(server);
    } finally {
      await server.stop();
    }
    Deno.writeTextFileSync(file, old);
    match(await failedStart(variables), /master_[\w-]{12}/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a server that holds its master key itself makes a new one with each rotation, and the old one opens nothing", async () => {
  const dataDir = await Deno.makeTempDir({ prefix: "portcullis-own-" });
  try {
    const server = await startServerUnderTest({ dataDir });
    let old = "";
    try {
      await server.whenReady();
      const { access_token: token } = await signIn(server);
      old = Deno.readTextFileSync(`${dataDir}/master.key`);
      await rotate(server, token);
    } finally {
      await server.stop();
    }
    const key = Deno.readTextFileSync(`${dataDir}/master.key`);
    match(key, /^[\w-]{43}$/);
    ok(key !== old);
    Deno.writeTextFileSync(`${dataDir}/master.key`, old);
    match(await failedStart({ PORTCULLIS_DATA_DIR: dataDir }), /master_[\w-]{12}/);
    Deno.writeTextFileSync(`${dataDir}/master.key`, key);
    const again = await startServerUnderTest({ dataDir });
    try {
      await again.whenReady();
      await signIn(again);
    } finally {
      await again.stop();
    }
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});
