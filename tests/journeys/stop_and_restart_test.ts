// Stop and restart: what runs is finished, what was acknowledged is kept, what is missing is said.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { ADMIN_PASSWORD, flagsFor, freePort, startServerUnderTest } from "../support/server_under_test.ts";

const ROOT = `${import.meta.dirname}/../..`;

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`${signal} lets running requests finish, records the stop, and ends with 0`, async () => {
    const dataDir = await Deno.makeTempDir();
    // However busy the machine is: what runs gets the time that it needs.
    const variables = { PORTCULLIS_SHUTDOWN_TIMEOUT_MS: "60000", PORTCULLIS_REQUEST_TIMEOUT_MS: "60000" };
    const server = await startServerUnderTest({ dataDir, variables });
    try {
      await server.whenReady();
      const token = await server.signIn();
      const sentence =
        "A sentence that takes a while when there are many of it, for the engine reads each of them. ".repeat(
          3,
        );
      const running = fetch(`${server.origin}/v1/embeddings`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
        body: JSON.stringify({ model: "use-lite", input: Array.from({ length: 40 }, () => sentence) }),
      });
      await whenRecorded(dataDir, "inference.started");
      const [response, status] = await Promise.all([
        running.then(async (answer) => ({ status: answer.status, body: await answer.json() })),
        server.stop(signal),
      ]);
      deepStrictEqual([response.status, response.body.data?.length], [200, 40]);
      strictEqual(status.code, 0);
      deepStrictEqual(eventTypes(dataDir).slice(-2), ["inference.finished", "server.stopped"]);
      const verdict = await verifyChain({
        directory: `${dataDir}/audit`,
        checkpointDirectory: `${dataDir}/audit-checkpoint`,
      });
      strictEqual(verdict.finding, undefined);
    } finally {
      await server.stop("SIGKILL");
      await Deno.remove(dataDir, { recursive: true });
    }
  });
}

Deno.test("after a restart the user, the signing key and revocations are the same; data/ is private", async () => {
  const dataDir = await Deno.makeTempDir();
  const port = freePort();
  const variables = { PORTCULLIS_PORT: String(port) };
  const statusWith = async (token: string): Promise<number> => {
    const response = await fetch(`http://127.0.0.1:${port}/v1/models`, {
      headers: { authorization: `Bearer ${token}` },
    });
    await response.body?.cancel();
    return response.status;
  };
  try {
    const first = await startServerUnderTest({ dataDir, variables });
    const kept = await first.signIn();
    const ended = await first.signIn();
    const signOut = await fetch(`${first.origin}/v1/auth/logout`, {
      method: "POST",
      headers: { authorization: `Bearer ${ended}` },
    });
    strictEqual(signOut.status, 204);
    strictEqual((await first.stop()).code, 0);

    const second = await startServerUnderTest({
      dataDir,
      variables: { ...variables, PORTCULLIS_ADMIN_PASSWORD: "another password, not used any more" },
    });
    try {
      deepStrictEqual([await statusWith(kept), await statusWith(ended)], [200, 401]);
      await second.signIn("admin", ADMIN_PASSWORD);
    } finally {
      await second.stop();
    }
    strictEqual((Deno.statSync(dataDir).mode ?? 0) & 0o777, 0o700);
    for (const file of ["master.key", "portcullis.db"]) {
      strictEqual((Deno.statSync(`${dataDir}/${file}`).mode ?? 0) & 0o777, 0o600, file);
    }
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("without a password in the settings, the first start makes one up, shows it once and never logs it", async () => {
  const dataDir = await Deno.makeTempDir();
  try {
    const first = await startServerUnderTest({ dataDir, variables: { PORTCULLIS_ADMIN_PASSWORD: "" } }).catch(
      (error: Error) => error,
    );
    ok(
      first instanceof Error && /PORTCULLIS_ADMIN_PASSWORD/.test(first.message),
      "an empty password is refused",
    );
    const server = await startWithoutPassword(dataDir);
    await server.whenReady();
    const password = await said(server, /password {5}(\S+)/);
    await server.signIn("admin", password);
    await server.stop();
    const logLines = server.output().split("\n").filter((line) => line.startsWith("{"));
    ok(logLines.length > 0 && !logLines.some((line) => line.includes(password)));
    const again = await startWithoutPassword(dataDir);
    await again.whenReady();
    await said(again, /the one of the first start/);
    await again.stop();
    ok(!again.output().includes(password));
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("a model whose bytes differ from its card is refused and recorded; the server is otherwise up", async () => {
  const modelsDir = await Deno.makeTempDir();
  const dataDir = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${modelsDir}/use-lite`);
    for (const file of ["card.json", "vocabulary.json", "use-lite.onnx"]) {
      await Deno.copyFile(`${ROOT}/models/use-lite/${file}`, `${modelsDir}/use-lite/${file}`);
    }
    const graph = await Deno.open(`${modelsDir}/use-lite/use-lite.onnx`, { write: true });
    await graph.seek(1_000_000, Deno.SeekMode.Start);
    await graph.write(new Uint8Array([1, 2, 3]));
    graph.close();
    const server = await startServerUnderTest({ dataDir, variables: { PORTCULLIS_MODELS_DIR: modelsDir } });
    const token = await server.signIn();
    const authorization = { authorization: `Bearer ${token}` };
    const models = await (await fetch(`${server.origin}/v1/models`, { headers: authorization })).json();
    deepStrictEqual(models.data, []);
    const embedded = await fetch(`${server.origin}/v1/embeddings`, {
      method: "POST",
      headers: { ...authorization, "content-type": "application/json" },
      body: JSON.stringify({ model: "use-lite", input: "a" }),
    });
    await embedded.body?.cancel();
    strictEqual(embedded.status, 503);
    await server.stop();
    ok(
      Deno.readTextFileSync(`${dataDir}/audit/audit-000001.jsonl`).includes("digest_mismatch: use-lite.onnx"),
    );
  } finally {
    await Deno.remove(modelsDir, { recursive: true });
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("production starts with nothing made up: all that is missing, weak or unknown is listed at once, and the exit code is 78", async () => {
  const { code, stderr } = await runMain({
    PORTCULLIS_MODE: "production",
    PORTCULLIS_DATA_DIR: "/nowhere",
    PORTCULLIS_HOST: "0.0.0.0",
    PORTCULLIS_MASTER_KEY: "A".repeat(43),
    PORTCULLIS_TYPO: "1",
    PORTCULLIS_BODY_BYTES_MAX: "many",
  });
  strictEqual(code, 78);
  for (
    const name of [
      "HOST",
      "PUBLIC_URL",
      "MASTER_KEY",
      "SIGNING_KEY",
      "ADMIN_PASSWORD",
      "TYPO",
      "BODY_BYTES_MAX",
    ]
  ) {
    match(stderr, new RegExp(`^  PORTCULLIS_${name} `, "m"));
  }
});

Deno.test("what the permission set does not grant is explained, with the command that works, and nothing is left behind", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (
      const [granted, wanted] of [
        [{ PORTCULLIS_PORT: "8000" }, { PORTCULLIS_PORT: String(freePort()) }],
        [{ PORTCULLIS_DATA_DIR: "/nowhere" }, {
          PORTCULLIS_PORT: String(freePort()),
          PORTCULLIS_DATA_DIR: `${folder}/data`,
        }],
      ]
    ) {
      const variables = { PORTCULLIS_DATA_DIR: `${folder}/data`, ...wanted };
      const { code, stderr } = await runMain(variables, flagsFor({ ...variables, ...granted }));
      strictEqual(code, 69);
      match(stderr, /deno task serve/);
      deepStrictEqual([...Deno.readDirSync(folder)], []);
    }
    // What is left when the command in between fails and prints nothing.
    const { code, stderr } = await runMain({ PORTCULLIS_PORT: "9" }, ["--no-prompt"]);
    strictEqual(code, 69);
    match(stderr, /deno task serve/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a start on a port that is in use leaves no user whose password nobody saw", async () => {
  const dataDir = await Deno.makeTempDir();
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    const variables = {
      PORTCULLIS_PORT: String((taken.addr as Deno.NetAddr).port),
      PORTCULLIS_DATA_DIR: dataDir,
    };
    const { code, stderr } = await runMain(variables, flagsFor(variables));
    strictEqual(code, 69);
    match(stderr, /is in use/);
    match(stderr, /deno task serve/);
    deepStrictEqual([...Deno.readDirSync(dataDir)], []);
  } finally {
    taken.close();
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("the password that was made up is shown before the model is warm, so that an interrupted start loses nothing", async () => {
  const dataDir = await Deno.makeTempDir();
  try {
    const server = await startWithoutPassword(dataDir);
    await said(server, /password {5}(\S+)/);
    ok(!/ready {8}/.test(server.output()), "it was warm already: the test shows nothing");
    await server.stop("SIGINT");
    match(server.output(), /^stopped$/m);
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("Ctrl+C that a package runner passes on twice is one: the stop is orderly and recorded", async () => {
  const dataDir = await Deno.makeTempDir();
  try {
    const server = await startServerUnderTest({ dataDir });
    await server.whenReady();
    server.process.kill("SIGINT");
    strictEqual((await server.stop("SIGINT")).code, 0);
    strictEqual(eventTypes(dataDir).at(-1), "server.stopped");
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("a second server on the same data folder says so, and leaves the first alone", async () => {
  const dataDir = await Deno.makeTempDir();
  const server = await startServerUnderTest({ dataDir });
  try {
    const variables = { PORTCULLIS_PORT: String(freePort()), PORTCULLIS_DATA_DIR: dataDir };
    const { code, stderr } = await runMain(variables, flagsFor(variables));
    strictEqual(code, 69);
    match(stderr, /another Portcullis runs on this data folder/);
    await server.signIn();
  } finally {
    await server.stop();
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test({
  name: "a server that has run out of file descriptors ends, so that whoever runs it starts it again",
  ignore: Deno.build.os === "windows",
}, async () => {
  const dataDir = await Deno.makeTempDir();
  const port = freePort();
  const variables = { PORTCULLIS_PORT: String(port), PORTCULLIS_DATA_DIR: dataDir };
  const command = `ulimit -n 200; exec "$0" run ${flagsFor(variables).join(" ")} src/main.ts`;
  const server = new Deno.Command("bash", {
    args: ["-c", command, Deno.execPath()],
    cwd: ROOT,
    env: { ...variables, NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const output = new Response(server.stdout).text();
  const connections: Deno.TcpConn[] = [];
  try {
    for (let tries = 0; tries < 300 && !await answers(port); tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    for (let index = 0; index < 230; index++) {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port }).catch(() => undefined);
      if (connection === undefined) break;
      connections.push(connection);
    }
    strictEqual((await server.status).code, 69);
    match(await output, /server\.listener_ended.*Too many open files/);
    const verdict = await verifyChain({
      directory: `${dataDir}/audit`,
      checkpointDirectory: `${dataDir}/audit-checkpoint`,
    });
    strictEqual(verdict.finding, undefined);
  } finally {
    for (const connection of connections) connection.close();
    await Deno.remove(dataDir, { recursive: true });
  }
});

async function answers(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
  await response?.body?.cancel();
  return response?.ok === true;
}

async function startWithoutPassword(dataDir: string): ReturnType<typeof startServerUnderTest> {
  const password = Deno.env.get("PORTCULLIS_ADMIN_PASSWORD");
  ok(password === undefined, "the tests' own environment sets a password");
  return await startServerUnderTest({ dataDir, omit: ["PORTCULLIS_ADMIN_PASSWORD"] });
}

async function runMain(
  variables: Record<string, string>,
  flags?: string[],
): Promise<{ code: number; stderr: string }> {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", ...(flags ?? flagsFor({})), "src/main.ts"],
    cwd: ROOT,
    env: { ...variables, NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
  }).output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

/** What a pattern finds in the output; the greeting comes a moment after the server is ready. */
async function said(server: { output(): string }, pattern: RegExp): Promise<string> {
  for (let tries = 0; tries < 50; tries++) {
    const found = pattern.exec(server.output());
    if (found !== null) return found[1] ?? "";
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`it never said ${pattern}:\n${server.output()}`);
}

function eventTypes(dataDir: string): string[] {
  return Deno.readTextFileSync(`${dataDir}/audit/audit-000001.jsonl`).split("\n").filter((line) =>
    line.endsWith("}")
  )
    .flatMap((line) => JSON.parse(line).event?.type ?? []);
}

async function whenRecorded(dataDir: string, type: string): Promise<void> {
  for (let tries = 0; tries < 200 && !eventTypes(dataDir).includes(type); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
