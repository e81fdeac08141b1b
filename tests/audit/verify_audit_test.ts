import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { proveEntry } from "../../src/audit/verify/entry_proof.ts";
import { formatVerifierKey } from "../../src/audit/trail/signed_note.ts";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { proveEntryCommand } from "../../src/cli/prove_entry.ts";
import { verifyAudit, verifyAuditCommand } from "../../src/cli/verify_audit.ts";
import { mixedUpTo, thin } from "./thinned_trail.ts";
import { numberedUpTo, signingKeyOf, TIME_MS, TRAIL_KEYS, TrailFolder, unwritten } from "./trail_folder.ts";

const KEYS_LINE =
  "Keys: trail.vkey beside the trail, which whoever writes there can replace: keep a copy elsewhere and pin the key: --key";
const KEY = formatVerifierKey({ name: TRAIL_KEYS.name, publicKey: TRAIL_KEYS.signing.publicKey });
const OTHER_KEY = formatVerifierKey({ name: TRAIL_KEYS.name, publicKey: signingKeyOf(9).publicKey });

async function run(folder: TrailFolder): Promise<{ code: number; lines: string[] }> {
  const lines: string[] = [];
  const { directory, checkpointDirectory } = folder;
  const code = await verifyAudit({ directory, checkpointDirectory, print: (line) => lines.push(line) });
  return { code, lines };
}

Deno.test("verifyAudit returns 0 for an intact trail and prints its extent and head", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(5), 1_000);
  const head = folder.entries().at(-1)?.hash;
  const { origin, checkpoint } = await verifyChain(folder);
  deepStrictEqual(await run(folder), {
    code: 0,
    lines: [
      "INTACT: 5 entries in 2 segments, from 2026-01-02T03:04:05.006Z to 2026-01-02T03:04:05.006Z",
      `Head: entry 5, SHA-256 ${head}`,
      `Checkpoint: entry 5, SHA-256 ${head}`,
      `Signed: 2 checkpoints, the newest over 5 entries of ${origin}, root ${checkpoint?.root}`,
      KEYS_LINE,
    ],
  });
});

Deno.test("verifyAudit returns 1 for a broken trail and prints the first bad entry", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(5), 1_000);
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
    lines.at(-2),
    "Torn tail (never acknowledged): audit-000001.jsonl line 3, 7 bytes; the next start cuts it off",
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

/** A data folder with a trail of two segments, of which the first was thinned. */
class DataFolder implements AsyncDisposable {
  readonly trail = new TrailFolder();
  readonly path = `${this.trail.root}/data`;

  constructor() {
    const writer = this.trail.openWriter();
    for (const event of mixedUpTo(4)) writer.append([unwritten(event)]);
    for (const event of mixedUpTo(9, 5)) writer.append([unwritten(event, TIME_MS + 86_400_000)]);
    writer.sign();
    writer.close();
    thin(this.trail, 1, ["activity"]);
    Deno.mkdirSync(this.path);
    Deno.renameSync(this.trail.directory, `${this.path}/audit`);
    Deno.renameSync(this.trail.checkpointDirectory, `${this.path}/audit-checkpoint`);
  }

  async verify(...parameters: string[]): Promise<{ code: number; lines: string[] }> {
    const lines: string[] = [];
    return { code: await verifyAuditCommand(parameters, { print: (line) => lines.push(line) }), lines };
  }

  file(text: string): string {
    const path = Deno.makeTempFileSync({ dir: this.trail.root });
    Deno.writeTextFileSync(path, text);
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.trail[Symbol.asyncDispose]();
  }
}

Deno.test("the command verifies with a pinned key, given as it is or as a file, and refuses another", async () => {
  await using data = new DataFolder();
  const pinned = await data.verify(data.path, "--key", KEY);
  strictEqual(pinned.code, 0);
  match(
    pinned.lines.join("\n"),
    /^INTACT: 9 entries in 2 segments.*\nTaken out by retention, with signed stubs: 2 entries\n/,
  );
  strictEqual(pinned.lines.includes(KEYS_LINE), false);
  strictEqual((await data.verify(data.path)).lines.includes(KEYS_LINE), true);
  const file = data.file(`# ours\n${OTHER_KEY}\n\n${KEY}\n`);
  strictEqual((await data.verify(data.path, "--key", file)).code, 0);
  strictEqual((await data.verify(data.path, "--key", OTHER_KEY, "--key", KEY)).code, 0);
  // The newest last.
  const reversed = await data.verify(data.path, "--key", KEY, "--key", OTHER_KEY);
  strictEqual(reversed.code, 1);
  match(
    reversed.lines[0] ?? "",
    /^NOT INTACT: checkpoints-2026-01\.jsonl line 2: the newest checkpoint is not signed by the newest of the keys/,
  );
  const other = await data.verify(data.path, "--key", OTHER_KEY);
  strictEqual(other.code, 1);
  match(other.lines[0] ?? "", /^NOT INTACT: audit-000001\.stub, entry 1: no trusted key has signed the stub/);
});

Deno.test("the command compares with an older checkpoint, and names what it cannot understand", async () => {
  await using data = new DataFolder();
  const older = `${data.path}/audit-checkpoint/checkpoints-2026-01.jsonl`;
  const same = await data.verify(data.path, "--older", older);
  strictEqual(same.code, 0);
  strictEqual(same.lines.includes("Kept checkpoint: its 9 entries are the beginning of this trail"), true);
  const wrong: readonly (readonly string[])[] = [
    ["--older", data.file("nonsense")],
    ["--older", `${data.path}/none`],
    ["--key", data.file("nonsense")],
    ["--key", "nonsense"],
    ["--unknown"],
    [data.path, data.path],
    ["--proof", older],
  ];
  for (const parameters of wrong) {
    const { code, lines } = await data.verify(...parameters);
    strictEqual(code, 64, parameters.join(" "));
    match(lines.join("\n"), /^CANNOT CHECK: .*Usage: deno task audit:verify/);
  }
});

Deno.test("a printed proof holds with the key and without the folder, and only as it is", async () => {
  await using data = new DataFolder();
  const printed: string[] = [];
  strictEqual(proveEntryCommand(["3", data.path], (text) => printed.push(text)), 0);
  const proof = `${printed.join("\n")}\n`;
  strictEqual(
    proof,
    proveEntry({
      directory: `${data.path}/audit`,
      checkpointDirectory: `${data.path}/audit-checkpoint`,
      seq: 3,
    }),
  );
  const file = data.file(proof);
  await Deno.remove(data.path, { recursive: true });
  const proven = await data.verify("--proof", file, "--key", KEY);
  strictEqual(proven.code, 0);
  match(
    proven.lines[0] ?? "",
    /^PROVEN: entry 3 of 2026-01-02T03:04:05\.006Z is one of the 9 entries of portcullis\./,
  );
  strictEqual(proven.lines[1], 'Event: {"reason":"3","type":"server.stopped"}');
  const refused = await data.verify("--proof", data.file(proof.replace("index 2", "index 3")), "--key", KEY);
  deepStrictEqual(refused, {
    code: 1,
    lines: ["NOT PROVEN: its hashes do not lead from the entry to the checkpoint"],
  });
  strictEqual(
    (await data.verify("--proof", file, "--key", OTHER_KEY)).lines[0],
    "NOT PROVEN: no key that was given has signed its checkpoint",
  );
  strictEqual(proveEntryCommand([], () => {}), 64);
  strictEqual(proveEntryCommand(["0", data.path], () => {}), 64);
});
