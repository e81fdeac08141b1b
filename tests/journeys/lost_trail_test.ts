// Lost trail: what a server does whose audit trail was taken away, or put back to an older state, while it was down.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import {
  environmentOfServers,
  flagsFor,
  freePort,
  startServerUnderTest,
} from "../support/server_under_test.ts";
import { requireIntactTrail, signIn, trailOf } from "./api_calls.ts";

const ROOT = `${import.meta.dirname}/../..`;
const FOLDERS = ["audit", "audit-checkpoint"];

Deno.test("a server begins no new trail, and goes on with no older one, where its store remembers more, unless the settings say that it is lost", async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-trail-" });
  const dataDir = `${folder}/data`;
  const run = async (variables: Record<string, string> = {}): Promise<void> => {
    const server = await startServerUnderTest({ dataDir, variables });
    try {
      await server.whenReady();
      await signIn(server);
    } finally {
      await server.stop();
    }
  };
  const copy = async (from: string, to: string): Promise<void> => {
    for (const name of FOLDERS) {
      await Deno.remove(`${to}/${name}`, { recursive: true }).catch(() => {});
      await Deno.mkdir(`${to}/${name}`, { recursive: true, mode: 0o700 });
      for (const file of Deno.readDirSync(`${from}/${name}`)) {
        await Deno.copyFile(`${from}/${name}/${file.name}`, `${to}/${name}/${file.name}`);
      }
    }
  };
  try {
    await run();
    await copy(dataDir, `${folder}/older`);
    await run();
    await copy(dataDir, `${folder}/newest`);

    await copy(`${folder}/older`, dataDir);
    match(await failToStart(dataDir), /it ends before entry \d+, which the server remembers/);
    for (const name of FOLDERS) await Deno.remove(`${dataDir}/${name}`, { recursive: true });
    match(await failToStart(dataDir), /there is none, and the server remembers one of \d+ entries/);
    await copy(`${folder}/newest`, dataDir);
    await run();

    for (const name of FOLDERS) await Deno.remove(`${dataDir}/${name}`, { recursive: true });
    await run({ PORTCULLIS_AUDIT_LOST_TRAIL: "begin" });
    const [change, ...others] = trailOf(dataDir).filter(({ type }) => type === "command.changed");
    deepStrictEqual(others, []);
    match(String(change?.object), /^trail\/portcullis\.[0-9a-f]{16}\/[0-9a-f]{16}$/);
    ok(Number(Object(change?.before).size) > 0);
    // It is the trail from now on, also without that setting.
    await run();
    await requireIntactTrail(dataDir);
    await copy(`${folder}/newest`, dataDir);
    match(await failToStart(dataDir), /it is another trail than the one that the server remembers/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** What a server says that does not come up. */
async function failToStart(dataDir: string): Promise<string> {
  const variables = { PORTCULLIS_DATA_DIR: dataDir, PORTCULLIS_PORT: String(freePort()) };
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", ...flagsFor(variables), "src/main.ts"],
    cwd: ROOT,
    env: { ...environmentOfServers(), ...variables, NO_COLOR: "1" },
    clearEnv: true,
    stdin: "null",
  }).output();
  const said = new TextDecoder().decode(stderr);
  strictEqual(code, 69, said);
  return said;
}
