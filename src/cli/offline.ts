// Offline commands: what is changed in the data folder while no server runs on it, each change recorded in its trail.
import { type Identity, openIdentity } from "../assembly/identity.ts";
import { type Opened, openTrust } from "../assembly/trust.ts";
import type { AuditTrail } from "../audit/audit_trail.ts";
import type { Config } from "../config/config.ts";
import { encodeBase64url } from "../encoding/base64url.ts";
import { Fault } from "../faults/fault.ts";
import { openLog } from "../telemetry/log.ts";
import { systemClock } from "../time/clock.ts";

/** Prints one line for a person. */
type Print = (line: string) => void;

/** API keys are counted up to so many. */
const KEYS_COUNTED_MAX = 200;

/** Gives a user a new random password, shown once, and ends all sessions of that user. API keys go on working: it says how many. */
export async function setPassword(config: Config, username: string, print: Print): Promise<number> {
  return await withDataFolder(config, async ({ users, sessions, apiKeys }, trail) => {
    const user = await users.findByName(username);
    const found = user === undefined ? undefined : await users.read(user.id);
    if (found === undefined) throw new Fault("not_found", `there is no user "${username}"`);
    const password = encodeBase64url(crypto.getRandomValues(new Uint8Array(18)));
    await trail.record({
      type: "command.changed",
      command: "user:password",
      object: `user/${found.value.id}`,
      before: null,
      after: { password: "changed" },
    });
    if (!await users.setPassword(found, password)) {
      throw new Fault("conflict", "the user was changed meanwhile");
    }
    const ended = await sessions.endAll(found.value.id);
    print(`password     ${password}   (shown this once)`);
    print(`sessions     ${ended} ended`);
    const keys = await apiKeys.list({ ownerId: found.value.id, limit: KEYS_COUNTED_MAX });
    const live = keys.filter(({ expiresAtMs }) => expiresAtMs > systemClock.now()).length;
    const atLeast = keys.length < KEYS_COUNTED_MAX ? "" : "at least ";
    print(
      `API keys     ${atLeast}${live} go on working (GET /v1/keys lists them, DELETE /v1/keys/{id} ends one)`,
    );
    if (found.value.disabled) print(`${username} is disabled: an admin has to enable the account`);
    return 0;
  });
}

/** Makes a new signing key. Tokens of the one before are good until they expire. */
export async function rotateSigningKey(config: Config, print: Print): Promise<number> {
  return await withDataFolder(config, async ({ signingKeys }, trail) => {
    const before = signingKeys.active().keyId;
    await trail.record({
      type: "command.changed",
      command: "signing-key:rotate",
      object: "signing_key",
      before: { active: before },
      after: null,
    });
    print(`signs now    ${await signingKeys.rotate()}`);
    print(`verifies     ${before}, until its tokens have expired`);
    return 0;
  });
}

async function withDataFolder(
  config: Config,
  run: (identity: Identity, trail: AuditTrail) => Promise<number>,
): Promise<number> {
  const opened: Opened = [];
  const log = openLog({
    level: "error",
    clock: systemClock,
    sink: (bytes) => Promise.resolve(bytes.length),
  });
  try {
    const trust = await openTrust(config, systemClock, log, opened);
    const identity = await trust.alone(() => openIdentity(trust, config, systemClock, log, opened));
    return await run(identity, trust.trail);
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.message.includes("another Portcullis runs")) {
      throw new Fault(
        "unavailable",
        `a server runs on ${config.dataDir}. Stop it first, or ask it: ` +
          "POST /v1/signing-keys/rotate, PATCH /v1/users/{id}",
      );
    }
    throw thrown;
  } finally {
    while (opened.length > 0) await opened.pop()?.();
  }
}
