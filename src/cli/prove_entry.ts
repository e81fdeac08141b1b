// Prove entry: prints the proof that one entry is in the trail, for somebody who has nothing but the key.
import { auditFolders } from "../audit/audit_trail.ts";
import { proveEntry } from "../audit/verify/entry_proof.ts";

/** How the command is called. */
export const PROVE_USAGE = "audit:prove NUMBER [FOLDER]";

/**
 * The command with its parameters. The proof was checked before it is printed.
 *
 * @returns the process's exit code: 0, or 64 when the parameters are wrong
 * @throws Fault as `proveEntry` does
 */
export function proveEntryCommand(parameters: readonly string[], print: (text: string) => void): number {
  const [number = "", folder = "data", ...more] = parameters;
  if (!/^[1-9]\d{0,15}$/.test(number) || more.length > 0) {
    print(`Usage: deno task ${PROVE_USAGE}`);
    return 64;
  }
  // The line feed at its end is the terminal's.
  print(proveEntry({ ...auditFolders(folder), seq: Number(number) }).trimEnd());
  return 0;
}
