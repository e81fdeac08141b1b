// Tests of what a trail says of the starts before: whether one of them came so far as to serve.
import { strictEqual } from "node:assert/strict";
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { hasServed, START_FAILED } from "../../src/audit/has_served.ts";
import { TrailFolder } from "./trail_folder.ts";

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
  { type: "model.accepted", model: "m", sha256: "" },
  { type: "model.refused", model: "n", reason: "digest_mismatch" },
];
const FAILED_START = [STARTED, ...MODELS, KEY_MADE, FAILED];

Deno.test("a trail without entries, or with starts alone that came to nothing, has not served", async () => {
  await using folder = new TrailFolder();
  strictEqual(hasServed(folder.directory), false);
  // A segment for each event.
  folder.write([...FAILED_START, ...FAILED_START, STARTED], 1);
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
  folder.setLines(folder.lines().map((line, at) => at === 2 ? line.replace('"n"', '"o"') : line));
  strictEqual(hasServed(folder.directory), true);
});
