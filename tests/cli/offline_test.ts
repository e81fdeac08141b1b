// Tests of the offline commands: what a new password ends, and what it says of the rest.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { FIRST_USER } from "../../src/assemble.ts";
import { setPassword } from "../../src/cli/offline.ts";
import { openAppUnderTest } from "../support/app_under_test.ts";

Deno.test("user:password ends the sessions of a user, and says how many API keys go on working and how they end", async () => {
  const app = await openAppUnderTest();
  const { users, sessions, apiKeys } = app.portcullis.identity;
  try {
    const user = await users.findByName(FIRST_USER);
    ok(user);
    await sessions.open({ userId: user.id, network: "192.0.2.1", boundTo: null });
    const order = {
      name: "key",
      ownerId: user.id,
      scopes: ["model:read"],
      addresses: [],
      boundTo: null,
      seenByOthers: false,
      expiresAtMs: Date.now() + 3_600_000,
    };
    for (let count = 0; count < 2; count++) await apiKeys.create(order);
    await apiKeys.create({ ...order, ownerId: "usr_another" });
    await apiKeys.create({ ...order, expiresAtMs: Date.now() - 1 });
    await app.portcullis.close("restart");
    const lines: string[] = [];
    strictEqual(await setPassword(app.config, FIRST_USER, (line) => lines.push(line)), 0);
    deepStrictEqual(lines.slice(1), [
      "sessions     1 ended",
      "API keys     2 go on working (GET /v1/keys lists them, DELETE /v1/keys/{id} ends one)",
    ]);
    match(lines[0] ?? "", /^password {5}[\w-]{24} {3}\(shown this once\)$/);
  } finally {
    await Deno.remove(app.folder, { recursive: true });
  }
});
