// Key voucher: a signed note in which a key that signs checkpoints names the one that signs after it. Pure.
import {
  formatVerifierKey,
  type NoteSigner,
  type NoteVerifier,
  openNote,
  parseVerifierKey,
  signNote,
} from "./signed_note.ts";

/** Who vouches for whom. */
export interface Succession {
  readonly by: NoteVerifier;
  readonly next: NoteVerifier;
}

/** No checkpoint begins like this: its first line is an origin. */
const TITLE = "portcullis audit next-key v1\n";

/** The note: whoever trusts the signer may trust the next one. It names no trail, for all of an installation change their key. */
export function signVoucher(signer: NoteSigner, next: NoteVerifier): string {
  return signNote(`${TITLE}${formatVerifierKey(next)}\n`, [signer]);
}

/** What a voucher says; undefined where it is none of a trusted key. */
export function openVoucher(voucher: string, trusted: readonly NoteVerifier[]): Succession | undefined {
  const opened = openNote(voucher, trusted);
  if (!opened.ok || !opened.value.text.startsWith(TITLE)) return undefined;
  const [by] = opened.value.signedBy;
  const next = parseVerifierKey(opened.value.text.slice(TITLE.length, -1));
  return by !== undefined && next.ok ? { by, next: next.value } : undefined;
}

/** Follows vouchers, the oldest first: adds to the trusted keys those that they vouch for, and returns what was learnt. */
export function followVouchers(
  vouchers: readonly string[],
  trusted: NoteVerifier[],
): readonly Succession[] {
  const learnt: Succession[] = [];
  for (const voucher of vouchers) {
    const succession = openVoucher(voucher, trusted);
    if (succession === undefined) continue;
    const known = trusted.find((key) => isSameKey(key, succession.next));
    if (known === undefined) trusted.push(succession.next);
    learnt.push({ by: succession.by, next: known ?? succession.next });
  }
  return learnt;
}

/** Whether two are one key. */
export function isSameKey(one: NoteVerifier, other: NoteVerifier): boolean {
  return formatVerifierKey(one) === formatVerifierKey(other);
}
