// Bench identity: the real parts of identity in this process, over a data folder of their own, with users who can sign in.
import { type Identity, openIdentity } from "../src/assembly/identity.ts";
import { type Opened, openTrust } from "../src/assembly/trust.ts";
import { parseConfig } from "../src/config/config.ts";
import { DEFAULT_TEAM } from "../src/identity/teams.ts";
import type { User } from "../src/identity/users.ts";
import { openLog, standardOutput } from "../src/telemetry/log.ts";
import { systemClock } from "../src/time/clock.ts";
import { PASSWORD } from "./child_server.ts";

export interface BenchIdentity {
  readonly identity: Identity;
  /** What clients call the server. */
  readonly publicUrl: string;
  /** All of them sign in with `PASSWORD`. */
  readonly users: readonly User[];
  /** Afterwards a server can be started over the folder. */
  close(): Promise<void>;
}

/** @param dataDir does not exist yet */
export async function openBenchIdentity(dataDir: string, usersCount: number): Promise<BenchIdentity> {
  const parsed = parseConfig({
    variables: { PORTCULLIS_DATA_DIR: dataDir },
    file: undefined,
    cores: 2,
    storeExists: () => false,
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.mistakes));
  const { config } = parsed;
  const log = openLog({ level: "error", clock: systemClock, sink: standardOutput });
  const opened: Opened = [];
  const close = async (): Promise<void> => {
    while (opened.length > 0) await opened.pop()?.();
  };
  try {
    const trust = await openTrust(config, systemClock, log, opened);
    const identity = await openIdentity(trust, config, systemClock, log, opened);
    const users: User[] = [];
    for (let count = 1; count <= usersCount; count++) {
      const account = { username: `bench-${count}`, password: PASSWORD, roles: ["user"], team: DEFAULT_TEAM };
      users.push(await identity.users.create(account));
    }
    return { identity, publicUrl: config.publicUrl, users, close };
  } catch (thrown) {
    await close();
    throw thrown;
  }
}
