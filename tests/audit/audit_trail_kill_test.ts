import { ok, strictEqual } from "node:assert/strict";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { TrailFolder } from "./trail_folder.ts";

const ROUNDS = 8;

Deno.test("every acknowledged event survives kill -9 at any moment, round after round", async () => {
  await using folder = new TrailFolder();
  const acknowledged = new Set<number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const number of await recordAndKill(folder, round * 1_000_000 + 1)) acknowledged.add(number);
    const { finding } = await verifyChain(folder);
    // Killed behind the first entry, before the first signature, a trail is whole and says that nobody has signed it.
    if (finding?.kind !== "unsigned" || isSigned(folder)) strictEqual(finding, undefined);
  }
  const kept = new Set(folder.numbers());
  ok(acknowledged.size > ROUNDS);
  for (const number of acknowledged) ok(kept.has(number), `event ${number} was acknowledged and is lost`);
});

function isSigned({ checkpointDirectory }: TrailFolder): boolean {
  return [...Deno.readDirSync(checkpointDirectory)].some(({ name }) =>
    name.startsWith("checkpoints-") && Deno.statSync(`${checkpointDirectory}/${name}`).size > 0
  );
}

/** Lets a process record from `first` on, kills it at a random moment and returns the numbers that it printed. */
async function recordAndKill(folder: TrailFolder, first: number): Promise<number[]> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      `--allow-read`,
      `--allow-write=${folder.root}`,
      new URL("./fixtures/record_until_killed.ts", import.meta.url).pathname,
      folder.directory,
      folder.checkpointDirectory,
      String(first),
    ],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let printed = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    printed += text;
    timer ??= setTimeout(() => child.kill("SIGKILL"), Math.random() * 150);
  }
  clearTimeout(timer);
  const { signal } = await child.status;
  strictEqual(signal, "SIGKILL");
  // The last line may be half a number.
  return printed.split("\n").slice(0, -1).map(Number);
}
