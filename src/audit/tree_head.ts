// Tree head: what a signed checkpoint says (C2SP tlog-checkpoint): which trail, how many entries, their Merkle root. Pure.
import { no, ok, type Outcome } from "../faults/outcome.ts";
import { parseVerifierKey } from "./signed_note.ts";

/** A trail at one moment. */
export interface TreeHead {
  /** Which trail. */
  readonly origin: string;
  /** Entries. */
  readonly size: number;
  /** Lower-case hexadecimal. */
  readonly root: string;
  /** The verifier key that signs from the next checkpoint on, where the signing key changes with this one. */
  readonly nextKey?: string;
}

const SIZE = /^(0|[1-9]\d{0,15})$/;
const NEXT_KEY = "next-key ";

/** The text to sign. The next key stands in an extension line, so that the key before vouches for it. */
export function formatTreeHead({ origin, size, root, nextKey }: TreeHead): string {
  const head = `${origin}\n${size}\n${Uint8Array.fromHex(root).toBase64()}\n`;
  return nextKey === undefined ? head : `${head}${NEXT_KEY}${nextKey}\n`;
}

/** The tree head in a note's text; it must be the text that `formatTreeHead` gives. */
export function parseTreeHead(text: string): Outcome<TreeHead, "not_a_tree_head"> {
  const [origin = "", size = "", encoded = "", extension = "", ...rest] = text.split("\n");
  if (origin === "" || !SIZE.test(size) || rest.length > 1) return no("not_a_tree_head");
  let root: string;
  try {
    root = Uint8Array.fromBase64(encoded, { lastChunkHandling: "strict" }).toHex();
  } catch {
    return no("not_a_tree_head");
  }
  const head: TreeHead = {
    origin,
    size: Number(size),
    root,
    ...extension.startsWith(NEXT_KEY) ? { nextKey: extension.slice(NEXT_KEY.length) } : {},
  };
  const isOurs = root.length === 64 && Number.isSafeInteger(head.size) &&
    (head.nextKey === undefined || parseVerifierKey(head.nextKey).ok) && formatTreeHead(head) === text;
  return isOurs ? ok(head) : no("not_a_tree_head");
}
