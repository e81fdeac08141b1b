// Tests of the payload routes against the whole app: who asked and what, read with a record of it, until the subject's key is destroyed.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import type { Replacements } from "../../../src/assemble.ts";
import { auditFolders, openAuditTrail } from "../../../src/audit/audit_trail.ts";
import { verifyChain } from "../../../src/audit/verify/verify_chain.ts";
import { newId } from "../../../src/encoding/ids.ts";
import {
  type AppUnderTest,
  getAs,
  openAppUnderTest,
  ORIGIN,
  postJson,
} from "../../support/app_under_test.ts";

const PROMPT = "seventeen flamingos crossed the harbour";
const MESSAGES = [{ role: "user", content: PROMPT }];

/** An app with policies of payloads. */
async function withApp(
  policies: unknown,
  run: (app: AppUnderTest) => Promise<void>,
  variables: Record<string, string> = {},
  replacements: Replacements = {},
): Promise<void> {
  const settings = { PORTCULLIS_AUDIT_PAYLOADS: JSON.stringify(policies), ...variables };
  const app = await openAppUnderTest(settings, replacements);
  try {
    await run(app);
  } finally {
    await app.close();
  }
}

/** The id of a request that was answered well. */
async function ask(app: AppUnderTest, token: string, path: string, body: unknown): Promise<string> {
  const response = await app.call(path, postJson(body, token));
  strictEqual(response.status, 200, await response.clone().text());
  await response.bytes();
  return response.headers.get("x-request-id") ?? "";
}

const chat = (app: AppUnderTest, token: string, more = {}) =>
  ask(app, token, "/v1/chat/completions", { model: "generalist", messages: MESSAGES, ...more });
const embed = (app: AppUnderTest, token: string) =>
  ask(app, token, "/v1/embeddings", { model: "open", input: "some words" });

async function read(app: AppUnderTest, request: string) {
  const response = await app.call(
    `/admin/v1/requests/${request}/payload`,
    getAs(await app.tokenFor("admin")),
  );
  return { status: response.status, body: await response.json() };
}

async function destroy(app: AppUnderTest, subject: string, query = ""): Promise<number> {
  const path = `/admin/v1/subjects/${encodeURIComponent(subject)}/payload-key${query}`;
  const init = { ...getAs(await app.tokenFor("admin")), method: "DELETE" };
  return (await app.call(path, init)).status;
}

async function subjectOf(app: AppUnderTest, username: string): Promise<string> {
  return (await app.portcullis.identity.users.findByName(username))?.id ?? "";
}

Deno.test("input and output of a request can be read by an admin, whole or in pieces, and that is on record before", async () => {
  await withApp([{}], async (app) => {
    const token = await app.tokenFor("user");
    for (const more of [{}, { stream: true }]) {
      const request = await chat(app, token, more);
      const { status, body } = await read(app, request);
      strictEqual(status, 200, JSON.stringify(body));
      deepStrictEqual([body.request, body.issuer, body.subject], [
        request,
        ORIGIN,
        await subjectOf(app, "test-user"),
      ]);
      deepStrictEqual([body.input.model, body.input.cut, body.output.cut], ["generalist", false, false]);
      deepStrictEqual(body.input.content.messages, [{
        role: "user",
        parts: [{ type: "text", text: PROMPT }],
      }]);
      strictEqual(body.output.content.choices[0].text, "stub answer");
      const last = app.auditEvents().at(-1);
      deepStrictEqual([last?.type, last?.form, last?.query], ["audit.read", "payload", { request }]);
      strictEqual(last?.subject, await subjectOf(app, "test-admin"));
    }
  });
});

Deno.test("also where the trail is sealed at rest, and subjects are pseudonyms", async () => {
  await withApp([{}], async (app) => {
    const token = await app.tokenFor("user");
    const request = await chat(app, token);
    const { status, body } = await read(app, request);
    strictEqual(status, 200, JSON.stringify(body));
    const subject = await subjectOf(app, "test-user");
    match(body.subject, /^[A-Za-z0-9_-]{22}$/);
    strictEqual(body.output.content.choices[0].text, "stub answer");
    strictEqual(await destroy(app, subject), 204);
    strictEqual((await read(app, request)).status, 404);
  }, { PORTCULLIS_AUDIT_AT_REST: "sealed", PORTCULLIS_AUDIT_SUBJECTS: "pseudonym" });
});

Deno.test("as pseudonyms, no subject of a request is in the trail, not in changes of them either", async () => {
  await withApp([{}], async (app) => {
    const token = await app.tokenFor("user");
    await chat(app, token);
    const subject = await subjectOf(app, "test-user");
    const admin = getAs(await app.tokenFor("admin"));
    await app.call(`/v1/users/${subject}`, admin);
    await app.call(`/v1/users/${subject}/sessions`, { ...admin, method: "DELETE" });
    strictEqual(await destroy(app, subject), 204);
    await app.call(`/v1/users/${subject}`, { ...admin, method: "DELETE" });
    const events = app.auditEvents();
    ok(!JSON.stringify(events).includes(subject));
    const label = events.find(({ type }) => type === "inference.started")?.subject;
    ok(typeof label === "string" && label !== subject);
    const objects = events.filter(({ type }) => type === "object.changed").map(({ object }) => object);
    deepStrictEqual(objects.filter((object) => object === `user/${label}`).length, 2);
    ok(app.logLines().some((line) => line.subject === subject), "the log is another matter");
  }, { PORTCULLIS_AUDIT_SUBJECTS: "pseudonym" });
});

Deno.test("where nothing is kept, there is nothing to read: 404, as for a request that never was", async () => {
  await withApp([{ models: ["open"], roles: ["operator"], parts: ["output"] }], async (app) => {
    const operator = await app.tokenFor("operator");
    const user = await app.tokenFor("user");
    for (
      const request of [await chat(app, operator), await embed(app, user), newId("req", 1), "req_1", "x"]
    ) {
      const { status, body } = await read(app, request);
      deepStrictEqual([status, body.type?.split(/[/:]/).at(-1)], [404, "not-found"], request);
    }
    const { status, body } = await read(app, await embed(app, operator));
    deepStrictEqual([status, body.input, body.output.content.dimensions], [200, null, 4]);
    match(body.output.content.vectors.sha256, /^[0-9a-f]{64}$/);
  });
});

Deno.test("a destroyed key makes all payloads of its subject unreadable, of nobody else, and the chain still verifies", async () => {
  await withApp([{}], async (app) => {
    const [user, operator] = [await app.tokenFor("user"), await app.tokenFor("operator")];
    const [first, second, other] = [await chat(app, user), await embed(app, user), await chat(app, operator)];
    const subject = await subjectOf(app, "test-user");
    strictEqual(await destroy(app, subject), 204);
    for (const request of [first, second]) {
      const { status, body } = await read(app, request);
      strictEqual(status, 404);
      match(body.detail, /destroyed/);
    }
    strictEqual((await read(app, other)).status, 200);
    const changed = app.auditEvents().find(({ type, action }) =>
      type === "object.changed" && action === "payload:destroy"
    );
    match(String(changed?.object), /^payload_key\/[A-Za-z0-9_-]{22}\.pay_/);
    const { made, ...before } = changed?.before as { made: number };
    deepStrictEqual([before, changed?.after], [{ issuer: ORIGIN, subject }, null]);
    ok(made > 1_700_000_000);

    const third = await chat(app, user);
    strictEqual((await read(app, third)).status, 200, "what comes later has a new key");
    strictEqual((await read(app, first)).status, 404);
    const keys = app.auditEvents().filter(({ type, kind }) => type === "key.changed" && kind === "payload");
    strictEqual(new Set(keys.map(({ key }) => key)).size, 3);
    const verdict = await verifyChain(auditFolders(`${app.folder}/data`));
    deepStrictEqual(verdict.finding, undefined);
    notStrictEqual(verdict.entries, 0);
  }, { PORTCULLIS_AUDIT_CHECKPOINT_ENTRIES: "1" });
});

Deno.test("what is under way when its key is destroyed is sealed under that key, and gone with it", async () => {
  await withApp([{}], async (app) => {
    const token = await app.tokenFor("user");
    await embed(app, token);
    const subject = await subjectOf(app, "test-user");
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    const { promise: running, resolve: runs } = Promise.withResolvers<void>();
    const engine = app.engines.get("open");
    ok(engine);
    const { behave } = engine;
    engine.behave = async (...request) => {
      runs();
      await held;
      return await behave(...request);
    };
    const asking = embed(app, token);
    await running;
    strictEqual(await destroy(app, subject), 204);
    release();
    strictEqual((await read(app, await asking)).status, 404);
  });
});

Deno.test("a payload whose key is destroyed while its reading is recorded is not given, and one that is gone is no reading", async () => {
  const { promise: held, resolve: release } = Promise.withResolvers<void>();
  const { promise: recorded, resolve: reached } = Promise.withResolvers<void>();
  const openTrail: typeof openAuditTrail = async (options) => {
    const trail = await openAuditTrail(options);
    return {
      async record(event) {
        await trail.record(event);
        if (event.type !== "audit.read") return;
        reached();
        await held;
      },
      recordAll: (events, ifRefused) => trail.recordAll(events, ifRefused),
      healthy: () => trail.healthy(),
      batchCount: () => trail.batchCount(),
      useKeys: (keys) => trail.useKeys(keys),
      close: () => trail.close(),
    };
  };
  await withApp(
    [{}],
    async (app) => {
      const request = await chat(app, await app.tokenFor("user"));
      const reading = read(app, request);
      await recorded;
      strictEqual(await destroy(app, await subjectOf(app, "test-user")), 204);
      release();
      const { status, body } = await reading;
      strictEqual(status, 404, JSON.stringify(body));
      match(body.detail, /destroyed/);
      strictEqual((await read(app, request)).status, 404);
      strictEqual(app.auditEvents().filter(({ type }) => type === "audit.read").length, 1);
    },
    {},
    { openTrail },
  );
});

Deno.test("a key is told to be destroyed when it is gone from the files as well: 503 while somebody reads them, however often", async () => {
  await withApp([{}], async (app) => {
    const request = await chat(app, await app.tokenFor("user"));
    const subject = await subjectOf(app, "test-user");
    await app.tokenFor("admin");
    const data = `${app.folder}/data`;
    // Somebody who makes a backup.
    const reader = new DatabaseSync(`${data}/portcullis.db`, { readOnly: true });
    reader.exec("BEGIN");
    const row = reader.prepare("SELECT value FROM records WHERE collection = 'payload_keys'").get();
    ok(row?.value instanceof Uint8Array);
    const key = row.value.subarray(20).toHex();
    const inFiles = () =>
      ["portcullis.db", "portcullis.db-wal"].some((name) =>
        Deno.readFileSync(`${data}/${name}`).toHex().includes(key)
      );
    deepStrictEqual([await destroy(app, subject), await destroy(app, subject)], [503, 503]);
    strictEqual((await read(app, request)).status, 404, "already");
    ok(inFiles());
    reader.close();
    // 404 where the server has done it by itself meanwhile.
    ok([204, 404].includes(await destroy(app, subject)));
    ok(!inFiles());
    strictEqual(await destroy(app, subject), 404);
    const changes = app.auditEvents().filter(({ action }) => action === "payload:destroy");
    strictEqual(new Set(changes.map(({ object }) => object)).size, 1);
    deepStrictEqual(changes.slice(0, 2).map(({ before }) => before === null), [false, true]);
  });
});

Deno.test("a key is named by issuer and subject: of another issuer, of nobody and of what is no subject there is none", async () => {
  await withApp([{}], async (app) => {
    const request = await chat(app, await app.tokenFor("user"));
    const subject = await subjectOf(app, "test-user");
    strictEqual(await destroy(app, subject, "?issuer=https%3A%2F%2Fother.example"), 404);
    strictEqual(await destroy(app, newId("usr", 1)), 404);
    strictEqual(await destroy(app, "a\u0000b"), 404);
    strictEqual(await destroy(app, "x".repeat(300)), 404);
    strictEqual(await destroy(app, subject, "?other=1"), 400);
    strictEqual((await read(app, request)).status, 200);
    strictEqual(await destroy(app, subject, `?issuer=${encodeURIComponent(ORIGIN)}`), 204);
    strictEqual(await destroy(app, subject), 404, "twice");
  });
});

Deno.test("the key outlives the account, and can still be destroyed", async () => {
  await withApp([{}], async (app) => {
    const request = await chat(app, await app.tokenFor("user"));
    const subject = await subjectOf(app, "test-user");
    const init = { ...getAs(await app.tokenFor("admin")), method: "DELETE" };
    strictEqual((await app.call(`/v1/users/${subject}`, init)).status, 204);
    strictEqual((await read(app, request)).status, 200);
    strictEqual(await destroy(app, subject), 204);
    strictEqual((await read(app, request)).status, 404);
  });
});

Deno.test("what is too long is told to be cut, and given as the text that is left", async () => {
  const run = async (app: AppUnderTest) => {
    const content = "wide ".repeat(300_000);
    const request = await chat(app, await app.tokenFor("user"), { messages: [{ role: "user", content }] });
    const { status, body } = await read(app, request);
    deepStrictEqual([status, body.input.cut, typeof body.input.content, body.output.cut], [
      200,
      true,
      "string",
      false,
    ]);
    strictEqual(body.input.content.length, 1024 * 1024);
  };
  for (const atRest of ["plain", "sealed"]) {
    await withApp([{}], run, { PORTCULLIS_AUDIT_AT_REST: atRest });
  }
});

Deno.test("no payload is given without the record of it: 503", async () => {
  await withApp([{}], async (app) => {
    const request = await chat(app, await app.tokenFor("user"));
    strictEqual((await read(app, request)).status, 200);
    const { checkpointDirectory } = auditFolders(`${app.folder}/data`);
    const lock = `${checkpointDirectory}/checkpoint.json`;
    const bytes = Deno.readFileSync(lock);
    Deno.renameSync(lock, `${lock}.gone`);
    Deno.writeFileSync(lock, bytes);
    const { status, body } = await read(app, request);
    strictEqual(status, 503);
    ok(!JSON.stringify(body).includes("flamingos"));
  }, { PORTCULLIS_AUDIT_TIMEOUT_MS: "500" });
});
