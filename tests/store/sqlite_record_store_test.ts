// Tests of the record store in SQLite: the contract, and what only a file can do.
import { deepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Fault } from "../../src/faults/fault.ts";
import type { RecordChange } from "../../src/store/record_store.ts";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import { systemClock } from "../../src/time/clock.ts";
import { makePrivateFile } from "../../src/vault/private_file.ts";
import { manualClock } from "../support/manual_clock.ts";
import { countOf, countUp } from "./fixtures/count_up.ts";
import { testRecordStoreContract } from "./record_store_contract.ts";

testRecordStoreContract("SQLite store", (clock) => {
  const folder = Deno.makeTempDirSync({ prefix: "store-" });
  return {
    store: openSqliteRecordStore(`${folder}/portcullis.db`, clock),
    dispose: () => Deno.removeSync(folder, { recursive: true }),
  };
});

/** Runs with a file's name in a folder of its own. */
async function withFile(run: (file: string, folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "store-" });
  try {
    await run(`${folder}/portcullis.db`, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const isUnavailable = (thrown: unknown): true => {
  ok(thrown instanceof Fault);
  strictEqual(thrown.kind, "unavailable");
  return true;
};

/** A text that stands nowhere by chance. */
const MARK = "find-me-in-the-file-if-you-can";
const MARK_BYTES = new TextEncoder().encode(MARK);

/** Whether any file of the folder holds the mark. */
function holdsMark(folder: string): boolean {
  return [...Deno.readDirSync(folder)].some(({ name }) =>
    new TextDecoder("latin1").decode(Deno.readFileSync(`${folder}/${name}`)).includes(MARK)
  );
}

Deno.test("SQLite store: records survive a reopening, with their lifetimes", async () => {
  await withFile(async (file) => {
    const clock = manualClock();
    const first = openSqliteRecordStore(file, clock);
    await first.put("t", "short", Uint8Array.of(1), { expiresAtMs: clock.now() + 10 });
    await first.put("t", "long", Uint8Array.of(2));
    await first.close();
    const second = openSqliteRecordStore(file, clock);
    strictEqual((await second.list("t", { limit: 10 })).length, 2);
    clock.advance(10);
    deepStrictEqual(await second.list("t", { limit: 10 }), [{ key: "long", value: Uint8Array.of(2) }]);
    await second.close();
  });
});

Deno.test("SQLite store: a write is in the file when its promise resolves, without a close", async () => {
  await withFile(async (file) => {
    const writer = openSqliteRecordStore(file, systemClock);
    await writer.put("t", "k", Uint8Array.of(1));
    const reader = openSqliteRecordStore(file, systemClock);
    deepStrictEqual(await reader.get("t", "k"), Uint8Array.of(1));
    await reader.close();
    await writer.close();
  });
});

Deno.test("SQLite store: what has expired is swept from the file at the next opening", async () => {
  await withFile(async (file, folder) => {
    const clock = manualClock();
    const first = openSqliteRecordStore(file, clock);
    await first.put("t", "gone", MARK_BYTES, { expiresAtMs: clock.now() + 10 });
    await first.put("t", "stays", Uint8Array.of(1), { expiresAtMs: clock.now() + 11 });
    await first.close();
    strictEqual(holdsMark(folder), true);
    clock.advance(10);
    await openSqliteRecordStore(file, clock).close();
    using database = new DatabaseSync(file);
    deepStrictEqual(database.prepare("SELECT key FROM records").all().map((row) => row.key), ["stays"]);
    strictEqual(holdsMark(folder), false);
  });
});

Deno.test("ASVS V14.2.7: SQLite store: bytes that were deleted or overwritten are in no file after the close", async () => {
  await withFile(async (file, folder) => {
    const store = openSqliteRecordStore(file, systemClock);
    await store.put("t", "deleted", MARK_BYTES);
    await store.put("t", "overwritten", MARK_BYTES);
    strictEqual(holdsMark(folder), true);
    await store.delete("t", "deleted");
    await store.put("t", "overwritten", Uint8Array.of(1));
    await store.close();
    strictEqual(holdsMark(folder), false);
  });
});

Deno.test("ASVS V14.2.7: SQLite store: bytes that were deleted or replaced are in no file after a scrub, while the store stays open", async () => {
  await withFile(async (file, folder) => {
    const store = openSqliteRecordStore(file, systemClock);
    await store.put("t", "deleted", MARK_BYTES);
    await store.put("t", "replaced", MARK_BYTES);
    await store.scrub();
    strictEqual(holdsMark(folder), true, "they have reached the file itself");
    await store.delete("t", "deleted");
    strictEqual(
      await store.replace("t", [{ key: "replaced", before: MARK_BYTES, after: Uint8Array.of(1) }]),
      1,
    );
    strictEqual(holdsMark(folder), true);
    using other = new DatabaseSync(file);
    other.exec("BEGIN");
    other.prepare("SELECT key FROM records").all();
    await store.put("t", "k", Uint8Array.of(2));
    await rejects(store.scrub(), isUnavailable);
    other.exec("ROLLBACK");
    await store.scrub();
    strictEqual(holdsMark(folder), false);
    deepStrictEqual((await store.list("t", { limit: 10 })).map(({ key }) => key), ["k", "replaced"]);
    await store.close();
  });
});

Deno.test("ASVS V14.2.7: SQLite store: of records that were moved to other pages before they were replaced, no file has a trace after a scrub", async () => {
  let traces = 0;
  // Not each of them leaves one behind without it.
  for (let seed = 1; seed <= 20; seed++) {
    await withFile(async (file, folder) => {
      const store = openSqliteRecordStore(file, systemClock);
      // A generator of its own (Park and Miller): the same pages each time.
      let state = seed;
      const next = (bound: number): number => (state = state * 48_271 % 2_147_483_647) % bound;
      const marked = (bytes: number) => {
        const value = new Uint8Array(MARK_BYTES.length + bytes).fill(1);
        value.set(MARK_BYTES);
        return value;
      };
      const keys = Array.from({ length: 400 }, () => next(1e9).toString(36));
      const write = (each: readonly string[], value: () => Uint8Array<ArrayBuffer>) =>
        store.write(each.map((key) => ({ table: "t", key, value: value() })));
      await write(keys, () => marked(next(200)));
      for (let times = 0; times < 3; times++) {
        await write(keys.filter(() => next(3) === 0), () => marked(next(400)));
      }
      for (const key of keys) await write([key], () => new Uint8Array(next(300)));
      using other = new DatabaseSync(file);
      other.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get();
      if (holdsMark(folder)) traces++;
      await store.scrub();
      strictEqual(holdsMark(folder), false, `seed ${seed}`);
      await store.close();
    });
  }
  ok(traces > 0, "or this shows nothing");
});

Deno.test("SQLite store: over a private file all its files are private, whatever the umask", async () => {
  await withFile(async (file, folder) => {
    const umask = Deno.umask(0);
    try {
      makePrivateFile(file);
      const store = openSqliteRecordStore(file, systemClock);
      await store.put("t", "k", Uint8Array.of(1));
      const files = [...Deno.readDirSync(folder)].map(({ name }) => name);
      ok(files.length >= 2, "there is a write-ahead log");
      for (const name of files) {
        strictEqual((Deno.statSync(`${folder}/${name}`).mode ?? 0) & 0o777, 0o600, name);
      }
      await store.close();
    } finally {
      Deno.umask(umask);
    }
  });
});

Deno.test("SQLite store: a file that was opened in vain is closed again", async () => {
  await withFile((file, folder) => {
    const other = new DatabaseSync(file);
    other.exec("PRAGMA journal_mode = WAL; CREATE TABLE other (a); BEGIN IMMEDIATE");
    throws(() => openSqliteRecordStore(file, systemClock), Fault);
    other.exec("COMMIT");
    other.close();
    // Whoever closes it last takes away what lies beside it.
    deepStrictEqual([...Deno.readDirSync(folder)].map(({ name }) => join(folder, name)), [file]);
    return Promise.resolve();
  });
});

Deno.test("SQLite store: a file that is no database, or cannot be opened, is a fault", async () => {
  await withFile((file, folder) => {
    Deno.writeTextFileSync(
      file,
      "this is no database, and long enough to be told from an empty file ".repeat(20),
    );
    throws(() => openSqliteRecordStore(file, systemClock), isUnavailable);
    throws(() => openSqliteRecordStore(`${folder}/no/such/folder/x.db`, systemClock), isUnavailable);
    throws(() => openSqliteRecordStore(folder, systemClock), isUnavailable);
    return Promise.resolve();
  });
});

Deno.test("SQLite store: a database with pages overwritten is a fault at the latest when they are read", async () => {
  await withFile(async (file) => {
    const first = openSqliteRecordStore(file, systemClock);
    for (let index = 0; index < 100; index++) await first.put("t", `k${index}`, new Uint8Array(1000));
    await first.close();
    const damaged = Deno.readFileSync(file);
    damaged.fill(0x5a, 4096); // all but the first page
    Deno.writeFileSync(file, damaged);
    await rejects(async () => {
      const store = openSqliteRecordStore(file, systemClock);
      try {
        await store.list("t", { limit: 1000 });
      } finally {
        await store.close();
      }
    }, isUnavailable);
  });
});

Deno.test("SQLite store: every method of a closed store rejects with a fault, none throws", async () => {
  await withFile(async (file) => {
    const store = openSqliteRecordStore(file, systemClock);
    await store.close();
    const value = Uint8Array.of(1);
    for (
      const call of [
        () => store.get("t", "k"),
        () => store.put("t", "k", value),
        () => store.create("t", "k", value),
        () => store.write([{ table: "t", key: "k", value }]),
        () => store.write([]),
        () => store.delete("t", "k"),
        () => store.list("t", { limit: 1 }),
        () => store.replace("t", [{ key: "k", before: value, after: value }]),
        () => store.tables(),
        () => store.scrub(),
      ]
    ) await rejects(call(), isUnavailable);
    const reopened = openSqliteRecordStore(file, systemClock);
    deepStrictEqual(await reopened.list("t", { limit: 1 }), []);
    await reopened.close();
  });
});

/** Changes of which the second does what SQL beside the store may be set to break. */
const SOME_CHANGES: readonly RecordChange[] = [
  { table: "t", key: "changed", value: Uint8Array.of(9) },
  { table: "t", key: "breaks", value: Uint8Array.of(9) },
  { table: "t", key: "deleted", value: undefined },
];
for (
  const [failure, sql, changes] of [
    ["at a value that SQLite does not take", "", [
      SOME_CHANGES[0],
      { table: "t", key: "breaks", value: Uint8Array.of(9), lifetime: { expiresAtMs: 0.5 } },
    ]],
    [
      "at an error after which SQLite leaves the transaction open",
      "CREATE TRIGGER t BEFORE INSERT ON records WHEN NEW.key = 'breaks' BEGIN SELECT RAISE(FAIL, 'broken'); END",
      SOME_CHANGES,
    ],
    [
      "at an error at which SQLite itself rolls back",
      "CREATE TRIGGER t BEFORE INSERT ON records WHEN NEW.key = 'breaks' BEGIN SELECT RAISE(ROLLBACK, 'broken'); END",
      SOME_CHANGES,
    ],
    [
      "at its commit",
      `CREATE TABLE parent (id INTEGER PRIMARY KEY);
       CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
       CREATE TRIGGER t AFTER INSERT ON records WHEN NEW.key = 'breaks' BEGIN INSERT INTO child VALUES (1); END`,
      SOME_CHANGES,
    ],
  ] as [string, string, RecordChange[]][]
) {
  Deno.test(`SQLite store: a write that fails ${failure} is a fault, changes nothing, and holds nothing up`, async () => {
    await withFile(async (file) => {
      const store = openSqliteRecordStore(file, systemClock);
      await store.put("t", "changed", Uint8Array.of(1));
      await store.put("t", "deleted", Uint8Array.of(2));
      const before = await store.list("t", { limit: 10 });
      using other = new DatabaseSync(file);
      other.exec(sql);
      await rejects(store.write(changes), isUnavailable);
      deepStrictEqual(await store.list("t", { limit: 10 }), before);
      // The lock is free, and the store still writes, alone and in a transaction.
      other.exec("BEGIN IMMEDIATE; DROP TRIGGER IF EXISTS t; COMMIT");
      await store.put("t", "changed", Uint8Array.of(3));
      strictEqual(await store.write(SOME_CHANGES), true);
      await store.close();
      deepStrictEqual(
        other.prepare("SELECT key FROM records ORDER BY key").all().map(({ key }) => key),
        ["breaks", "changed"],
      );
    });
  });
}

/** A program of `fixtures/` that runs on the file. */
function programBeside(file: string, program: string, ...args: number[]): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--cached-only",
      "--no-check",
      `--allow-read=${file}`,
      `--allow-write=${file}`,
      join(import.meta.dirname ?? "", "fixtures", program),
      file,
      ...args.map(String),
    ],
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "inherit",
  });
}

/** Starts such a program and waits for its first words. */
async function startBeside(...program: Parameters<typeof programBeside>) {
  const child = programBeside(...program).spawn();
  const words = child.stdout.getReader();
  strictEqual((await words.read()).done, false);
  return {
    async ended() {
      strictEqual((await words.read()).done, true);
      strictEqual((await child.status).success, true);
    },
  };
}

Deno.test("SQLite store: a write waits for another process that holds the file, and is judged by what that one left", async () => {
  await withFile(async (file) => {
    const store = openSqliteRecordStore(file, systemClock);
    await store.put("t", "k", Uint8Array.of(1));
    const change = { table: "t", key: "k", value: Uint8Array.of(3) };
    const child = await startBeside(file, "change_slowly.ts", 50);
    strictEqual(await store.write([{ ...change, expects: Uint8Array.of(1) }]), false);
    strictEqual(await store.write([{ ...change, expects: Uint8Array.of(2) }]), true);
    await child.ended();
    await store.close();
  });
});

Deno.test("ASVS V15.4.2: SQLite store: three stores on one file, one in another process, lose no update", async () => {
  await withFile(async (file) => {
    const [here, beside] = [
      openSqliteRecordStore(file, systemClock),
      openSqliteRecordStore(file, systemClock),
    ];
    const times = 100;
    const child = await startBeside(file, "count_up.ts", times);
    await Promise.all([countUp(here, times), countUp(beside, times)]);
    await child.ended();
    strictEqual(countOf(await here.get("t", "count")), 3 * times);
    await here.close();
    await beside.close();
  });
});

Deno.test("SQLite store: two processes share the records, and a record is created by one of them only", async () => {
  await withFile(async (file) => {
    const store = openSqliteRecordStore(file, systemClock);
    strictEqual(await store.create("t", "shared", Uint8Array.of(1)), true);
    const { stdout, success } = await programBeside(file, "create_record.ts").output();
    strictEqual(success, true);
    deepStrictEqual(JSON.parse(new TextDecoder().decode(stdout)), {
      created: false,
      keys: ["shared", "theirs"],
    });
    deepStrictEqual(await store.get("t", "shared"), Uint8Array.of(1));
    deepStrictEqual(await store.get("t", "theirs"), Uint8Array.of(3));
    await store.close();
  });
});

Deno.test("ASVS V16.5.2: SQLite store: while another holds the file a write is a fault after a short wait, and a read works", async () => {
  await withFile(async (file) => {
    const store = openSqliteRecordStore(file, systemClock);
    await store.put("t", "k", Uint8Array.of(1));
    using other = new DatabaseSync(file);
    other.exec("BEGIN IMMEDIATE");
    await rejects(store.put("t", "k", Uint8Array.of(2)), isUnavailable);
    await rejects(store.create("t", "new", Uint8Array.of(2)), isUnavailable);
    await rejects(store.write([{ table: "t", key: "k", value: Uint8Array.of(2) }]), isUnavailable);
    deepStrictEqual(await store.get("t", "k"), Uint8Array.of(1));
    other.exec("ROLLBACK");
    await store.put("t", "k", Uint8Array.of(3));
    deepStrictEqual(await store.get("t", "k"), Uint8Array.of(3));
    await store.close();
  });
});
