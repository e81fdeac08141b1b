// Thinned trail: events of both classes, and segments of which entries were taken out as retention does it.
import type { AuditEvent, EventClass } from "../../src/audit/audit_event.ts";
import { noteSigner, signNote } from "../../src/audit/trail/signed_note.ts";
import { stubText } from "../../src/audit/trail/segment_stub.ts";
import {
  prepareThinning,
  putStub,
  replaceSegment,
  type Thinning,
} from "../../src/audit/retention/thin_segment.ts";
import { numbered, TRAIL_KEYS, type TrailFolder } from "./trail_folder.ts";

/** Events from `first` to `last`: those with an even number are of the class "activity". */
export function mixedUpTo(last: number, first = 1): AuditEvent[] {
  return Array.from({ length: last - first + 1 }, (_, index) => mixed(first + index));
}

function mixed(number: number): AuditEvent {
  if (number % 2 === 1) return numbered(number);
  return { type: "model.accepted", model: `${number}`, sha256: "0".repeat(64), signer: null, serial: null };
}

/** Prepares to take all entries of these classes out of a segment. */
export function prepare(
  { directory }: TrailFolder,
  segment: number,
  classes: readonly EventClass[],
  mayGo = true,
): Thinning {
  const [security, activity] = (["security", "activity"] as const).map((each) =>
    classes.includes(each) ? Infinity : -Infinity
  );
  const horizon = { security: security ?? 0, activity: activity ?? 0 };
  const thinning = prepareThinning(directory, segment, horizon, mayGo);
  if (thinning === undefined) throw new Error("There is nothing to take out");
  return thinning;
}

/** The stub of what was prepared, signed. */
export function stubNote({ facts }: Thinning, keys = TRAIL_KEYS): string {
  const text = stubText({ ...facts, made: "2027-01-01T00:00:00.000Z" });
  return signNote(text, [noteSigner(keys.name, keys.signing.pkcs8)]);
}

/** Takes all entries of these classes out of a segment. */
export function thin(
  folder: TrailFolder,
  segment: number,
  classes: readonly EventClass[],
  mayGo = true,
): void {
  const thinning = prepare(folder, segment, classes, mayGo);
  putStub(folder.directory, segment, stubNote(thinning));
  replaceSegment(folder.directory, thinning.facts);
}
