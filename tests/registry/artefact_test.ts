// Tests of artefacts: a file is used only when it is the very one that the card describes.
import { deepStrictEqual } from "node:assert/strict";
import { createHash } from "node:crypto";
import { type ArtefactDescription, readArtefact } from "../../src/registry/artefact.ts";

const BYTES = new TextEncoder().encode("the weights of a model");
const GOOD: ArtefactDescription = {
  file: "graph.onnx",
  sha256: createHash("sha256").update(BYTES).digest("hex"),
  bytes: BYTES.length,
};

/** Runs in a model's folder that holds the described file. */
async function withFolder(run: (folder: string) => Promise<void> | void): Promise<void> {
  const root = Deno.makeTempDirSync({ prefix: "artefact-" });
  try {
    Deno.mkdirSync(`${root}/model`);
    Deno.writeFileSync(`${root}/model/${GOOD.file}`, BYTES);
    await run(`${root}/model`);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

const refusal = (reason: string) => ({ ok: false, reason });

Deno.test("ASVS V15.2.5: the described file is read, byte by byte", async () => {
  await withFolder((folder) => {
    deepStrictEqual(readArtefact(folder, GOOD), { ok: true, value: BYTES });
  });
});

Deno.test("OWASP LLM03: a file with any byte altered, cut or grown is refused", async () => {
  await withFolder((folder) => {
    for (let index = 0; index < BYTES.length; index++) {
      const altered = BYTES.slice();
      altered[index] = (altered[index] ?? 0) ^ 1;
      Deno.writeFileSync(`${folder}/${GOOD.file}`, altered);
      deepStrictEqual(readArtefact(folder, GOOD), refusal("digest_mismatch"), `byte ${index}`);
    }
    for (const bytes of [BYTES.subarray(1), new Uint8Array([...BYTES, 0]), new Uint8Array()]) {
      Deno.writeFileSync(`${folder}/${GOOD.file}`, bytes);
      deepStrictEqual(readArtefact(folder, GOOD), refusal("digest_mismatch"));
    }
  });
});

Deno.test("a description that does not fit the file is refused: digest, its case, length", async () => {
  await withFolder((folder) => {
    for (
      const wrong of [
        { sha256: "0".repeat(64) },
        { sha256: GOOD.sha256.toUpperCase() },
        { bytes: GOOD.bytes + 1 },
        { bytes: GOOD.bytes - 1 },
      ]
    ) deepStrictEqual(readArtefact(folder, { ...GOOD, ...wrong }), refusal("digest_mismatch"));
  });
});

Deno.test("a file that is not there is missing, and so is its folder's", async () => {
  await withFolder((folder) => {
    deepStrictEqual(readArtefact(folder, { ...GOOD, file: "other.onnx" }), refusal("artefact_missing"));
    deepStrictEqual(readArtefact(`${folder}/none`, GOOD), refusal("artefact_missing"));
  });
});

Deno.test("a link is refused wherever it leads, although what it leads to has the digest", async () => {
  await withFolder((folder) => {
    Deno.writeFileSync(`${folder}/../outside.onnx`, BYTES);
    for (
      const [name, target] of [["out", "../outside.onnx"], ["in", GOOD.file], [
        "absent",
        "/no/such/file",
      ]] as const
    ) {
      Deno.symlinkSync(target, `${folder}/${name}`);
      deepStrictEqual(
        readArtefact(folder, { ...GOOD, file: name }),
        refusal("artefact_outside_its_folder"),
        name,
      );
    }
  });
});

Deno.test("what is no file is refused without waiting for it: a folder, a pipe", async () => {
  await withFolder(async (folder) => {
    Deno.mkdirSync(`${folder}/sub`);
    deepStrictEqual(readArtefact(folder, { ...GOOD, file: "sub" }), refusal("artefact_unreadable"));
    const { success } = await new Deno.Command("mkfifo", { args: [`${folder}/pipe`] }).output();
    if (success) {
      deepStrictEqual(readArtefact(folder, { ...GOOD, file: "pipe" }), refusal("artefact_unreadable"));
    }
  });
});

Deno.test("ASVS V15.2.2: a file that is far too large is refused by its length, before it is read into memory", async () => {
  await withFolder((folder) => {
    using file = Deno.openSync(`${folder}/${GOOD.file}`, { write: true });
    file.truncateSync(1024 ** 4); // a tebibyte with nothing in it
    deepStrictEqual(readArtefact(folder, GOOD), refusal("digest_mismatch"));
  });
});
