// Tests of private files: made once, readable by their owner alone, and refused where others may read them.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import {
  makePrivateFile,
  makePrivateFolder,
  readOrMakePrivateFile,
  replacePrivateFile,
} from "../../src/vault/private_file.ts";

const SECRET = "a secret that stands nowhere by chance";
const read = readOrMakePrivateFile;

/** Runs in a folder of its own, where the umask hides nothing. */
async function withFolder(run: (folder: string) => Promise<void> | void): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "vault-" });
  const umask = Deno.umask(0);
  try {
    await run(folder);
  } finally {
    Deno.umask(umask);
    Deno.removeSync(folder, { recursive: true });
  }
}

function modeOf(path: string): number {
  return (Deno.statSync(path).mode ?? 0) & 0o777;
}

const never = (): never => {
  throw new Error("it was made again");
};

function isUnavailable(words: RegExp): (thrown: unknown) => true {
  return (thrown) => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "unavailable");
    match(thrown.message, words);
    ok(!thrown.message.includes(SECRET));
    return true;
  };
}

Deno.test("a private folder is its owner's alone, new or not, with its parents", async () => {
  await withFolder((folder) => {
    makePrivateFolder(`${folder}/a/b`);
    strictEqual(modeOf(`${folder}/a/b`), 0o700);
    Deno.mkdirSync(`${folder}/open`, { mode: 0o755 });
    makePrivateFolder(`${folder}/open`);
    strictEqual(modeOf(`${folder}/open`), 0o700);
  });
});

Deno.test("a private file is made empty, and one that is there is not touched", async () => {
  await withFolder((folder) => {
    makePrivateFile(`${folder}/x.db`);
    strictEqual(modeOf(`${folder}/x.db`), 0o600);
    Deno.writeTextFileSync(`${folder}/x.db`, "content");
    makePrivateFile(`${folder}/x.db`);
    strictEqual(Deno.readTextFileSync(`${folder}/x.db`), "content");
  });
});

Deno.test("a private file is made once, with mode 0600 and nothing beside it, and then read", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/x.key`;
    strictEqual(await read(file, () => Promise.resolve(SECRET)), SECRET);
    strictEqual(modeOf(file), 0o600);
    deepStrictEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["x.key"]);
    strictEqual(await read(file, never), SECRET);
    strictEqual(Deno.readTextFileSync(file), SECRET);
  });
});

Deno.test("ASVS V13.3.1: a private file that group or others may read is refused, with the command that helps", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/x.key`;
    await read(file, () => SECRET);
    for (const mode of [0o640, 0o604, 0o620, 0o601, 0o666, 0o777]) {
      Deno.chmodSync(file, mode);
      await rejects(read(file, never), isUnavailable(/others may read it; run: chmod 600 .*x\.key$/));
    }
    Deno.chmodSync(file, 0o400);
    strictEqual(await read(file, never), SECRET);
  });
});

Deno.test("of those who make a private file at one moment all get one text, which is in the file", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/x.key`;
    let made = 0;
    const texts = await Promise.all([1, 2, 3].map(() =>
      read(file, async () => {
        const text = `text ${made++}`;
        // All of them have seen that there is none.
        while (made < 3) await new Promise((resolve) => setTimeout(resolve, 1));
        return text;
      })
    ));
    strictEqual(new Set(texts).size, 1, texts.join());
    strictEqual(await read(file, never), texts[0]);
    deepStrictEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["x.key"]);
  });
});

Deno.test("a private file is whole or not there: what a crash left beside it is not used, and gone when the file is replaced", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/x.key`;
    Deno.writeTextFileSync(`${file}.of-a-crash.new`, "half a key", { mode: 0o644 });
    Deno.writeTextFileSync(`${folder}/y.key.new`, "another's");
    strictEqual(await read(file, () => SECRET), SECRET);
    replacePrivateFile(file, "another secret");
    strictEqual(modeOf(file), 0o600);
    strictEqual(await read(file, never), "another secret");
    deepStrictEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["x.key", "y.key.new"]);
  });
});

Deno.test("a private file whose maker fails is not there", async () => {
  await withFolder(async (folder) => {
    await rejects(read(`${folder}/x.key`, never), /made again/);
    deepStrictEqual([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("a private file that is no text is a fault", async () => {
  await withFolder(async (folder) => {
    Deno.writeFileSync(`${folder}/x.key`, Uint8Array.of(0xff, 0xfe), { mode: 0o600 });
    await rejects(readOrMakePrivateFile(`${folder}/x.key`, never), isUnavailable(/it is not text/));
  });
});
