// Rotate vault: new data keys for the store, on the data folder while no server runs on it, else by asking that server.
import { type Opened, openTrust } from "../assembly/trust.ts";
import { type Config, localAddress } from "../config/config.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { Fault } from "../faults/fault.ts";
import { openLog } from "../telemetry/log.ts";
import { systemClock } from "../time/clock.ts";

/** What the command needs. */
export interface RotateVaultOptions {
  readonly config: Config;
  /** An access token or an API key of somebody with `vault:rotate`, for a server that runs. */
  readonly token: string | undefined;
  /** Variables that name a proxy: the runtime would give it the token, on its way to a server on this machine. */
  readonly proxyVariables: readonly string[];
  readonly print: (line: string) => void;
  /** Records that were looked at, of all. */
  readonly progress: (done: number, total: number) => void;
}

/** How far it is, whoever does it. */
interface Progress {
  readonly state: string;
  readonly phase: string;
  readonly key: string | null;
  readonly done: number;
  readonly total: number;
  readonly resealed: number;
  readonly reason: string | null;
}

const LOOK_EVERY_MS = 200;
const TIMEOUT_MS = 30_000;
/** Of the data folder nobody else wants anything. */
const WHOLE_SHARE = 1;

/**
 * Makes a new data key, puts everything that is sealed under it, and destroys the older ones. One that was left running is finished.
 *
 * @returns the exit code: 0 where it is done
 * @throws Fault `unavailable` when the data folder or the server cannot be used
 */
export async function rotateVault(options: RotateVaultOptions): Promise<number> {
  try {
    return await rotateFolder(options);
  } catch (thrown) {
    if (!(thrown instanceof Fault && thrown.message.includes("another Portcullis runs"))) throw thrown;
    return await askServer(options);
  }
}

async function rotateFolder({ config, print, progress }: RotateVaultOptions): Promise<number> {
  const opened: Opened = [];
  let told: string | undefined;
  const log = openLog({
    level: "warn",
    clock: systemClock,
    // What holds it up is for the person who waits.
    sink(bytes) {
      const line = new TextDecoder().decode(bytes);
      if (line.includes('"vault.') && line !== told) print(told = line.trimEnd());
      return Promise.resolve(bytes.length);
    },
  });
  try {
    const { rotation, trail } = await openTrust(
      config,
      systemClock,
      log,
      opened,
      { rotationShare: WHOLE_SHARE },
    );
    const before = await rotation.state();
    if (before?.state === "running") print("going on     with the rotation that was not finished");
    else {
      const active = (await rotation.keys()).find(({ kind, state }) => kind === "seal" && state === "active");
      await trail.record({
        type: "command.changed",
        command: "vault:rotate",
        object: "vault/data_keys",
        before: { active: active?.id ?? null },
        after: null,
      });
      await rotation.start();
    }
    return await watch(
      async () => {
        const state = await rotation.state();
        if (state === undefined) throw new Fault("unavailable", "the store has lost its rotation");
        return state;
      },
      print,
      progress,
    );
  } finally {
    while (opened.length > 0) await opened.pop()?.();
  }
}

async function askServer(
  { config, token, proxyVariables: [proxyVariable], print, progress }: RotateVaultOptions,
): Promise<number> {
  if (token === undefined) {
    throw new Fault(
      "unavailable",
      `a server runs on ${config.dataDir}. Stop it first; or ask it: POST /admin/v1/vault/rotate; or run this with PORTCULLIS_TOKEN, ` +
        "an access token or an API key of an admin",
    );
  }
  if (proxyVariable !== undefined) {
    throw new Fault(
      "unavailable",
      `${proxyVariable} names a proxy, which would read the token on its way to the server: unset it for this command`,
    );
  }
  const origin = `http://${localAddress(config)}`;
  const headers = { authorization: `Bearer ${token}` };
  async function ask(method: string, path: string): Promise<Readonly<Record<string, JsonValue>>> {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const answer = await fetch(`${origin}${path}`, { method, headers, redirect: "error", signal });
    const body = parseStrictJson(await answer.text(), BODY_DEPTH_MAX);
    const fields = (body.ok ? body.value ?? {} : {}) as Readonly<Record<string, JsonValue>>;
    if (answer.ok) return fields;
    throw new Fault(
      "unavailable",
      `the server answers ${answer.status}: ${fields.detail ?? fields.title ?? "no more"}`,
    );
  }
  const rotation = async (): Promise<Progress> =>
    (await ask("GET", "/admin/v1/vault")).rotation as unknown as Progress;
  if ((await rotation())?.state === "running") print("going on     with the rotation that runs");
  else await ask("POST", "/admin/v1/vault/rotate");
  return await watch(rotation, print, progress);
}

const BODY_DEPTH_MAX = 8;

async function watch(
  look: () => Promise<Progress>,
  print: (line: string) => void,
  progress: (done: number, total: number) => void,
): Promise<number> {
  for (let toldKey: string | null = null;;) {
    const { state, phase, key, done, total, resealed, reason } = await look();
    if (key !== toldKey && key !== null) print(`seals now    ${toldKey = key}`);
    // Afterwards everything is looked at again, in order to find nothing.
    if (state === "running") progress(phase === "keys" || phase === "reseal" ? done : total, total);
    else if (state === "done") {
      print(`resealed     ${resealed} of ${total} records`);
      print("destroyed    the older keys");
      return 0;
    } else {
      print(`${state.padEnd(12)} ${reason ?? ""}`);
      return 1;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}
