// Tree head: what a signed checkpoint says (C2SP tlog-checkpoint): which trail, how many entries, their Merkle root. Pure.
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";

/** A trail at one moment. */
export interface TreeHead {
  /** Which trail. */
  readonly origin: string;
  /** Entries. */
  readonly size: number;
  /** Lower-case hexadecimal. */
  readonly root: string;
  /**
   * Where the signing key has changed since the checkpoint before: how one leads to the other, the oldest first
   * (`key_voucher.ts`). Absent: it has not.
   */
  readonly vouchers?: readonly string[];
}

const SIZE = /^(0|[1-9]\d{0,15})$/;
const VOUCHER = "voucher ";

/** The text to sign. Each voucher stands in an extension line. */
export function formatTreeHead({ origin, size, root, vouchers = [] }: TreeHead): string {
  return `${origin}\n${size}\n${Uint8Array.fromHex(root).toBase64()}\n${voucherLines(vouchers)}`;
}

/** Vouchers as lines of a text. */
export function voucherLines(vouchers: readonly string[]): string {
  return vouchers.map((voucher) => `${VOUCHER}${encodeUtf8(voucher).toBase64()}\n`).join("");
}

/** The vouchers in such lines; undefined where one is none. */
export function parseVoucherLines(lines: readonly string[]): readonly string[] | undefined {
  const vouchers: string[] = [];
  for (const line of lines) {
    const text = line.startsWith(VOUCHER) ? decodeBase64(line.slice(VOUCHER.length)) : undefined;
    const voucher = text === undefined ? undefined : decodeUtf8(text);
    if (voucher?.ok !== true) return undefined;
    vouchers.push(voucher.value);
  }
  return vouchers;
}

/** The tree head in a note's text; it must be the text that `formatTreeHead` gives. */
export function parseTreeHead(text: string): Outcome<TreeHead, "not_a_tree_head"> {
  const [origin = "", size = "", encoded = "", ...rest] = text.split("\n");
  const bytes = decodeBase64(encoded);
  const vouchers = parseVoucherLines(rest.slice(0, -1));
  if (origin === "" || !SIZE.test(size) || bytes?.length !== 32 || vouchers === undefined) {
    return no("not_a_tree_head");
  }
  const head: TreeHead = {
    origin,
    size: Number(size),
    root: bytes.toHex(),
    ...vouchers.length === 0 ? {} : { vouchers },
  };
  return Number.isSafeInteger(head.size) && formatTreeHead(head) === text ? ok(head) : no("not_a_tree_head");
}

function decodeBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
  } catch {
    return undefined;
  }
}
