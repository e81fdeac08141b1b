// Tests of the data thread: what was written by a call whose answer was lost is told, and a whole book holds nobody up.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { type DataThread, openDataThread } from "../../src/assembly/data_thread.ts";
import { limitsFile, storeFile } from "../../src/config/environment.ts";
import { openRevocations } from "../../src/identity/revocation.ts";
import { systemClock } from "../../src/time/clock.ts";
import { isFault } from "../identity/is_fault.ts";

async function withThread(
  run: (thread: DataThread, dataDir: string) => Promise<void>,
  timeoutMs = 60_000,
): Promise<void> {
  const dataDir = Deno.makeTempDirSync({ prefix: "data-" });
  const thread = openDataThread(dataDir, timeoutMs, systemClock, () => {});
  try {
    await run(thread, dataDir);
  } finally {
    await thread.close();
    Deno.removeSync(dataDir, { recursive: true });
  }
}

const moment = () => new Promise((resolve) => setTimeout(resolve, 5));

Deno.test("a revocation that is made after its call was given up holds as soon as the feed is current again", async () => {
  await withThread(async ({ records, feed }, dataDir) => {
    const revocations = await openRevocations(records, systemClock, feed);
    const expiresAtMs = systemClock.now() + 3_600_000;
    using other = new DatabaseSync(storeFile(dataDir));
    // SQLite waits for the other one a quarter of a second: a machine under load may come too late for that.
    for (let tries = 0; tries < 20; tries++) {
      other.exec("BEGIN IMMEDIATE");
      await rejects(revocations.revoke(`tok_${tries}`, expiresAtMs), isFault("unavailable"));
      strictEqual(feed.isCurrent(), false);
      other.exec("COMMIT");
      while (!feed.isCurrent()) await moment();
      const isMade = await records.get("revoked_tokens", `tok_${tries}`) !== undefined;
      strictEqual(revocations.isRevoked(`tok_${tries}`), isMade);
      if (isMade) return;
    }
    throw new Error("Cannot lose an answer: none came late");
  }, 50);
});

Deno.test("a call that only reads, or changes what nobody follows, leaves the feed current when its answer is lost", async () => {
  await withThread(async ({ records, limits, feed }, dataDir) => {
    feed.follow("t", () => {});
    await records.get("t", "k");
    using other = new DatabaseSync(storeFile(dataDir));
    using counted = new DatabaseSync(limitsFile(dataDir));
    for (
      const call of [
        () => records.put("quiet", "k", Uint8Array.of(1)),
        () => records.replace("t", [{ key: "k", before: Uint8Array.of(1), after: Uint8Array.of(2) }]),
        async () => await limits.settle("hold", [], [{ book: "b", key: "k", amount: 1, keptMs: 1000 }]),
      ]
    ) {
      for (const each of [other, counted]) each.exec("BEGIN IMMEDIATE");
      await rejects(call, isFault("unavailable"));
      strictEqual(feed.isCurrent(), true);
      for (const each of [other, counted]) each.exec("COMMIT");
      while (await records.get("t", "k").then(() => false, () => true)) await moment();
    }
  }, 50);
});

Deno.test("while a large book is read, what others call is done between its pages", async () => {
  await withThread(async ({ records, limits }) => {
    const keys = Array.from({ length: 5000 }, (_, index) => `k${index}`);
    await limits.settle("hold", [], keys.map((key) => ({ book: "b", key, amount: 2, keptMs: 3_600_000 })));
    for (const asked of [undefined, keys]) {
      let isRead = false;
      const reading = limits.sums("b", asked).finally(() => isRead = true);
      for (let call = 0; call < 5; call++) {
        await records.get("t", "k");
        strictEqual(isRead, false);
      }
      deepStrictEqual(await reading, new Map(keys.sort().map((key) => [key, 2])));
    }
  });
});

Deno.test("where one file cannot be opened the other is closed again, and both open when that is over", async () => {
  await withThread(async ({ records }, dataDir) => {
    const other = new DatabaseSync(limitsFile(dataDir));
    other.exec("PRAGMA journal_mode = WAL; CREATE TABLE other (a); BEGIN IMMEDIATE");
    await rejects(records.get("t", "k"), isFault("unavailable"));
    // Whoever closes a file last takes away what lies beside it.
    const files = [...Deno.readDirSync(dataDir)].map(({ name }) => `${dataDir}/${name}`);
    deepStrictEqual(files.filter((file) => file.startsWith(storeFile(dataDir))), [storeFile(dataDir)]);
    other.exec("COMMIT");
    other.close();
    strictEqual(await records.get("t", "k"), undefined);
  });
});

Deno.test("the worker may use its two files and nothing else of the data folder", async () => {
  const asked: WorkerOptions[] = [];
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(specifier: string | URL, options?: WorkerOptions) {
      if (options !== undefined) asked.push(options);
      super(specifier, options);
    }
  };
  try {
    await withThread(async ({ records, limits }, dataDir) => {
      await records.put("t", "k", Uint8Array.of(1));
      await records.scrub();
      deepStrictEqual(await limits.sums("b"), new Map());
      const other = `${dataDir}/master.key`;
      Deno.writeTextFileSync(other, "secret");
      // The same permissions, in a worker that tries what it has.
      const probe = new Worker(new URL("./fixtures/file_probe.ts", import.meta.url), {
        ...asked[0],
        type: "module",
      });
      const { promise, resolve } = Promise.withResolvers<unknown>();
      probe.onmessage = ({ data }) => resolve(data);
      probe.postMessage({ database: limitsFile(dataDir), other });
      deepStrictEqual(await promise, { read: "NotCapable", write: "NotCapable" });
      probe.terminate();
    });
  } finally {
    globalThis.Worker = Worker;
  }
});
