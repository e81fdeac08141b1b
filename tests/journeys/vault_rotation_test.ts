// Rotation of the data keys, with real servers: under load, killed in its midst, over a Redis, and by the command.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { systemClock } from "../../src/time/clock.ts";
import { importSealingKey, open, sealingKeyIdIn } from "../../src/vault/aead.ts";
import { type KeyRing, openKeyRing } from "../../src/vault/key_ring.ts";
import { localMasterKey, type MasterKey, parseMasterKeys } from "../../src/vault/master_key.ts";
import { openOwnMasterKey } from "../../src/vault/own_master_key.ts";
import { placeOf, sealedTable } from "../../src/vault/sealed_store.ts";
import { withInstances } from "../support/instances.ts";
import { OPERATIONS, redisRulesIn } from "../support/operations_document.ts";
import { hasRedisServer } from "../support/redis_server.ts";
import {
  environmentOfServers,
  flagsFor,
  freePort,
  type ServerUnderTest,
  startServerUnderTest,
} from "../support/server_under_test.ts";
import {
  type Answer,
  type Call,
  callsOf,
  expectStatus,
  pause,
  refreshForm,
  requireIntactTrail,
  signIn,
  trailOf,
  until,
} from "./api_calls.ts";

/** Requests a second that the load asks for. How many a machine answers is for the bench to say; here some are asked for at each step. */
const RATE = 100;
const ANSWERED_MIN = 50;
const ACTORS = 8;
const PASSWORD = "seven green bicycles by the lake";
const ROOT = `${import.meta.dirname}/../..`;
/** Records of a test's own, so that a rotation has something to do. */
const FILLING = "known_networks";

interface Vault {
  readonly keys: readonly { readonly id: string; readonly kind: string; readonly state: string }[];
  readonly rotation: {
    readonly state: string;
    readonly key: string;
    readonly done: number;
    readonly total: number;
    readonly resealed: number;
  };
}

const askVault = (call: Call): Promise<Answer> => call("GET", "/admin/v1/vault");

async function untilEnded(call: Call): Promise<Vault> {
  const { body } = await until(() => askVault(call), ({ body }) => body.rotation.state !== "running");
  strictEqual(body.rotation.state, "done", JSON.stringify(body.rotation));
  return body;
}

function sealKeyOf({ keys }: Pick<Vault, "keys">): string {
  return keys.find(({ kind, state }) => kind === "seal" && state === "active")?.id ?? "";
}

/** One who does one thing after the other: reads, and whatever seals, opens and changes records, by versions that were read long ago. */
async function actorOf(server: ServerUnderTest, name: string): Promise<(step: number) => Promise<Answer>> {
  let session = await signIn(server);
  const call: Call = (...request) => callsOf(server, session.access_token)(...request);
  const { key } = await expectStatus(call("POST", "/v1/keys", { name }), 201);
  const withKey = callsOf(server, key);
  await expectStatus(call("POST", "/v1/teams", { id: name }), 201);
  const role = `/v1/roles/${name}/${name}`;
  await expectStatus(call("PUT", role, { grants: ["key:read/own"] }), 201);
  const account = { username: name, password: PASSWORD, roles: ["user"] };
  const { id } = await expectStatus(call("POST", "/v1/users", account), 201);
  async function refresh(): Promise<Answer> {
    const answer = await callsOf(server)("POST", "/oauth2/token", refreshForm(session.refresh_token));
    if (answer.status === 200) session = answer.body;
    return answer;
  }
  const things: readonly ((step: number) => Promise<Answer>)[] = [
    () => call("GET", "/v1/models"),
    () => withKey("GET", "/v1/models"),
    () => call("GET", `/v1/users/${id}`),
    refresh,
    () => withKey("GET", "/v1/models"),
    () => call("GET", "/v1/roles"),
    (step) => call("PATCH", `/v1/teams/${name}`, { description: `at ${step}` }),
    () => withKey("GET", "/v1/models"),
    () => call("GET", "/v1/auth/sessions"),
    (step) => call("PUT", role, { grants: [step % 20 < 10 ? "key:read/own" : "session:read/own"] }),
    () => call("GET", `/v1/teams/${name}`),
    () => withKey("GET", "/v1/models"),
    (step) => call("PATCH", `/v1/users/${id}`, { roles: [step % 32 < 16 ? "user" : "operator"] }),
    () => call("GET", "/v1/users"),
    () => withKey("GET", "/v1/models"),
    (step) =>
      step % 5 > 0
        ? call("GET", "/v1/models")
        : callsOf(server)("POST", "/v1/auth/login", { username: name, password: PASSWORD }),
  ];
  return (step) => things[step % things.length]?.(step) ?? call("GET", "/v1/models");
}

/** Actors at a steady pace, until it is stopped. */
async function startLoad(servers: readonly ServerUnderTest[]) {
  const failed: string[] = [];
  let answered = 0;
  let isOver = false;
  const actors: ((step: number) => Promise<Answer>)[] = [];
  for (let index = 0; index < ACTORS; index++) {
    const server = servers[index % servers.length];
    if (server !== undefined) actors.push(await actorOf(server, `load-${index}`));
  }
  const beganMs = performance.now();
  const working = actors.map(async (act, index) => {
    for (let step = index; !isOver; step++) {
      // Who is late hurries.
      const dueMs = beganMs + (step - index + index / ACTORS) * ACTORS * 1000 / RATE;
      await pause(Math.max(0, dueMs - performance.now()));
      const answer = await act(step).catch((thrown) => thrown as Error);
      if (answer instanceof Error) failed.push(String(answer));
      else if (answer.status >= 300) failed.push(`${answer.status} ${answer.text}`);
      answered++;
    }
  });
  return {
    failed,
    answered: () => answered,
    async stop() {
      isOver = true;
      await Promise.all(working);
    },
  };
}

/** All that the files of the store hold, also where nothing stands any more. */
function rawStore(dataDir: string): string {
  return ["portcullis.db", "portcullis.db-wal"].map((name) =>
    new TextDecoder("latin1").decode(Deno.readFileSync(`${dataDir}/${name}`))
  ).join();
}

/** The data keys as they rest, wrapped. */
function wrappedKeys(
  dataDir: string,
): readonly { readonly id: string; readonly value: Uint8Array<ArrayBuffer> }[] {
  using database = new DatabaseSync(`${dataDir}/portcullis.db`, { readOnly: true });
  return database.prepare("SELECT key, value FROM records WHERE collection = 'data_keys'").all().map((
    row,
  ) => ({
    id: String(row.key),
    value: new Uint8Array(row.value as Uint8Array),
  }));
}

function masterKeyOf(dataDir: string): MasterKey {
  const [current, ...older] = parseMasterKeys(Deno.readTextFileSync(`${dataDir}/master.key`));
  return localMasterKey(current, older);
}

/** The store of a stopped server, and its ring. */
async function withStore(
  dataDir: string,
  run: (store: RecordStore, keyRing: KeyRing) => Promise<void>,
): Promise<void> {
  const store = openSqliteRecordStore(`${dataDir}/portcullis.db`, systemClock);
  try {
    await run(store, await openKeyRing(store, masterKeyOf(dataDir), systemClock));
  } finally {
    await store.close();
  }
}

/** Also where no server has been yet. */
async function fill(dataDir: string, records: number): Promise<void> {
  await openOwnMasterKey(`${dataDir}/master.key`);
  await withStore(dataDir, async (store, keyRing) => {
    const table = sealedTable(store, keyRing, FILLING);
    const lifetime = { expiresAtMs: systemClock.now() + 3_600_000 };
    for (let from = 0; from < records; from += 500) {
      const indexes = Array.from({ length: Math.min(500, records - from) }, (_, index) => from + index);
      await store.write(
        await Promise.all(
          indexes.map((index) => table.changeOf(`filling-${index}`, { index }, { lifetime })),
        ),
      );
    }
  });
}

/** Everything in the store opens, and under this key alone; how many values of the filling there are. */
async function requireSealedUnder(dataDir: string, id: string): Promise<number> {
  let filling = 0;
  await withStore(dataDir, async (store, keyRing) => {
    for (const name of await store.tables()) {
      if (name === "data_keys") continue;
      for (const { key, value } of await store.list(name, { limit: 100_000 })) {
        const sealedBy = sealingKeyIdIn(value);
        if (sealedBy === undefined) continue;
        strictEqual(sealedBy, id, `${name}/${key}`);
        await keyRing.open(placeOf(name, key), value);
        if (key.startsWith("filling-")) filling++;
      }
    }
  });
  return filling;
}

Deno.test("two rotations under load: no request fails, and afterwards the older keys open nothing and are in no file", async () => {
  const dataDir = await Deno.makeTempDir({ prefix: "portcullis-rotation-" });
  const records = 300;
  try {
    await fill(dataDir, records);
    const server = await startServerUnderTest({
      dataDir,
      variables: { PORTCULLIS_RATE_TOKEN_PER_MINUTE: "1000000" },
    });
    try {
      await server.whenReady();
      const call = callsOf(server, await server.signIn());
      const load = await startLoad([server]);
      const before = load.answered();
      const older: {
        readonly id: string;
        readonly raw: Uint8Array<ArrayBuffer>;
        readonly wrapped: Uint8Array[];
      }[] = [];
      for (let rotation = 0; rotation < 2; rotation++) {
        const id = sealKeyOf((await askVault(call)).body);
        const valueNow = () =>
          wrappedKeys(dataDir).find((each) => each.id === `seal.${id}`)?.value ?? new Uint8Array();
        const value = valueNow();
        const raw = await masterKeyOf(dataDir).unwrap(`data_keys/seal.${id}`, value);
        const { key } = await expectStatus(call("POST", "/admin/v1/vault/rotate"), 202);
        notStrictEqual(key, id);
        // The server holds its master key itself, and made a new one of that as well.
        const rewrapped = valueNow();
        notStrictEqual(rewrapped.toHex(), value.toHex());
        older.push({ id, raw, wrapped: [value, rewrapped] });
        await expectStatus(call("POST", "/admin/v1/vault/rotate"), 409);
        const ended = await untilEnded(call);
        strictEqual(sealKeyOf(ended), key);
        strictEqual(ended.keys.length, 2);
        ok(ended.rotation.resealed >= records);
      }
      const answered = load.answered() - before;
      await load.stop();
      deepStrictEqual(load.failed.slice(0, 5), []);
      ok(answered >= ANSWERED_MIN, `${answered} requests were answered meanwhile`);

      // While it runs: the write-ahead log is there as well.
      const raw = rawStore(dataDir);
      ok(raw.includes(`seal.${sealKeyOf((await askVault(call)).body)}`));
      for (const { id, wrapped } of older) {
        ok(!raw.includes(`\x1e${id}`), "no value names it");
        ok(!raw.includes(`seal.${id}`), "it is in no record");
        for (const value of wrapped) {
          ok(
            !raw.includes(new TextDecoder("latin1").decode(value.slice(-32))),
            "nor wrapped in what was a record",
          );
        }
      }
      const active = sealKeyOf((await askVault(call)).body);
      await server.stop();
      strictEqual(await requireSealedUnder(dataDir, active), records);
      await withStore(dataDir, async (store) => {
        for (const { id, raw } of older) {
          const oldKey = await importSealingKey(id, raw);
          for (const { key, value } of await store.list("users", { limit: 100 })) {
            await rejects(open(oldKey, placeOf("users", key), value));
          }
        }
      });
      const changes = trailOf(dataDir).filter(({ type, kind }) => type === "key.changed" && kind === "data");
      for (const { id } of older) {
        strictEqual(changes.filter(({ key, change }) => key === id && change === "destroyed").length, 1);
      }
      strictEqual(changes.filter(({ change }) => change === "made").length, 2);
      await requireIntactTrail(dataDir);
    } finally {
      await server.stop();
    }
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("a server that is killed in the midst of a rotation goes on with it at its next start, and nothing is lost", async () => {
  const dataDir = await Deno.makeTempDir({ prefix: "portcullis-rotation-" });
  const records = 1500;
  try {
    await fill(dataDir, records);
    // At other moments: tests/vault/rotation_test.ts.
    const dying = await startServerUnderTest({ dataDir });
    const ask = callsOf(dying, await dying.signIn());
    const { key } = await expectStatus(ask("POST", "/admin/v1/vault/rotate"), 202);
    const { body } = await until(
      () => askVault(ask),
      ({ body: { rotation } }) => rotation.resealed > 0.1 * records,
    );
    strictEqual(body.rotation.state, "running");
    await dying.stop("SIGKILL");
    const server = await startServerUnderTest({ dataDir });
    try {
      const call = callsOf(server, await server.signIn());
      const ended = await untilEnded(call);
      deepStrictEqual([ended.rotation.key, sealKeyOf(ended), ended.keys.length], [key, key, 2]);
    } finally {
      await server.stop();
    }
    strictEqual(await requireSealedUnder(dataDir, key), records);
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test({
  name:
    "two instances on a Redis, whose user may do no more than docs/operations.md says, rotate under load: no request fails at either",
  ignore: !hasRedisServer,
  async fn() {
    await withInstances(
      { servers: [{}, {}], redisRules: redisRulesIn(OPERATIONS) },
      async ({ servers, redis, stop }) => {
        const [first, second] = servers;
        ok(first && second);
        const load = await startLoad(servers);
        const [call, other] = [callsOf(first, await first.signIn()), callsOf(second, await second.signIn())];
        const before = load.answered();
        const { body: { keys } } = await askVault(call);
        const old = sealKeyOf({ keys });
        const { key } = await expectStatus(call("POST", "/admin/v1/vault/rotate"), 202);
        await expectStatus(other("POST", "/admin/v1/vault/rotate"), 409);
        const ended = await untilEnded(other);
        const answered = load.answered() - before;
        await load.stop();
        deepStrictEqual(load.failed.slice(0, 5), []);
        ok(answered >= ANSWERED_MIN, `${answered} requests were answered meanwhile`);
        deepStrictEqual([sealKeyOf(ended), ended.keys.length], [key, 2]);
        for (const name of (await redis.cli("KEYS", "{portcullis}:records:*")).split("\n")) {
          if (name.endsWith(":vault_rotations")) continue;
          ok(!(await redis.cli("HGETALL", name)).includes(old), name);
        }
        // An instance dies in the midst of the next one, and the other goes on with it.
        await expectStatus(call("POST", "/admin/v1/vault/rotate"), 202);
        await stop(0, "SIGKILL");
        const taken = await untilEnded(other);
        notStrictEqual(sealKeyOf(taken), key);
        strictEqual(taken.keys.length, 2);
        await second.signIn();
      },
    );
  },
});

Deno.test("deno task vault:rotate does it on the data folder of a stopped server, asks one that runs, and says how where it may not", async () => {
  const dataDir = await Deno.makeTempDir({ prefix: "portcullis-rotation-" });
  const variables = { PORTCULLIS_PORT: String(freePort()), PORTCULLIS_DATA_DIR: dataDir };
  const rotate = async (more: Record<string, string> = {}) => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", ...flagsFor(variables), "src/cli/cli.ts", "vault:rotate"],
      cwd: ROOT,
      env: { ...environmentOfServers(), ...variables, ...more, NO_COLOR: "1" },
      clearEnv: true,
      stdin: "null",
    }).output();
    return { code, said: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  };
  try {
    const server = await startServerUnderTest({ dataDir, variables });
    try {
      const token = await server.signIn();
      const refused = await rotate();
      deepStrictEqual([refused.code, /PORTCULLIS_TOKEN/.test(refused.said)], [1, true]);
      const wrong = await rotate({ PORTCULLIS_TOKEN: "nobody" });
      deepStrictEqual([wrong.code, /answers 401/.test(wrong.said)], [1, true]);
      // The runtime would give it the token, on its way to the server: nobody listens there.
      const proxied = await rotate({ PORTCULLIS_TOKEN: token, HTTP_PROXY: `http://127.0.0.1:${freePort()}` });
      deepStrictEqual([proxied.code, /HTTP_PROXY names a proxy/.test(proxied.said)], [1, true], proxied.said);
      const asked = await rotate({ PORTCULLIS_TOKEN: token });
      strictEqual(asked.code, 0, asked.said);
      match(
        asked.said,
        /^seals now {4}key_\w+\nresealed {5}\d+ of \d+ records\ndestroyed {4}the older keys\n/,
      );
      strictEqual((await askVault(callsOf(server, token))).body.rotation.state, "done");
    } finally {
      await server.stop();
    }
    const offline = await rotate();
    strictEqual(offline.code, 0, offline.said);
    const [, key = ""] = /^seals now {4}(key_\w+)\n/.exec(offline.said) ?? [];
    await requireSealedUnder(dataDir, key);
    const events = trailOf(dataDir);
    strictEqual(
      events.filter(({ type, command }) => type === "command.changed" && command === "vault:rotate").length,
      1,
    );
    strictEqual(
      events.filter(({ type, key: of, change }) => type === "key.changed" && of === key && change === "made")
        .length,
      1,
    );
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});
