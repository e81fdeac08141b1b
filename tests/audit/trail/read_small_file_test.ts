// Tests of reading what somebody else may have put in the place of a file.
import { deepStrictEqual, throws } from "node:assert/strict";
import { readSmallFile } from "../../../src/audit/trail/read_small_file.ts";

Deno.test("readSmallFile reads a regular file that is as large as it may be, and nothing else", async () => {
  const folder = await Deno.makeTempDir({ prefix: "audit-" });
  try {
    const path = `${folder}/file`;
    throws(() => readSmallFile(path, 3), Deno.errors.NotFound);
    Deno.writeTextFileSync(path, "abc");
    deepStrictEqual(readSmallFile(path, 3), new TextEncoder().encode("abc"));
    throws(() => readSmallFile(path, 2), /larger than 2 bytes/);
    Deno.symlinkSync(path, `${folder}/link`);
    throws(() => readSmallFile(`${folder}/link`, 3), /no regular file/);
    throws(() => readSmallFile(folder, 10_000), /no regular file/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
