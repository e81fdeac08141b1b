// Tests of the sandbox: what a worker that was taken over can reach, which is nothing. The process around it has all
// permissions, so that a refusal is the worker's own, and the flags that the server runs with.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";

const SERVER_FLAGS = ["--no-prompt", "--cached-only", "--frozen", "--no-remote"];
/** Without the project's configuration, whose lock file would refuse the remote module before it is asked for. */
const CONTROL_FLAGS = ["--no-prompt", "--no-config", "--no-lock", "--unstable-worker-options"];

interface Probe {
  /** What came of each attempt: "done", or the error as text. */
  readonly outcomes: Readonly<Record<string, string>>;
  /** The paths that were asked of the listener; of a package registry too, for it plays that as well. */
  readonly asked: readonly string[];
  /** The names of the files in the folder afterwards. */
  readonly files: readonly string[];
}

async function probe(flags: readonly string[], control: boolean): Promise<Probe> {
  const folder = await Deno.makeTempDir();
  const asked: string[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const { pathname } = new URL(request.url);
    asked.push(pathname);
    return pathname === "/module.js"
      ? new Response("export {};", { headers: { "content-type": "text/javascript" } })
      : new Response("nothing here", { status: 404 });
  });
  try {
    await Deno.writeTextFile(`${folder}/secret.json`, "{}");
    const script = new URL("fixtures/sandbox_probe.ts", import.meta.url).pathname;
    const mode = control ? ["control"] : [];
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--allow-all", ...flags, script, folder, String(server.addr.port), ...mode],
      env: { NPM_CONFIG_REGISTRY: `http://127.0.0.1:${server.addr.port}/registry/`, NO_COLOR: "1" },
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    ok(success, text(stderr));
    const files = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
    return { outcomes: JSON.parse(text(stdout)), asked, files };
  } finally {
    await server.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("whatever a sandboxed worker tries to read, write, reach, start or import is refused by permission, and nothing leaves", async () => {
  const { outcomes, asked, files } = await probe(SERVER_FLAGS, false);
  const { "import a file": file, "import a remote module": remote, "import a package": packaged, ...others } =
    outcomes;
  strictEqual(Object.keys(others).length, 25);
  for (const [attempt, outcome] of Object.entries(others)) {
    ok(outcome.startsWith("NotCapable"), `${attempt}: ${outcome}`);
  }
  // A module that is not allowed fails as a TypeError; its words tell why.
  ok(file?.startsWith("TypeError: Requires read access"), String(file));
  ok(remote?.startsWith("TypeError: Requires import access"), String(remote));
  ok(packaged?.includes("--cached-only is specified"), String(packaged));
  deepStrictEqual(asked, []);
  deepStrictEqual(files, ["secret.json"]);
});

Deno.test("the same attempts succeed in a worker that is not sandboxed, so that their refusal means something", async () => {
  const { outcomes, asked, files } = await probe(CONTROL_FLAGS, true);
  for (const [attempt, outcome] of Object.entries(outcomes)) {
    // The registry, which is the test's own, answered that it has no such package.
    if (attempt !== "import a package") strictEqual(outcome, "done", attempt);
  }
  for (const path of ["/fetched", "/socket", "/module.js", "/registry/portcullis-has-no-such-package"]) {
    ok(asked.includes(path), `nobody asked for ${path}`);
  }
  deepStrictEqual([...files].sort(), ["planted", "planted.db", "secret.json"]);
});
