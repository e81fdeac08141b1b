// Tests of what a request leaves in the trail: every event with exactly its fields, and subjects as the settings say.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { openAuditTrail } from "../../src/audit/audit_trail.ts";
import { memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { RequestRecord } from "../../src/audit/request_record.ts";
import type { SealedPayload } from "../../src/audit/payload/payload_seal.ts";
import { pseudonymousSubjects, type SubjectLabels } from "../../src/audit/subject_labels.ts";
import { newId } from "../../src/encoding/ids.ts";
import { Fault } from "../../src/faults/fault.ts";
import { eventMistake } from "../support/known_event.ts";
import { numbered, TrailFolder, trailOptions, until } from "./trail_folder.ts";

const ISSUER = "https://ai.example.com";
const USER = newId("usr", 1);
const CLIENT = newId("cli", 2);
const OTHERS = "somebody@example.com";
const LABELS = pseudonymousSubjects(
  (text) => `<${text.split("\0").map((part) => part.length).join()}>`,
  ISSUER,
);
const SUBJECT_LABEL = LABELS.subject(ISSUER, USER);

const STARTED = { model: "m", task: "chat", sha256: null, items: 1 };
const COMPLETED = {
  model: "m",
  sha256: null,
  outcome: "completed",
  inputTokens: 1,
  outputTokens: 1,
  countedBy: "engine",
  servedBy: null,
  attempts: 0,
  durationMs: 1,
} as const;
const unavailable = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "unavailable";

/** A payload of so many pieces. */
function payloadOf(part: "input" | "output", pieces: number): SealedPayload {
  return {
    model: "m",
    part,
    key: "k",
    cut: false,
    pieces: Array.from({ length: pieces }, (_, piece) => String(piece)),
  };
}

/** Records everything there is to record. */
async function recordAll(
  subjects?: SubjectLabels,
  caller: { issuer: string; subject: string; credential: string } = {
    issuer: ISSUER,
    subject: USER,
    credential: "tok_1",
  },
): Promise<{ events: readonly AuditEvent[]; record: RequestRecord }> {
  const trail = memoryAuditTrail();
  const identity = { request: "req_1", address: "192.0.2.1", route: "POST /x" };
  const record = new RequestRecord(trail, identity, subjects, new Headers({ "user-agent": "test/1" }));
  record.identify({ ...caller, team: "default" });
  await record.sessionStarted({ session: "ses_1", displaced: ["ses_0"], expiresAtSeconds: 1 });
  await record.sessionRefused("pseudonym", "password_wrong");
  await record.sessionEnded(null);
  await record.reuseDetected("ses_1");
  await record.tokenIssued({ grant: "refresh_token", session: "ses_1", expiresAtSeconds: 1, bound: true });
  await record.changing("user:write", `user/${USER}`, { owner: CLIENT }, { owners: [USER, { id: CLIENT }] });
  await record.allowed("user:read", `user/${USER}`);
  await record.allowed("user:read", null);
  await record.refused(403, "forbidden", `Cannot do something to ${USER}: no`);
  await record.reading("page", { actor: USER });
  const input = { model: "m", part: "input", key: "k", cut: false, pieces: ["AAAA", "BBBB"] } as const;
  await record.inferenceStarted(STARTED, input);
  await record.inferenceStarted(STARTED);
  await record.inferenceRerouted("m", "n", "unavailable", input);
  await record.inferenceFinished(COMPLETED, payloadOf("output", 20));
  return { events: trail.events, record };
}

Deno.test("every event of a request is one of the table's, with exactly its fields", async () => {
  const { events } = await recordAll();
  deepStrictEqual(events.map(eventMistake).filter((mistake) => mistake !== undefined), []);
  strictEqual(new Set(events.map(({ type }) => type)).size, 13);
  const agents = events.filter((event) => "agent" in event).map(({ type }) => type);
  deepStrictEqual(agents, ["session.started", "session.refused", "token.issued", "request.refused"]);
});

Deno.test("the table finds an event with a field too few, one too many, one of another kind, and of a type that it does not know", () => {
  const good = { type: "model.refused", model: "m", reason: "r" };
  strictEqual(eventMistake(good), undefined);
  const bad = [
    { type: "model.refused", model: "m" },
    { ...good, prompt: "p" },
    { ...good, reason: null },
    { ...good, type: "model.lost" },
    { ...good, type: "constructor" },
  ];
  for (const event of bad) ok(eventMistake(event) !== undefined, JSON.stringify(event));
});

Deno.test("an event comes behind the payload that belongs to it, piece by piece", async () => {
  const { events } = await recordAll();
  const pieces = events.filter((event) => event.type === "inference.payload");
  deepStrictEqual(
    pieces.map(({ part, piece, pieces, sealed }) => [part, piece, pieces, sealed]),
    [
      ["input", 0, 2, "AAAA"],
      ["input", 1, 2, "BBBB"],
      ["input", 0, 2, "AAAA"],
      ["input", 1, 2, "BBBB"],
      ...Array.from({ length: 20 }, (_, piece) => ["output", piece, 20, String(piece)]),
    ],
  );
  strictEqual(events.at(-1)?.type, "inference.finished");
});

Deno.test("an intent and an outcome are taken together with the payload that belongs to them, or not at all", async () => {
  await using folder = new TrailFolder();
  const trail = await openAuditTrail(trailOptions(folder, { waitingMax: 5 }));
  const record = (request: string) => new RequestRecord(trail, { request, address: "a", route: "POST /x" });
  const ofRequests = () =>
    folder.entries().map(({ event }) => event).filter(({ request }) => request !== undefined);
  const fill = () => [1, 2, 3].map((number) => trail.record(numbered(number)));
  let others = fill();
  await rejects(record("req_1").inferenceStarted(STARTED, payloadOf("input", 2)), unavailable);
  await Promise.all(others);
  await trail.record(numbered(4));
  deepStrictEqual(ofRequests(), []);

  const two = record("req_2");
  await two.inferenceStarted(STARTED);
  others = fill();
  await rejects(two.inferenceFinished(COMPLETED, payloadOf("output", 2)), unavailable);
  await Promise.all(others);
  await until(() => ofRequests().length === 2);
  await trail.close();
  deepStrictEqual(ofRequests().map(({ type, outcome }) => [type, outcome]), [
    ["inference.started", undefined],
    ["inference.finished", "unavailable"],
  ]);
});

Deno.test("an outcome whose payload could not be recorded gets into the trail when it writes again, and not as completed", async () => {
  await using folder = new TrailFolder();
  const trail = await openAuditTrail(
    trailOptions(folder, { timeoutMs: 300 }),
    () =>
      new Worker(new URL("./fixtures/stub_disk_worker.ts", import.meta.url), {
        type: "module",
        name: `${folder.root}/disk`,
        deno: { permissions: { read: [folder.root], write: [folder.root] } },
      }),
  );
  const record = new RequestRecord(trail, { request: "req_1", address: "a", route: "POST /x" });
  await record.inferenceStarted(STARTED);
  Deno.writeTextFileSync(`${folder.root}/disk.hang`, "");
  await rejects(record.inferenceFinished(COMPLETED, payloadOf("output", 20)), unavailable);
  Deno.removeSync(`${folder.root}/disk.hang`);
  const ends = () =>
    folder.entries().map(({ event }) => event).filter(({ type }) => type === "inference.finished");
  await until(() => ends().length > 0);
  await trail.close();
  deepStrictEqual(ends().map(({ outcome }) => outcome), ["unavailable"]);
});

Deno.test("an intent whose payload could not be recorded is in no trail", async () => {
  const trail = memoryAuditTrail();
  const record = new RequestRecord(trail, { request: "req_1", address: "a", route: "POST /x" });
  const started = record.inferenceStarted(STARTED, payloadOf("input", 20));
  trail.setFailing(true);
  await rejects(started, unavailable);
  trail.setFailing(false);
  await trail.record(numbered(1));
  deepStrictEqual(trail.events, [numbered(1)]);
});

Deno.test("subjects stand as they are unless the settings say otherwise", async () => {
  const { events } = await recordAll();
  ok(events.every((event) => !("subject" in event) || event.subject === USER));
  const changed = events.find((event) => event.type === "object.changed");
  deepStrictEqual(changed?.after, { owners: [USER, { id: CLIENT }] });
});

Deno.test("as pseudonyms, no subject is anywhere in the events of a request; the log still has it", async () => {
  const callers = [
    { issuer: ISSUER, subject: USER, credential: "tok_1" },
    // A client that proves itself is its own credential.
    { issuer: ISSUER, subject: CLIENT, credential: CLIENT },
    { issuer: "https://login.example.com", subject: OTHERS, credential: "jti-1" },
  ];
  for (const caller of callers) {
    const { events, record } = await recordAll(LABELS, caller);
    const text = JSON.stringify(events);
    for (const id of [USER, CLIENT, OTHERS]) ok(!text.includes(id), `${id} in ${text}`);
    deepStrictEqual(events.map(eventMistake).filter((mistake) => mistake !== undefined), []);
    strictEqual(record.subject, caller.subject);
    const label = LABELS.subject(caller.issuer, caller.subject);
    ok(events.every((event) => !("subject" in event) || event.subject === label));
  }
  const { events } = await recordAll(LABELS);
  const changed = events.find((event) => event.type === "object.changed");
  deepStrictEqual([changed?.object, changed?.before], [
    `user/${SUBJECT_LABEL}`,
    { owner: LABELS.subject(ISSUER, CLIENT) },
  ]);
  const refused = events.find((event) => event.type === "request.refused");
  strictEqual(refused?.reason, `Cannot do something to ${SUBJECT_LABEL}: no`);
});

Deno.test("a pseudonym is of the pair: the same subject of another issuer has another, and ids of other things stay", () => {
  const labels = pseudonymousSubjects((text) => `p:${text}`, ISSUER);
  ok(labels.subject(ISSUER, "a") !== labels.subject("https://other.example", "a"));
  ok(labels.subject("https://a", "b") !== labels.subject("https://", "ab"));
  const label = labels.subject(ISSUER, USER);
  deepStrictEqual(
    labels.within({ [USER]: [{ [`of ${USER}`]: 1 }], rule: `x_${USER}`, both: `${USER}_${USER}` }),
    {
      [label]: [{ [`of ${label}`]: 1 }],
      rule: `x_${label}`,
      both: `${label}_${label}`,
    },
  );
  const key = newId("pck", 1);
  const session = newId("ses", 1);
  deepStrictEqual(labels.within({ key, session, text: "usr_", more: `${USER}x` }), {
    key,
    session,
    text: "usr_",
    more: `${USER}x`,
  });
});
