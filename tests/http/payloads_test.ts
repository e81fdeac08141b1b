// Tests of payloads through the gate: by default nothing of a prompt or an answer is kept anywhere, and by policy it is, sealed.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { auditFolders } from "../../src/audit/audit_trail.ts";
import { type AppUnderTest, openAppUnderTest, postJson } from "../support/app_under_test.ts";
import { eventMistake } from "../support/known_event.ts";

const PROMPT = "seventeen flamingos crossed the harbour";
const ANSWER = "stub answer";
const ALL = JSON.stringify([{}]);

/** Asks in every way: as a whole, in pieces, for vectors. Returns the ids of the requests. */
async function askEverything(app: AppUnderTest, token: string): Promise<string[]> {
  const messages = [{ role: "user", content: PROMPT }];
  const calls: readonly (readonly [string, unknown])[] = [
    ["/v1/chat/completions", { model: "generalist", messages }],
    ["/v1/chat/completions", { model: "generalist", messages, stream: true }],
    ["/v1/responses", { model: "generalist", input: PROMPT, stream: true }],
    ["/v1/messages", { model: "generalist", max_tokens: 9, messages }],
    ["/v1/completions", { model: "generalist", prompt: PROMPT }],
    ["/v1/embeddings", { model: "open", input: PROMPT }],
    ["/v1/moderations", { model: "generalist", input: PROMPT }],
    ["/v1/rerank", { model: "generalist", query: PROMPT, documents: [PROMPT] }],
    ["/v1/audio/speech", { model: "generalist", input: PROMPT, voice: "alloy" }],
    ["/v1/images/generations", { model: "generalist", prompt: PROMPT }],
  ];
  const ids: string[] = [];
  for (const [path, body] of calls) {
    const response = await app.call(path, postJson(body, token));
    strictEqual(response.status, 200, `${path} ${await response.clone().text()}`);
    await response.bytes();
    ids.push(response.headers.get("x-request-id") ?? "");
  }
  return ids;
}

/** Every byte below a folder, as Latin-1. */
function bytesBelow(folder: string): string {
  return [...Deno.readDirSync(folder)].map(({ name, isDirectory }) =>
    isDirectory
      ? bytesBelow(`${folder}/${name}`)
      : new TextDecoder("latin1").decode(Deno.readFileSync(`${folder}/${name}`))
  ).join("\n");
}

function hasWords(text: string): boolean {
  const words = [PROMPT, ANSWER];
  // Also as base64 has them, at each of the three places in a group.
  const encoded = words.flatMap((word) =>
    [0, 1, 2].map((shift) =>
      btoa(" ".repeat(shift) + word).slice(4, -4).replaceAll("+", "-").replaceAll("/", "_")
    )
  );
  return [...words, ...encoded].some((word) => text.includes(word));
}

Deno.test("ASVS V16.2.5: by default nothing of a prompt or an answer is in the data folder or in the log, in no encoding", async () => {
  const app = await openAppUnderTest();
  try {
    ok(hasWords(`x${btoa(`a${PROMPT}`)}`) && hasWords(ANSWER), "the search finds what it looks for");
    const token = await app.tokenFor("user");
    const ids = await askEverything(app, token);
    ok(!hasWords(bytesBelow(`${app.folder}/data`)));
    ok(!hasWords(JSON.stringify(app.logLines())));
    const events = app.auditEvents();
    deepStrictEqual(events.map(eventMistake).filter((mistake) => mistake !== undefined), []);
    const types = events.filter(({ request }) => ids.includes(String(request))).map(({ type }) => type);
    deepStrictEqual(new Set(types), new Set(["inference.started", "inference.finished"]));
    ok(bytesBelow(`${app.folder}/data/audit`).includes("inference.finished"), "the trail is there");
  } finally {
    await app.close();
  }
});

Deno.test("with a policy for all, the words are kept sealed only: no byte of them is in the data folder", async () => {
  for (const atRest of ["plain", "sealed"]) {
    const app = await openAppUnderTest({
      PORTCULLIS_AUDIT_PAYLOADS: ALL,
      PORTCULLIS_AUDIT_AT_REST: atRest,
    });
    try {
      await askEverything(app, await app.tokenFor("user"));
      ok(!hasWords(bytesBelow(`${app.folder}/data`)));
      ok(!hasWords(JSON.stringify(app.logLines())));
      if (atRest === "sealed") continue;
      const events = app.auditEvents();
      deepStrictEqual(events.map(eventMistake).filter((mistake) => mistake !== undefined), []);
      strictEqual(events.filter(({ type }) => type === "inference.payload").length, 20);
    } finally {
      await app.close();
    }
  }
});

Deno.test("fails closed: where the trail cannot take the payload, the answer is 503 and no model is asked", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_AUDIT_PAYLOADS: ALL, PORTCULLIS_AUDIT_TIMEOUT_MS: "300" });
  try {
    const token = await app.tokenFor("user");
    const ask = async () => {
      const response = await app.call("/v1/embeddings", postJson({ model: "open", input: PROMPT }, token));
      await response.bytes();
      return response.status;
    };
    strictEqual(await ask(), 200);
    const engine = app.engines.get("open");
    const asked = engine?.asked.length;
    const { directory } = auditFolders(`${app.folder}/data`);
    await Deno.rename(directory, `${directory}-gone`);
    strictEqual(await ask(), 503);
    strictEqual(engine?.asked.length, asked);
    await Deno.rename(`${directory}-gone`, directory);
    for (let tries = 0; tries < 100 && await ask() !== 200; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    strictEqual(await ask(), 200);
  } finally {
    await app.close();
  }
});

Deno.test("large payloads of many at once are all kept whole, and nobody is refused for them", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_AUDIT_PAYLOADS: JSON.stringify([{ parts: ["input"] }]) });
  try {
    const token = await app.tokenFor("user");
    const content = "wide ".repeat(50_000); // 250 kB: eight pieces
    const messages = [{ role: "user", content }];
    const body = { model: "generalist", messages };
    const statuses = await Promise.all(Array.from({ length: 24 }, async () => {
      const response = await app.call("/v1/chat/completions", postJson(body, token));
      await response.bytes();
      return response.status;
    }));
    deepStrictEqual(new Set(statuses), new Set([200]));
    const pieces = app.auditEvents().filter(({ type }) => type === "inference.payload");
    strictEqual(pieces.length, 24 * 8);
    ok(pieces.every(({ cut }) => cut === false));
  } finally {
    await app.close();
  }
});
