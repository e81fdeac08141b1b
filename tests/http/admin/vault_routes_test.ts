// Tests of the vault routes: what they show of keys, that they begin one rotation, and what the trail holds of it.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { openAppUnderTest, PASSWORD } from "../../support/app_under_test.ts";

Deno.test("ASVS V13.3.4: an admin rotates the data keys: shown without any key, refused while one runs, recorded step by step", async () => {
  const app = await openAppUnderTest();
  try {
    const { users } = app.portcullis.identity;
    const token = async (username: string): Promise<string> => {
      const response = await app.call("/v1/auth/login", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ username, password: PASSWORD }),
      });
      return (await response.json()).access_token;
    };
    await users.create({ username: "oscar", password: PASSWORD, roles: ["operator"], team: "default" });
    const [admin, operator] = [await token("admin"), await token("oscar")];
    const ask = async (method: string, path: string, as = admin) => {
      const response = await app.call(path, { method, headers: { authorization: `Bearer ${as}` } });
      return { status: response.status, body: await response.json() };
    };

    const before = await ask("GET", "/admin/v1/vault");
    strictEqual(before.body.rotation, null);
    const [sealing] = before.body.keys.filter(({ kind }: { kind: string }) => kind === "seal");
    deepStrictEqual(Object.keys(sealing), ["id", "kind", "state", "created_at", "newest_master_key"]);
    deepStrictEqual([sealing.state, sealing.newest_master_key], ["active", true]);
    match(sealing.id, /^key_\w{26}$/);
    for (const [method, path] of [["GET", "/admin/v1/vault"], ["POST", "/admin/v1/vault/rotate"]] as const) {
      strictEqual((await ask(method, path, operator)).status, 403);
    }

    const begun = await ask("POST", "/admin/v1/vault/rotate");
    strictEqual(begun.status, 202);
    deepStrictEqual([begun.body.state, begun.body.ended_at, begun.body.reason], ["running", null, null]);
    notStrictEqual(begun.body.key, sealing.id);
    strictEqual((await ask("POST", "/admin/v1/vault/rotate")).status, 409);
    await app.portcullis.rotation.whenIdle();
    const after = await ask("GET", "/admin/v1/vault");
    const { state, key, done, total, resealed } = after.body.rotation;
    deepStrictEqual([state, key, done], ["done", begun.body.key, total]);
    ok(resealed > 0 && resealed <= total);
    deepStrictEqual(after.body.keys.map(({ state }: { state: string }) => state), ["active", "active"]);
    strictEqual(await token("oscar") === "", false);

    const events = app.auditEvents();
    const asked = events.find(({ type, action }) => type === "object.changed" && action === "vault:rotate");
    deepStrictEqual([asked?.object, asked?.before, asked?.after], [
      "vault/data_keys",
      { active: sealing.id },
      null,
    ]);
    const changes = events.filter(({ type, kind }) => type === "key.changed" && kind === "data")
      .map(({ key, change }) => `${change} ${key}`);
    ok(changes.indexOf(`made ${begun.body.key}`) >= 0);
    strictEqual(changes.at(-1), `destroyed ${sealing.id}`);
  } finally {
    await app.close();
  }
});
