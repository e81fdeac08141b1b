// Tests of what a trail says of the starts before: whether one of them came so far as to serve.
import { strictEqual } from "node:assert/strict";
import type { AuditEvent } from "../../../src/audit/audit_event.ts";
import { hasServed, START_FAILED } from "../../../src/audit/trail/has_served.ts";
import { stubName } from "../../../src/audit/trail/segment_stub.ts";
import { TRAIL_KEYS, TrailFolder } from "../trail_folder.ts";

const STARTED: AuditEvent = { type: "server.started", version: "0", mode: "production", settingsSha256: "" };
const FAILED: AuditEvent = { type: "server.stopped", reason: START_FAILED };
const KEY_MADE: AuditEvent = {
  type: "command.changed",
  command: "settings",
  object: "signing_key",
  before: null,
  after: "k",
};
const MODELS: readonly AuditEvent[] = [
  { type: "model.accepted", model: "m", sha256: "", signer: null, serial: null },
  { type: "model.refused", model: "n", reason: "digest_mismatch" },
];
const KEY_OF_THE_TRAIL: AuditEvent = {
  type: "key.changed",
  kind: "audit_signing",
  key: "akey_1",
  change: "made",
};
const FAILED_START = [STARTED, ...MODELS, KEY_MADE, FAILED];

Deno.test("a trail without entries, or with starts alone that came to nothing, has not served", async () => {
  await using folder = new TrailFolder();
  strictEqual(hasServed(folder.directory), false);
  // A segment for each event.
  folder.write([KEY_OF_THE_TRAIL, ...FAILED_START, ...FAILED_START, STARTED], 1);
  strictEqual(hasServed(folder.directory), false);
});

Deno.test("a first user, a request or a stop for another reason say that it has served, in whatever segment", async () => {
  const signs: readonly AuditEvent[] = [
    { type: "user.created", subject: "usr_1", roles: ["admin"], actor: "first start" },
    {
      type: "session.started",
      request: "req_1",
      issuer: null,
      subject: null,
      team: null,
      credential: null,
      address: "::1",
      route: "POST /v1/auth/login",
      agent: null,
      session: "ses_1",
      displaced: [],
      expiresAtSeconds: 1,
    },
    { type: "server.stopped", reason: "SIGTERM" },
  ];
  for (const sign of signs) {
    await using folder = new TrailFolder();
    folder.write([...FAILED_START, STARTED, sign, ...FAILED_START], 1);
    strictEqual(hasServed(folder.directory), true, sign.type);
  }
});

Deno.test("an entry that was altered counts as one that has served; the rest of a line at the end does not", async () => {
  await using folder = new TrailFolder();
  folder.write(FAILED_START);
  Deno.writeTextFileSync(folder.segmentPath(1), '{"event":', { append: true });
  strictEqual(hasServed(folder.directory), false);
  folder.setLines(folder.lines().map((line, at) => at === 3 ? line.replace('"n"', '"o"') : line));
  strictEqual(hasServed(folder.directory), true);
});

Deno.test("a sealed trail of starts that came to nothing has not served for who has its key, and has for who has not", async () => {
  const sealing = { id: "akey_s", raw: new Uint8Array(32).fill(7) };
  const options = { keys: { ...TRAIL_KEYS, sealing }, sealed: true };
  await using folder = new TrailFolder();
  folder.write(FAILED_START, 1, options);
  strictEqual(hasServed(folder.directory, new Map([[sealing.id, sealing.raw]])), false);
  strictEqual(hasServed(folder.directory, new Map([[sealing.id, new Uint8Array(32)]])), true);
  strictEqual(hasServed(folder.directory), true);
});

Deno.test("a header that was altered, and a stub beside the segments, count as service", async () => {
  await using folder = new TrailFolder();
  folder.write(FAILED_START);
  const lines = folder.lines();
  folder.setLines(lines.with(0, lines[0]?.replace('"format":2', '"format":3') ?? ""));
  strictEqual(hasServed(folder.directory), true);
  folder.setLines(lines);
  strictEqual(hasServed(folder.directory), false);
  Deno.writeTextFileSync(`${folder.directory}/${stubName(1)}`, "");
  strictEqual(hasServed(folder.directory), true);
});
