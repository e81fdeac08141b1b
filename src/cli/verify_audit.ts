// Verify audit: says in a few lines whether the audit trail is intact, or where it is not.
import { type ChainVerdict, type Finding, verifyChain } from "../audit/verify_chain.ts";

/** What to verify and where the words go. */
export interface VerifyAuditOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** Takes one line of the verdict. */
  readonly print: (line: string) => void;
  readonly progress?: (bytesDone: number, bytesTotal: number) => void;
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
    return 2;
  }
  const verdict = await verifyChain(what);
  const { finding } = verdict;
  if (finding === undefined) {
    print(`INTACT: ${extent(verdict)}`);
  } else {
    print(`NOT INTACT: ${place(finding)}: ${finding.words}`);
    print(`Good before that: ${extent(verdict)}`);
  }
  if (verdict.head.seq > 0) print(`Head: entry ${verdict.head.seq}, SHA-256 ${verdict.head.hash}`);
  if (verdict.checkpoint !== undefined) {
    print(`Checkpoint: entry ${verdict.checkpoint.seq}, SHA-256 ${verdict.checkpoint.hash}`);
  }
  if (verdict.tornTail !== undefined) {
    const { segment, line, bytes } = verdict.tornTail;
    print(
      `Torn tail (never acknowledged): ${segment} line ${line}, ${bytes} bytes; the next start cuts it off`,
    );
  }
  return finding === undefined ? 0 : 1;
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
  return line === 0 ? `${segment}, entry ${seq}` : `${segment} line ${line}, entry ${seq}`;
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
