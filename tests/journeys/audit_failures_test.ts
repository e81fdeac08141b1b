// Audit failures: on real disks that fill up, break, hang and vanish nothing is computed without its record, and it comes back by itself.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { auditFolders } from "../../src/audit/audit_trail.ts";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { canMount, mountBlockDisk, mountMemoryDisk, WHY_NO_MOUNT } from "../support/mounted_disk.ts";
import { type ServerUnderTest, startServerUnderTest } from "../support/server_under_test.ts";

/** Of a record: short, so that a disk that hangs is found out soon. */
const AUDIT_TIMEOUT_MS = 500;
/** Nobody waits longer for an answer that is promised in bounded time; a busy machine included. */
const PATIENCE_MS = 60_000;

/** A fault, how it begins and how it ends. */
interface Failure {
  begin(): Promise<void> | void;
  end(): Promise<void> | void;
}

/** Makes the folders of a failure ready before the server starts on them. */
type Prepare = (dataDir: string, stack: AsyncDisposableStack) => Promise<Failure>;

const FAILURES: Readonly<Record<string, { readonly prepare: Prepare; readonly needsMount: boolean }>> = {
  "a full disk of the trail": {
    needsMount: true,
    async prepare(dataDir, stack) {
      await Deno.mkdir(`${dataDir}/audit`);
      const disk = stack.use(await mountMemoryDisk(`${dataDir}/audit`, 1024 * 1024));
      return { begin: () => disk.fill(), end: () => disk.empty() };
    },
  },
  "a full disk of the whole data folder": {
    needsMount: true,
    async prepare(dataDir, stack) {
      const disk = stack.use(await mountMemoryDisk(dataDir, 8 * 1024 * 1024));
      return { begin: () => disk.fill(), end: () => disk.empty() };
    },
  },
  "a disk that the kernel serves for reading only after an error": {
    needsMount: true,
    async prepare(dataDir, stack) {
      await Deno.mkdir(`${dataDir}/audit`);
      const disk = stack.use(await mountBlockDisk(`${dataDir}/audit`));
      return { begin: () => disk.breakDown(), end: () => disk.mend() };
    },
  },
  "a disk of the trail that hangs": {
    needsMount: true,
    async prepare(dataDir, stack) {
      await Deno.mkdir(`${dataDir}/audit`);
      const disk = stack.use(await mountBlockDisk(`${dataDir}/audit`));
      return { begin: () => disk.freeze(), end: () => disk.thaw() };
    },
  },
  "a disk of the whole data folder that hangs": {
    needsMount: true,
    async prepare(dataDir, stack) {
      const disk = stack.use(await mountBlockDisk(dataDir));
      return { begin: () => disk.freeze(), end: () => disk.thaw() };
    },
  },
  "a disk of the checkpoints that hangs": {
    needsMount: true,
    async prepare(dataDir, stack) {
      await Deno.mkdir(`${dataDir}/audit-checkpoint`);
      const disk = stack.use(await mountBlockDisk(`${dataDir}/audit-checkpoint`));
      return { begin: () => disk.freeze(), end: () => disk.thaw() };
    },
  },
  "a trail's folder that is gone": {
    needsMount: false,
    prepare: (dataDir) =>
      Promise.resolve({
        begin: () => Deno.rename(`${dataDir}/audit`, `${dataDir}/elsewhere`),
        end: () => Deno.rename(`${dataDir}/elsewhere`, `${dataDir}/audit`),
      }),
  },
  "a trail's folder with an older copy in its place": {
    needsMount: false,
    prepare: (dataDir) =>
      Promise.resolve({
        async begin() {
          await Deno.mkdir(`${dataDir}/copy`);
          for await (const { name } of Deno.readDir(`${dataDir}/audit`)) {
            const text = await Deno.readTextFile(`${dataDir}/audit/${name}`);
            // As it was before the last entry.
            await Deno.writeTextFile(
              `${dataDir}/copy/${name}`,
              text.slice(0, text.lastIndexOf("\n", text.length - 2) + 1),
            );
          }
          await Deno.rename(`${dataDir}/audit`, `${dataDir}/elsewhere`);
          await Deno.rename(`${dataDir}/copy`, `${dataDir}/audit`);
        },
        async end() {
          await Deno.remove(`${dataDir}/audit`, { recursive: true });
          await Deno.rename(`${dataDir}/elsewhere`, `${dataDir}/audit`);
        },
      }),
  },
  "a checkpoint that was deleted": {
    needsMount: false,
    prepare: (dataDir) =>
      Promise.resolve({
        begin: () => Deno.rename(`${dataDir}/audit-checkpoint`, `${dataDir}/elsewhere`),
        end: () => Deno.rename(`${dataDir}/elsewhere`, `${dataDir}/audit-checkpoint`),
      }),
  },
};

for (const [name, { prepare, needsMount }] of Object.entries(FAILURES)) {
  const ignore = needsMount && !canMount;
  Deno.test({
    name:
      `under ${name} health answers and inference is 503; when it ends, all is well by itself and nothing is missing${
        ignore ? ` (ignored: this machine ${WHY_NO_MOUNT})` : ""
      }`,
    ignore,
    async fn() {
      const dataDir = await Deno.makeTempDir({ prefix: "portcullis-failing-" });
      await using stack = new AsyncDisposableStack();
      stack.defer(() => Deno.remove(dataDir, { recursive: true }));
      const failure = await prepare(dataDir, stack);
      const server = await startServerUnderTest({
        dataDir,
        variables: { PORTCULLIS_AUDIT_TIMEOUT_MS: String(AUDIT_TIMEOUT_MS) },
      });
      try {
        await server.whenReady();
        const embed = embedderOf(server, await server.signIn());
        strictEqual((await embed()).status, 200);

        await failure.begin();
        try {
          for (let round = 0; round < 3; round++) {
            const refused = await embed();
            deepStrictEqual([refused.status, refused.code], [503, "unavailable"], JSON.stringify(refused));
            strictEqual(await statusOf(server, "/healthz"), 200);
          }
          await becomes(() => statusOf(server, "/readyz"), 503);
        } finally {
          await failure.end();
        }
        await becomes(() => statusOf(server, "/readyz"), 200);
        strictEqual((await embed()).status, 200);
        strictEqual((await server.stop()).code, 0);
        await requireWhole(dataDir, embed.answered);
      } finally {
        await server.stop("SIGKILL");
      }
    },
  });
}

Deno.test("a trail's folder that was deleted under the server is never begun anew: 503 until the stop, and the next start refuses", async () => {
  const dataDir = await Deno.makeTempDir({ prefix: "portcullis-failing-" });
  const server = await startServerUnderTest({ dataDir });
  try {
    await server.whenReady();
    const embed = embedderOf(server, await server.signIn());
    strictEqual((await embed()).status, 200);
    await Deno.remove(`${dataDir}/audit`, { recursive: true });
    await Deno.mkdir(`${dataDir}/audit`);
    for (let round = 0; round < 3; round++) strictEqual((await embed()).status, 503);
    await server.stop();
    deepStrictEqual([...Deno.readDirSync(`${dataDir}/audit`)], []);
    const said = await startServerUnderTest({ dataDir }).then(
      () => "it started",
      (error: Error) => error.message,
    );
    match(said, /Cannot start: .*audit/);
  } finally {
    await server.stop("SIGKILL");
    await Deno.remove(dataDir, { recursive: true });
  }
});

const FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
const hasFaketime = exists(FAKETIME);
Deno.test({
  name:
    `a clock that jumps to a year ahead and back leaves the trail whole, one segment a day at the most, and nobody without an answer${
      hasFaketime ? "" : " (ignored: needs libfaketime)"
    }`,
  ignore: !hasFaketime,
  async fn() {
    const dataDir = await Deno.makeTempDir({ prefix: "portcullis-failing-" });
    const clock = `${dataDir}/clock`;
    await Deno.writeTextFile(clock, "+0");
    const server = await startServerUnderTest({
      dataDir,
      environment: {
        LD_PRELOAD: FAKETIME,
        FAKETIME_TIMESTAMP_FILE: clock,
        FAKETIME_NO_CACHE: "1",
        DONT_FAKE_MONOTONIC: "1",
      },
    });
    const all = new Set<string>();
    try {
      await server.whenReady();
      for (const jump of ["+0", "+370d", "-3d", "+0", "-400d", "+1d", "+0"]) {
        await Deno.writeTextFile(clock, jump);
        // Tokens are good by the clock: who comes after a jump signs in anew.
        const embed = embedderOf(server, await server.signIn());
        strictEqual((await embed()).status, 200, `after ${jump}`);
        strictEqual(await statusOf(server, "/healthz"), 200);
        for (const request of embed.answered) all.add(request);
      }
      strictEqual((await server.stop()).code, 0);
      await requireWhole(dataDir, all);
      const segments = [...Deno.readDirSync(`${dataDir}/audit`)].filter(({ name }) =>
        name.endsWith(".jsonl")
      );
      strictEqual(segments.length, 2, "a clock that goes back begins no segment, and a day is begun once");
    } finally {
      await server.stop("SIGKILL");
      await Deno.remove(dataDir, { recursive: true });
    }
  },
});

interface Embedder {
  (): Promise<{ readonly status: number; readonly code: string | undefined }>;
  /** The ids of the requests that were answered with vectors. */
  readonly answered: Set<string>;
}

/** Asks the real model for a vector. Rejects where the connection breaks, and where nobody answers. */
function embedderOf({ origin }: ServerUnderTest, token: string): Embedder {
  const answered = new Set<string>();
  return Object.assign(async () => {
    const response = await fetch(`${origin}/v1/embeddings`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ model: "use-lite", input: "a short text" }),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const body = await response.json();
    if (response.status === 200) answered.add(response.headers.get("x-request-id") ?? "");
    return { status: response.status, code: body.error?.code };
  }, { answered });
}

async function statusOf({ origin }: ServerUnderTest, path: string): Promise<number> {
  const response = await fetch(`${origin}${path}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
  await response.body?.cancel();
  return response.status;
}

async function becomes(look: () => Promise<number>, status: number): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await look() === status) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`it never became ${status}`);
}

/** The trail is intact, every answer has its intent and its outcome, and every intent one end. */
async function requireWhole(dataDir: string, answered: ReadonlySet<string>): Promise<void> {
  strictEqual((await verifyChain(auditFolders(dataDir))).finding, undefined);
  const intents = new Map<string | undefined, (string | undefined)[]>();
  for (const event of eventsOf(dataDir)) {
    if (event.type === "inference.started") intents.set(event.request, []);
    if (event.type === "inference.finished") intents.get(event.request)?.push(event.outcome);
    if (event.type === "inference.interrupted") intents.get(event.request)?.push(event.reason);
  }
  for (const [request, ends] of intents) strictEqual(ends.length, 1, `${request}: ${ends.join(", ")}`);
  for (const request of answered) deepStrictEqual(intents.get(request), ["completed"], request);
  // The server has not ended under anybody.
  for (const [request, ends] of intents) ok(!ends.includes("server_ended"), `${request}`);
}

function eventsOf(dataDir: string): Record<string, string>[] {
  const folder = auditFolders(dataDir).directory;
  return [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".jsonl"))
    .sort()
    .flatMap((name) => Deno.readTextFileSync(`${folder}/${name}`).split("\n").slice(0, -1))
    .map((line) => JSON.parse(line).event ?? {});
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
