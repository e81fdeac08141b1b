// Tests of clients: programs with an account, with a secret that is shown once or with public keys that are checked.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { newId } from "../../src/encoding/ids.ts";
import { Fault } from "../../src/faults/fault.ts";
import { clientStanding, openClients } from "../../src/identity/clients.ts";
import { openStandings } from "../../src/identity/standings.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { makeForeignKey, makeForeignKeys } from "./foreign_key.ts";
import { openIdentityParts } from "./open_identity.ts";

const ED25519: Readonly<Record<string, string>> = {
  ...makeForeignKey("EdDSA").publicJwk,
  alg: "EdDSA",
  kid: "one",
};

async function openParts(before: Parameters<typeof openIdentityParts>[0] = {}) {
  const parts = await openIdentityParts(before);
  const standings = openStandings(async (id) => {
    const found = await clients.read(id);
    return found && clientStanding(found.value);
  }, parts.feed);
  const clients = openClients({ ...parts, standings });
  await parts.teams.create({ id: "blue", description: "", createdAtMs: 0 });
  return { ...parts, standings, clients };
}

type Clients = Awaited<ReturnType<typeof openParts>>["clients"];

const WITH_SECRET = {
  name: "nightly",
  team: "default",
  roles: ["user"],
  authentication: "secret",
  keys: [],
} as const;
const WITH_KEYS = { ...WITH_SECRET, authentication: "private_key_jwt" as const, keys: [ED25519] };

async function makeWithSecret(clients: Clients) {
  const { client, secret } = await clients.create(WITH_SECRET);
  ok(secret !== null);
  return { client, secret };
}

async function found(clients: Clients, id: string) {
  const kept = await clients.read(id);
  ok(kept);
  return kept;
}

async function verdict(clients: Clients, id: string, secret: string): Promise<string> {
  const verified = await clients.verifySecret(id, secret);
  return verified.ok ? "ok" : verified.reason;
}

const isConflict = (thrown: unknown): true => {
  ok(thrown instanceof Fault);
  strictEqual(thrown.kind, "conflict");
  return true;
};

Deno.test("a client with a secret is made, and its secret proves that it is itself", async () => {
  const { clients, clock } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  match(client.id, /^cli_[0-9a-hjkmnp-tv-z]{26}$/);
  match(secret, /^pcs_[A-Za-z0-9_-]{43}$/);
  deepStrictEqual(client, {
    ...WITH_SECRET,
    id: client.id,
    disabled: false,
    createdAtMs: clock.now(),
    tokensNotBeforeSeconds: null,
    secretRotatedAtMs: null,
    previousUntilMs: null,
  });
  deepStrictEqual(await clients.verifySecret(client.id, secret), { ok: true, value: client });
  deepStrictEqual((await found(clients, client.id)).value, client);
});

Deno.test("ASVS V7.2.3: a client's secret has 256 random bits, never twice the same", async () => {
  const { clients } = await openParts();
  const secrets = await Promise.all(
    Array.from({ length: 50 }, async () => (await makeWithSecret(clients)).secret),
  );
  strictEqual(new Set(secrets).size, 50);
  for (const secret of secrets) {
    strictEqual(Uint8Array.fromBase64(secret.slice(4), { alphabet: "base64url" }).length, 32);
  }
});

Deno.test("ASVS V14.2.6: a client's secret is shown once: it is in nothing that is kept or shown afterwards, nor is its hash", async () => {
  const { clients, store, sealed } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  const rotated = await clients.rotateSecret(await found(clients, client.id), 60);
  ok(rotated);
  const [record] = await store.list("clients", { limit: 1 });
  const opened = JSON.stringify(await sealed("clients").get(client.id));
  const kept = `${record?.key}${new TextDecoder("latin1").decode(record?.value)}${opened}`;
  const shown = JSON.stringify([
    client,
    rotated.client,
    (await found(clients, client.id)).value,
    await clients.list({ limit: 10 }),
    await clients.verifySecret(client.id, secret),
  ]);
  const hashes = [...opened.matchAll(/ash":"([\w-]{43})"/g)].map(([, hash = ""]) => hash);
  strictEqual(hashes.length, 2);
  for (const each of [secret, rotated.secret]) {
    ok(!kept.includes(each.slice(4)) && !shown.includes(each.slice(4)));
  }
  for (const hash of hashes) ok(!shown.includes(hash));
});

Deno.test("whoever is unknown, wrong, disabled or proves itself otherwise is refused, each by its own reason", async () => {
  const { clients, clock } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  const other = await makeWithSecret(clients);
  const keyed = await clients.create(WITH_KEYS);
  strictEqual(keyed.secret, null);
  strictEqual(await verdict(clients, newId("cli", clock.now()), secret), "client_unknown");
  for (const id of ["", "cli_", "nightly", `${client.id}\u0000`, `${client.id}\n`, client.id.toUpperCase()]) {
    strictEqual(await verdict(clients, id, secret), "client_unknown", JSON.stringify(id));
  }
  const wrong = [
    "",
    "pcs_",
    other.secret,
    secret.slice(0, -1),
    `${secret}A`,
    `${secret}\n`,
    ` ${secret}`,
    secret.slice(4),
    secret.toLowerCase(),
    `pck_${secret.slice(4)}`,
    `${secret.slice(0, 10)}+${secret.slice(11)}`,
    `${secret.slice(0, 10)}\ud800${secret.slice(11)}`,
    secret.repeat(1000),
  ];
  for (const each of wrong) {
    strictEqual(await verdict(clients, client.id, each), "secret_wrong", each.slice(0, 60));
  }
  strictEqual(await verdict(clients, keyed.client.id, secret), "authentication_other");
  const kept = await found(clients, client.id);
  strictEqual(await clients.replace(kept, { ...kept.value, disabled: true }), true);
  strictEqual(await verdict(clients, client.id, secret), "client_disabled");
  strictEqual(
    await verdict(clients, client.id, other.secret),
    "secret_wrong",
    "nothing to whoever proves nothing",
  );
  strictEqual(await verdict(clients, other.client.id, other.secret), "ok");
});

Deno.test("a hash that was moved to another client does not make its secret work there: the hash covers the id", async () => {
  const { clients, sealed } = await openParts();
  const one = await makeWithSecret(clients);
  const other = await makeWithSecret(clients);
  const record = await sealed("clients").get(one.client.id);
  ok(record !== undefined);
  await sealed("clients").put(other.client.id, record);
  strictEqual(await verdict(clients, other.client.id, one.secret), "secret_wrong");
});

Deno.test("ASVS V13.3.4: after a rotation with grace both secrets work until it ends, then the new one alone", async () => {
  const { clients, clock } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  const rotated = await clients.rotateSecret(await found(clients, client.id), 60);
  ok(rotated);
  strictEqual(rotated.client.secretRotatedAtMs, clock.now());
  strictEqual(rotated.client.previousUntilMs, clock.now() + 60_000);
  deepStrictEqual((await found(clients, client.id)).value, rotated.client);
  for (const [passMs, old] of [[0, "ok"], [59_999, "ok"], [1, "secret_wrong"]] as const) {
    clock.advance(passMs);
    strictEqual(await verdict(clients, client.id, rotated.secret), "ok");
    strictEqual(await verdict(clients, client.id, secret), old);
  }
});

Deno.test("after a rotation without grace, or a second one within it, the older secret is over at once", async () => {
  const { clients } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  const second = await clients.rotateSecret(await found(clients, client.id), 3600);
  const third = await clients.rotateSecret(await found(clients, client.id), 3600);
  ok(second && third);
  const verdicts = async (secrets: string[]) =>
    await Promise.all(secrets.map((each) => verdict(clients, client.id, each)));
  deepStrictEqual(await verdicts([secret, second.secret, third.secret]), ["secret_wrong", "ok", "ok"]);
  const fourth = await clients.rotateSecret(await found(clients, client.id), 0);
  ok(fourth);
  strictEqual(fourth.client.previousUntilMs, null);
  deepStrictEqual(await verdicts([third.secret, fourth.secret]), ["secret_wrong", "ok"]);
});

Deno.test("a client with keys has no secret to rotate", async () => {
  const { clients } = await openParts();
  const { client } = await clients.create(WITH_KEYS);
  await rejects(clients.rotateSecret(await found(clients, client.id), 60), isConflict);
});

Deno.test("of a JWK its public members are kept and no other, for every algorithm", async () => {
  const { clients } = await openParts();
  const keys = Object.entries(makeForeignKeys()).map(([alg, { publicJwk }]) => ({
    ...publicJwk,
    alg,
    kid: alg,
  }));
  const strange = { ...ED25519, use: "sig", key_ops: ["verify"], x5u: "https://example.org/", "ext": true };
  const { client } = await clients.create({ ...WITH_KEYS, keys: [...keys, strange] });
  deepStrictEqual(client.keys, [...keys, { ...ED25519, use: "sig" }]);
  deepStrictEqual((await found(clients, client.id)).value.keys, client.keys);
});

Deno.test("RFC 8725 §3.1: keys that are private, without an algorithm, of another one, weak, off their curve or too many are refused", async () => {
  const { clients, store } = await openParts();
  const rsa = makeForeignKey("RS256", 2048);
  const ec = makeForeignKey("ES256");
  const { alg: _, ...without } = ED25519;
  const refused: Readonly<Record<string, JsonValue>>[] = [
    {},
    without,
    { ...ED25519, alg: "none" },
    { ...ED25519, alg: "HS256" },
    { ...ED25519, alg: "ES256" },
    { ...ED25519, alg: ["EdDSA"] },
    { ...ED25519, x: "AA" },
    { ...ED25519, x: "A".repeat(43) },
    { ...ED25519, kid: 1 },
    { ...ED25519, kid: "" },
    { ...ED25519, kid: "two words" },
    { ...ED25519, use: "enc" },
    { ...ED25519, key_ops: ["sign"] },
    { ...makeForeignKey("EdDSA").privateJwk, alg: "EdDSA" },
    { ...rsa.publicJwk, alg: "RS256" },
    { ...ec.publicJwk, alg: "ES384" },
    { ...ec.publicJwk, alg: "ES256", y: ec.publicJwk.x ?? "" },
    { kty: "oct", k: "A".repeat(43), alg: "HS256" },
  ];
  const isRefused = (paths: string[]) => (thrown: unknown): true => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "fields_invalid");
    deepStrictEqual(thrown.details.fields?.map(({ path }) => path), paths);
    ok(!JSON.stringify(thrown.details).includes(String(ED25519.x)));
    return true;
  };
  for (const jwk of refused) {
    await rejects(
      clients.create({ ...WITH_KEYS, keys: [ED25519, jwk] }),
      isRefused(["/keys/1"]),
      JSON.stringify(jwk),
    );
  }
  await rejects(clients.create({ ...WITH_KEYS, keys: [] }), isRefused(["/keys"]));
  await rejects(
    clients.create({ ...WITH_KEYS, keys: Array.from({ length: 9 }, () => ED25519) }),
    isRefused(["/keys"]),
  );
  await rejects(clients.create({ ...WITH_SECRET, keys: [ED25519] }), isRefused(["/keys"]));
  const { client } = await clients.create(WITH_KEYS);
  const kept = await found(clients, client.id);
  await rejects(clients.replace(kept, { ...kept.value, keys: [without] }), isRefused(["/keys/0"]));
  await rejects(clients.replace(kept, { ...kept.value, keys: [] }), isRefused(["/keys"]));
  strictEqual((await store.list("clients", { limit: 10 })).length, 1);
});

Deno.test("keys of a client are replaced, and eight are not too many", async () => {
  const { clients } = await openParts();
  const { client } = await clients.create(WITH_KEYS);
  const kept = await found(clients, client.id);
  const next = Array.from({ length: 8 }, (_, index) => ({ ...ED25519, kid: `${index}` }));
  strictEqual(await clients.replace(kept, { ...kept.value, keys: next }), true);
  deepStrictEqual((await found(clients, client.id)).value.keys, next);
});

Deno.test("what names a client, how it proves itself, when it was made and its secret stay, whatever a change says", async () => {
  const { clients } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  const rotated = await clients.rotateSecret(await found(clients, client.id), 3600);
  ok(rotated);
  const changed = { name: "weekly", team: "blue", roles: ["user", "auditor"] };
  const forged = {
    ...rotated.client,
    ...changed,
    id: newId("cli", 0),
    authentication: "private_key_jwt" as const,
    createdAtMs: 0,
    tokensNotBeforeSeconds: 0,
    secretRotatedAtMs: 0,
    previousUntilMs: Number.MAX_SAFE_INTEGER,
    secret: null,
  };
  strictEqual(await clients.replace(await found(clients, client.id), forged), true);
  deepStrictEqual((await found(clients, client.id)).value, { ...rotated.client, ...changed });
  strictEqual(await verdict(clients, client.id, secret), "ok");
  strictEqual(await verdict(clients, client.id, rotated.secret), "ok");
  strictEqual((await clients.list({ limit: 10 })).length, 1);
});

Deno.test("ASVS V8.4.1: a client belongs to a team that exists, from its making on and after every change", async () => {
  const { clients, store } = await openParts();
  await rejects(clients.create({ ...WITH_SECRET, team: "green" }), isConflict);
  await rejects(clients.create({ ...WITH_SECRET, team: "" }), isConflict);
  deepStrictEqual(await store.list("clients", { limit: 1 }), []);
  const { client } = await makeWithSecret(clients);
  const kept = await found(clients, client.id);
  await rejects(clients.replace(kept, { ...kept.value, team: "green" }), isConflict);
  strictEqual(await clients.replace(kept, { ...kept.value, team: "blue" }), true);
  strictEqual((await found(clients, client.id)).value.team, "blue");
});

Deno.test("a team that a client joins meanwhile cannot be removed, and nobody joins one that is gone", async () => {
  const { clients, teams } = await openParts();
  const blue = await teams.read("blue");
  ok(blue);
  await clients.create({ ...WITH_SECRET, team: "blue" });
  strictEqual(await teams.remove(blue), false);
  const moved = await makeWithSecret(clients);
  const again = await teams.read("blue");
  ok(again);
  const kept = await found(clients, moved.client.id);
  strictEqual(await clients.replace(kept, { ...kept.value, team: "blue" }), true);
  strictEqual(await teams.remove(again), false);
  const now = await teams.read("blue");
  ok(now);
  strictEqual(await teams.remove(now), true);
  await rejects(clients.create({ ...WITH_SECRET, team: "blue" }), isConflict);
});

Deno.test("clients that are made or moved into one team at once do not stand in each other's way", async () => {
  const { clients } = await openParts();
  const made = await Promise.all(Array.from({ length: 10 }, () => makeWithSecret(clients)));
  const moved = await Promise.all(made.map(async ({ client }) => {
    const kept = await found(clients, client.id);
    return await clients.replace(kept, { ...kept.value, team: "blue" });
  }));
  deepStrictEqual(moved, made.map(() => true));
  for (const { client, secret } of made) strictEqual(await verdict(clients, client.id, secret), "ok");
});

Deno.test("ASVS V15.4.2: of changes made at once to what was read once, exactly one is made", async () => {
  const { clients } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  const kept = await found(clients, client.id);
  const rotations = await Promise.all(Array.from({ length: 10 }, () => clients.rotateSecret(kept, 0)));
  const made = rotations.filter((rotated) => rotated !== undefined);
  strictEqual(made.length, 1);
  strictEqual(await verdict(clients, client.id, made[0]?.secret ?? ""), "ok");
  strictEqual(await verdict(clients, client.id, secret), "secret_wrong");
  for (const team of ["default", "blue"]) {
    strictEqual(
      await clients.replace(kept, { ...kept.value, disabled: true, team }),
      false,
      "it was rotated meanwhile",
    );
  }
  strictEqual(await clients.remove(kept), false);
  const again = await found(clients, client.id);
  const results = await Promise.all([
    clients.replace(again, { ...again.value, disabled: true }),
    clients.replace(again, { ...again.value, team: "blue" }),
    clients.remove(again),
  ]);
  strictEqual(results.filter((done) => done).length, 1);
});

Deno.test("ASVS V7.4.2: a disabled, moved or removed client has another standing for the very next request", async () => {
  const { clients, standings, clock } = await openParts();
  const { client, secret } = await makeWithSecret(clients);
  await standings.load(client.id);
  deepStrictEqual(standings.known(client.id), {
    kind: "client",
    team: "default",
    roles: ["user"],
    active: true,
    tokensNotBeforeSeconds: null,
  });
  const kept = await found(clients, client.id);
  await clients.replace(kept, { ...kept.value, disabled: true, roles: [], team: "blue" });
  strictEqual(standings.known(client.id), undefined);
  deepStrictEqual(await standings.load(client.id), {
    kind: "client",
    team: "blue",
    roles: [],
    active: false,
    tokensNotBeforeSeconds: Math.floor(clock.now() / 1000) + 2,
  });
  strictEqual(await clients.remove(await found(clients, client.id)), true);
  strictEqual(standings.known(client.id), undefined);
  strictEqual(await standings.load(client.id), undefined);
  strictEqual(await clients.read(client.id), undefined);
  strictEqual(await verdict(clients, client.id, secret), "client_unknown");
  strictEqual(await clients.remove(kept), false);
  strictEqual(await clients.rotateSecret(kept, 0), undefined);
  strictEqual(await clients.replace(kept, kept.value), false);
});

Deno.test("a write that failed after it was made leaves no old standing at hand", async () => {
  const parts = await openParts();
  const { client } = await makeWithSecret(parts.clients);
  const kept = await found(parts.clients, client.id);
  await parts.standings.load(client.id);
  const store: RecordStore = {
    ...parts.store,
    async write(changes) {
      await parts.store.write(changes);
      throw new Fault("unavailable", "the answer was lost");
    },
  };
  const clients = openClients({ ...parts, store });
  await rejects(clients.replace(kept, { ...kept.value, disabled: true }), { kind: "unavailable" });
  strictEqual(parts.standings.known(client.id), undefined);
});

Deno.test("clients are listed by age, page by page, and outlive a restart", async () => {
  const parts = await openParts();
  const made = [];
  for (let count = 0; count < 5; count++) {
    parts.clock.advance(1);
    made.push(await makeWithSecret(parts.clients));
  }
  const { clients } = await openParts(parts);
  const all = made.map(({ client }) => client);
  deepStrictEqual(await clients.list({ limit: 10 }), all);
  deepStrictEqual(await clients.list({ limit: 2, after: all[1]?.id ?? "" }), all.slice(2, 4));
  for (const { client, secret } of made) strictEqual(await verdict(clients, client.id, secret), "ok");
});

Deno.test("a record of another form is a fault, never a client without its secret", async () => {
  const { clients, sealed } = await openParts();
  for (const order of [WITH_SECRET, WITH_KEYS]) {
    const { client } = await clients.create(order);
    const record = await sealed("clients").get(client.id) as Record<string, JsonValue>;
    const broken: JsonValue[] = [null, 1, [], {}];
    for (const name of Object.keys(record)) {
      if (name === "secret" && order === WITH_KEYS) continue;
      broken.push({ ...record, [name]: {} });
      // Records of before there was such a thing have none.
      if (name === "tokensNotBeforeSeconds") continue;
      broken.push(Object.fromEntries(Object.entries(record).filter(([member]) => member !== name)));
    }
    broken.push({ ...record, roles: [1] }, { ...record, keys: [1] }, { ...record, keys: [{ kty: 1 }] });
    broken.push({ ...record, authentication: "none" });
    for (const value of broken) {
      await sealed("clients").put(client.id, value);
      await rejects(clients.verifySecret(client.id, "pcs_"), { kind: "unavailable" }, JSON.stringify(value));
      await rejects(clients.read(client.id), { kind: "unavailable" });
    }
    const { tokensNotBeforeSeconds: _, ...older } = record;
    await sealed("clients").put(client.id, older);
    deepStrictEqual((await found(clients, client.id)).value, client);
  }
});
