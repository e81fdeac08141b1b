// Verify audit: says in a few lines whether the audit trail is intact, or where it is not.
import { parseArgs } from "node:util";
import { auditFolders } from "../audit/audit_trail.ts";
import { type KeptHead, parseKeptHeads, parseVerifierKeys } from "../audit/verify/checkpoint_history.ts";
import { checkProof } from "../audit/verify/entry_proof.ts";
import type { NoteVerifier } from "../audit/trail/signed_note.ts";
import { type ChainVerdict, type Finding, verifyChain } from "../audit/verify/verify_chain.ts";
import { Fault, toFault } from "../faults/fault.ts";

/** What to verify and where the words go. */
export interface VerifyAuditOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** Who may have signed, the newest last; without it: the keys that stand beside the trail. */
  readonly trusted?: readonly NoteVerifier[];
  /** Checkpoints that were kept elsewhere. */
  readonly kept?: readonly KeptHead[];
  /** Takes one line of the verdict. */
  readonly print: (line: string) => void;
  readonly progress?: (bytesDone: number, bytesTotal: number) => void;
}

/** How the command is called. */
export const VERIFY_USAGE =
  "audit:verify [FOLDER] [--key FILE|KEY]… [--older FILE] | --proof FILE --key FILE|KEY";

const WRONG_USE = 64;
const NO_TRAIL = 2;

/**
 * The command with its parameters.
 *
 * @returns the process's exit code: 0 when the trail is intact (the proof holds), 1 when not or when that cannot be told, 2 when there is
 * no trail, 64 when the parameters are wrong
 */
export async function verifyAuditCommand(
  parameters: readonly string[],
  { print, progress }: Pick<VerifyAuditOptions, "print" | "progress">,
): Promise<number> {
  let folder: string;
  let trusted: readonly NoteVerifier[] | undefined;
  let kept: readonly KeptHead[];
  let proof: string | undefined;
  try {
    const { values, positionals } = parseArgs({
      args: [...parameters],
      options: {
        key: { type: "string", multiple: true },
        older: { type: "string" },
        proof: { type: "string" },
      },
      allowPositionals: true,
    });
    folder = positionals[0] ?? "data";
    trusted = values.key?.flatMap(readKeys);
    kept = values.older === undefined ? [] : readKept(values.older);
    proof = values.proof === undefined ? undefined : Deno.readTextFileSync(values.proof);
    if (positionals.length > 1) throw new Fault("request_invalid", "there is more than one folder");
    if (proof !== undefined && trusted === undefined) {
      throw new Fault("request_invalid", "a proof is checked with a key: --key FILE");
    }
  } catch (thrown) {
    print(`CANNOT CHECK: ${toFault(thrown).message}. Usage: deno task ${VERIFY_USAGE}`);
    return WRONG_USE;
  }
  if (proof !== undefined) return verifyProof(proof, trusted ?? [], print);
  return await verifyAudit({
    ...auditFolders(folder),
    ...trusted === undefined ? {} : { trusted },
    kept,
    print,
    ...progress === undefined ? {} : { progress },
  });
}

/** A key as it is, or the file with some. */
function readKeys(value: string): readonly NoteVerifier[] {
  const key = parseVerifierKeys(value);
  if (key.ok) return key.value;
  const keys = parseVerifierKeys(Deno.readTextFileSync(value));
  if (!keys.ok) throw new Fault("request_invalid", `there is no verifier key in ${value}`);
  return keys.value;
}

function readKept(path: string): readonly KeptHead[] {
  const heads = parseKeptHeads(Deno.readFileSync(path));
  if (!heads.ok) throw new Fault("request_invalid", `there is no checkpoint in ${path}`);
  return heads.value;
}

const PROOF_WORDS = {
  malformed: "it is no proof",
  unknown_key: "no key that was given has signed its checkpoint",
  forged: "the signature of its checkpoint is wrong",
  not_included: "its hashes do not lead from the entry to the checkpoint",
} as const;

function verifyProof(
  proof: string,
  trusted: readonly NoteVerifier[],
  print: VerifyAuditOptions["print"],
): number {
  const checked = checkProof(proof, trusted);
  if (!checked.ok) {
    print(`NOT PROVEN: ${PROOF_WORDS[checked.reason]}`);
    return 1;
  }
  const { entry, head } = checked.value;
  print(`PROVEN: entry ${entry.seq} of ${entry.time} is one of the ${head.size} entries of ${head.origin}`);
  print(`Event: ${JSON.stringify(entry.event)}`);
  return 0;
}

/**
 * Verifies the audit trail; needs to read the two folders and no more.
 *
 * @returns the process's exit code: 0 when the trail is intact, 1 when not or when that cannot be told, 2 when there is none
 */
export async function verifyAudit(options: VerifyAuditOptions): Promise<number> {
  const { print, ...what } = options;
  // Without either folder nothing was cut or removed: the wrong place was named.
  if (!exists(what.directory) && !exists(what.checkpointDirectory)) {
    print(`CANNOT CHECK: there is no audit trail at ${what.directory}. Name the data folder that holds it.`);
    return NO_TRAIL;
  }
  const verdict = await verifyChain(what);
  const { finding, head, checkpoint, removed, tornTail, unprovable } = verdict;
  if (finding === undefined) {
    print(`INTACT: ${extent(verdict)}`);
  } else {
    print(`NOT INTACT: ${place(finding)}: ${finding.words}`);
    print(`Good before that: ${extent(verdict)}`);
  }
  if (removed > 0) {
    print(`Taken out by retention, with signed stubs: ${counted(removed, "entry", "entries")}`);
  }
  if (head.seq > 0) print(`Head: entry ${head.seq}, SHA-256 ${head.hash}`);
  if (checkpoint !== undefined) print(`Checkpoint: entry ${checkpoint.seq}, SHA-256 ${checkpoint.hash}`);
  for (const line of signatureLines(verdict)) print(line);
  if (unprovable > 0) {
    print(`Not compared: ${counted(unprovable, "checkpoint", "checkpoints")} inside segments that have gone`);
  }
  if (tornTail !== undefined) {
    const { segment, line, bytes } = tornTail;
    print(
      `Torn tail (never acknowledged): ${segment} line ${line}, ${bytes} bytes; the next start cuts it off`,
    );
  }
  if (what.trusted === undefined) {
    print(
      "Keys: trail.vkey beside the trail, which whoever writes there can replace: keep a copy elsewhere and pin the key: --key",
    );
  }
  return finding === undefined ? 0 : 1;
}

function signatureLines({ signed, checkpoints, head, kept, finding }: ChainVerdict): string[] {
  const lines: string[] = [];
  if (signed !== undefined) {
    lines.push(
      `Signed: ${counted(checkpoints, "checkpoint", "checkpoints")}, the newest over ${
        counted(signed.size, "entry", "entries")
      } of ${signed.origin}, root ${signed.root}`,
    );
    const rest = head.seq - signed.size;
    if (rest > 0 && finding === undefined) {
      lines.push(
        `Not signed yet: the last ${
          counted(rest, "entry", "entries")
        }; nothing but this chain vouches for them`,
      );
    }
  }
  if (kept !== undefined) {
    lines.push(
      `Kept checkpoint: its ${counted(kept.size, "entry", "entries")} are the beginning of this trail`,
    );
  }
  return lines;
}

function extent({ entries, segments, firstTime, lastTime }: ChainVerdict): string {
  const span = firstTime === undefined ? "" : `, from ${firstTime} to ${lastTime}`;
  return `${counted(entries, "entry", "entries")} in ${counted(segments, "segment", "segments")}${span}`;
}

function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}

function place({ segment, line, seq }: Finding): string {
  if (segment === "") return "the folder";
  const entry = seq === 0 ? "" : `, entry ${seq}`;
  return line === 0 ? `${segment}${entry}` : `${segment} line ${line}${entry}`;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    // What cannot be looked at is for the verifier to report.
    return !(error instanceof Deno.errors.NotFound);
  }
}
