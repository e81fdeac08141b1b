import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { verifyAudit } from "../../src/cli/verify_audit.ts";
import { numberedUpTo, TrailFolder } from "./trail_folder.ts";

async function run(folder: TrailFolder): Promise<{ code: number; lines: string[] }> {
  const lines: string[] = [];
  const { directory, checkpointDirectory } = folder;
  const code = await verifyAudit({ directory, checkpointDirectory, print: (line) => lines.push(line) });
  return { code, lines };
}

Deno.test("verifyAudit returns 0 for an intact trail and prints its extent and head", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(5), 600);
  const head = folder.entries().at(-1)?.hash;
  deepStrictEqual(await run(folder), {
    code: 0,
    lines: [
      "INTACT: 5 entries in 3 segments, from 2026-01-02T03:04:05.006Z to 2026-01-02T03:04:05.006Z",
      `Head: entry 5, SHA-256 ${head}`,
      `Checkpoint: entry 5, SHA-256 ${head}`,
    ],
  });
});

Deno.test("verifyAudit returns 1 for a broken trail and prints the first bad entry", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(5), 600);
  folder.setLines(folder.lines(2).map((line) => line.replace('"reason":"4"', '"reason":"x"')), 2);
  const { code, lines } = await run(folder);
  strictEqual(code, 1);
  deepStrictEqual(lines.slice(0, 2), [
    "NOT INTACT: audit-000002.jsonl line 2, entry 4: the entry's hash does not match its content",
    "Good before that: 3 entries in 2 segments, from 2026-01-02T03:04:05.006Z to 2026-01-02T03:04:05.006Z",
  ]);
});

Deno.test("verifyAudit returns 0 for a torn tail and says that it was never acknowledged", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(1));
  Deno.writeTextFileSync(folder.segmentPath(1), '{"event', { append: true });
  const { code, lines } = await run(folder);
  strictEqual(code, 0);
  strictEqual(
    lines.at(-1),
    "Torn tail (never acknowledged): audit-000001.jsonl line 2, 7 bytes; the next start cuts it off",
  );
});

Deno.test("verifyAudit returns 1 for a folder that is not there", async () => {
  await using folder = new TrailFolder();
  folder.write([]);
  Deno.removeSync(folder.directory, { recursive: true });
  const { code, lines } = await run(folder);
  strictEqual(code, 1);
  strictEqual(lines[0]?.startsWith("NOT INTACT: the folder: Cannot list the audit trail: "), true);
});

Deno.test("verifyAudit() says that there is no trail where none is, and does not call it damaged; a trail without its segments is", async () => {
  const root = await Deno.makeTempDir();
  try {
    const lines: string[] = [];
    const verify = (): Promise<number> =>
      verifyAudit({
        directory: `${root}/audit`,
        checkpointDirectory: `${root}/audit-checkpoint`,
        print: (line) => lines.push(line),
      });
    strictEqual(await verify(), 2);
    match(lines.join("\n"), /^CANNOT CHECK: there is no audit trail at .*Name the data folder/);
    await Deno.mkdir(`${root}/audit-checkpoint`);
    strictEqual(await verify(), 1);
    match(lines.at(1) ?? "", /^NOT INTACT/);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
