// Tests of the archive with its real worker: it starts late or when asked, is up to date when it answers, and ends.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { type AuditArchive, openAuditArchive } from "../../../src/audit/archive/audit_archive.ts";
import { ALL_ENTRIES } from "../../../src/audit/archive/audit_query.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { openLog } from "../../../src/telemetry/log.ts";
import { systemClock } from "../../../src/time/clock.ts";
import { numberedUpTo, TRAIL_KEYS, TrailFolder, until } from "../trail_folder.ts";

const NEVER_MS = 1_000_000;

/** An archive over a trail folder, and what it logs. */
function openArchive(folder: TrailFolder, startAfterMs = NEVER_MS) {
  const { directory, checkpointDirectory, root } = folder;
  const indexDirectory = `${root}/index`;
  Deno.mkdirSync(indexDirectory, { recursive: true });
  const logged: Record<string, unknown>[] = [];
  const sink = (bytes: Uint8Array): Promise<number> => {
    logged.push(...new TextDecoder().decode(bytes).trim().split("\n").map((line) => JSON.parse(line)));
    return Promise.resolve(bytes.length);
  };
  let sealingKeys: ReadonlyMap<string, Uint8Array> = new Map();
  let changed = () => {};
  const archive = openAuditArchive({
    folders: { directory, checkpointDirectory, indexDirectory },
    key: new Uint8Array(32).fill(3),
    keys: {
      verifierKeys: () => "NAME+HASH+KEY\n",
      sealingKeys: () => sealingKeys,
      onChange(listener) {
        changed = listener;
      },
    },
    log: openLog({ level: "debug", clock: systemClock, sink }),
    startAfterMs,
  });
  return Object.assign(archive, {
    logged,
    indexFile: `${indexDirectory}/index.db`,
    useKeys(keys: ReadonlyMap<string, Uint8Array>, tell: boolean) {
      sealingKeys = keys;
      if (tell) changed();
    },
    [Symbol.asyncDispose]: () => archive.close(),
  });
}

async function newest(archive: AuditArchive, limit = 3): Promise<number[]> {
  const { entries, unsearched } = await archive.page(ALL_ENTRIES, { after: undefined, limit });
  strictEqual(unsearched, 0);
  return entries.map(({ seq }) => seq);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

Deno.test("an archive that nobody asks opens nothing before its time, and then by itself", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  {
    await using archive = openArchive(folder);
    ok(!exists(archive.indexFile));
    deepStrictEqual(await newest(archive), [3, 2, 1]);
    ok(exists(archive.indexFile));
  }
  Deno.removeSync(`${folder.root}/index/index.db`);
  await using archive = openArchive(folder, 0);
  await until(() => exists(archive.indexFile));
});

Deno.test("an answer has every entry that was durable when it was asked for", async () => {
  await using folder = new TrailFolder();
  await using archive = openArchive(folder);
  for (let last = 1; last <= 25; last++) {
    folder.write(numberedUpTo(last, last));
    strictEqual((await newest(archive, 1))[0], last);
  }
});

Deno.test("an export holds what was there when it began, in pieces, and none of what came later", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(20));
  await using archive = openArchive(folder);
  const pieces = await archive.export(ALL_ENTRIES, "jsonl");
  folder.write(numberedUpTo(30, 21));
  strictEqual((await newest(archive, 1))[0], 30);
  let text = "";
  for (let piece = await pieces.next(); piece !== undefined; piece = await pieces.next()) {
    text += new TextDecoder().decode(piece);
  }
  strictEqual(text, `${folder.lines().slice(1, 21).join("\n")}\n`);
  strictEqual(await pieces.next(), undefined);
});

Deno.test("a sealing key that is new is asked for where it is met, and one that is told of opens at once", async () => {
  await using folder = new TrailFolder();
  const [one, two] = ["akey_one", "akey_two"].map((id, index) => ({
    id,
    raw: new Uint8Array(32).fill(index),
  }));
  ok(one && two);
  await using archive = openArchive(folder);
  folder.write(numberedUpTo(2), undefined, { sealed: true, keys: { ...TRAIL_KEYS, sealing: one } });
  archive.useKeys(new Map([[one.id, one.raw]]), false);
  const query = { words: { type: ["server.stopped"] } };
  const found = async () =>
    (await archive.page(query, { after: undefined, limit: 9 })).entries.map(({ event }) => event?.reason);
  deepStrictEqual(await found(), ["2", "1"]);
  // Nobody tells of the second one: the archive asks when it meets it.
  const both = new Map([[one.id, one.raw], [two.id, two.raw]]);
  archive.useKeys(both, false);
  folder.write(numberedUpTo(4, 3), undefined, {
    sealed: true,
    keys: { ...TRAIL_KEYS, sealing: two },
    sealingKeys: both,
  });
  deepStrictEqual(await found(), ["4", "3", "2", "1"]);
  archive.useKeys(new Map([[one.id, one.raw]]), true);
  deepStrictEqual(await found(), [undefined, undefined, "2", "1"]);
});

Deno.test("the newest signed checkpoint is that on the disk; a torn line is none", async () => {
  await using folder = new TrailFolder();
  await using archive = openArchive(folder);
  strictEqual(await archive.newestCheckpoint(), undefined);
  folder.write(numberedUpTo(3));
  folder.write(numberedUpTo(5, 4));
  strictEqual(await archive.newestCheckpoint(), folder.notes().at(-1));
  const file = `${folder.checkpointDirectory}/checkpoints-2026-02.jsonl`;
  Deno.writeTextFileSync(file, '"half a no');
  strictEqual(await archive.newestCheckpoint(), folder.notes().at(-1));
});

Deno.test("the keys are those of the store: whoever writes beside the trail cannot add one", async () => {
  await using folder = new TrailFolder();
  await using archive = openArchive(folder);
  folder.write(numberedUpTo(3));
  Deno.writeTextFileSync(`${folder.checkpointDirectory}/trail.vkey`, "anybody's\n", { append: true });
  strictEqual(await archive.verifierKeys(), "NAME+HASH+KEY\n");
});

Deno.test("the newest signed checkpoint is found in a long history, wherever the last bytes of it begin", async () => {
  await using folder = new TrailFolder();
  await using archive = openArchive(folder);
  folder.write(numberedUpTo(1));
  const path = folder.signedPath;
  const line = Deno.readTextFileSync(path);
  const [note] = folder.notes();
  for (let more = 0; more < 4; more++) {
    // The note has a character of three bytes.
    Deno.writeTextFileSync(path, `${"x".repeat(more)}\n${line.repeat(400)}`);
    strictEqual(await archive.newestCheckpoint(), note);
  }
});

Deno.test("a trail that cannot be read refuses who asks and tells the log once, and again when it can", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  await using archive = openArchive(folder);
  Deno.renameSync(folder.checkpointPath, `${folder.root}/away`);
  await rejects(newest(archive), (thrown) => thrown instanceof Fault && thrown.kind === "unavailable");
  await until(() => archive.logged.length > 0);
  Deno.renameSync(`${folder.root}/away`, folder.checkpointPath);
  deepStrictEqual(await newest(archive), [3, 2, 1]);
  await until(() => archive.logged.length > 1);
  deepStrictEqual(archive.logged.map(({ event, level }) => [event, level]), [
    ["audit.archive_failed", "warn"],
    ["audit.archive_works", "info"],
  ]);
});

Deno.test("a closed archive refuses, and frees its index for another", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const first = openArchive(folder);
  await newest(first);
  const asked = first.page(ALL_ENTRIES, { after: undefined, limit: 1 });
  await Promise.all([first.close(), rejects(asked, Fault)]);
  await rejects(newest(first), (thrown) => thrown instanceof Fault && thrown.kind === "unavailable");
  await first.close();
  await using second = openArchive(folder);
  deepStrictEqual(await newest(second), [3, 2, 1]);
});

Deno.test("more questions than can wait are refused as overload", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  await using archive = openArchive(folder);
  const asked = Array.from({ length: 100 }, () => newest(archive, 1).then(() => "found", ({ kind }) => kind));
  const answers = await Promise.all(asked);
  strictEqual(answers.filter((answer) => answer === "found").length, 64);
  strictEqual(answers.filter((answer) => answer === "overloaded").length, 36);
});
