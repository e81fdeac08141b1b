// Killed inferences: after kill -9 at any moment every inference that began has exactly one record of how it ended.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { openEvent } from "../../src/audit/trail/sealed_event.ts";
import { openTrailKeys } from "../../src/audit/trail_keys.ts";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { storeFile } from "../../src/config/environment.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import { systemClock } from "../../src/time/clock.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { type ServerUnderTest, startServerUnderTest } from "../support/server_under_test.ts";

const ROUNDS = 3;
const AT_ONCE = 6;

Deno.test("every answered inference has its intent, every intent exactly one outcome, and only killed ones are interrupted", async () => {
  const dataDir = await Deno.makeTempDir();
  try {
    const answered = new Set<string>();
    for (let round = 0; round < ROUNDS; round++) {
      // The trail changes its form from start to start.
      const atRest = round % 2 === 0 ? "sealed" : "plain";
      const server = await startServerUnderTest({ dataDir, variables: { PORTCULLIS_AUDIT_AT_REST: atRest } });
      await server.whenReady();
      for (const request of await inferAndKill(server)) answered.add(request);
    }
    const last = await startServerUnderTest({ dataDir });
    await last.stop();

    const folders = { directory: `${dataDir}/audit`, checkpointDirectory: `${dataDir}/audit-checkpoint` };
    strictEqual((await verifyChain(folders)).finding, undefined);
    const events = await openedEvents(dataDir);
    const requestsOf = (...types: string[]) =>
      events.filter(({ type }) => types.includes(String(type))).map(({ request }) => String(request)).sort();
    const intents = requestsOf("inference.started");
    deepStrictEqual(requestsOf("inference.finished", "inference.interrupted"), intents);
    strictEqual(new Set(intents).size, intents.length);
    ok(answered.size > 0);
    for (const request of answered) {
      ok(requestsOf("inference.finished").includes(request), `${request} was answered and is not recorded`);
    }
    ok(requestsOf("inference.interrupted").length > 0, "no kill met an inference: the test shows nothing");
    for (const { type, intent, request, model, subject } of events) {
      if (type !== "inference.interrupted") continue;
      const started = events[Number(intent) - 1];
      deepStrictEqual([started?.request, started?.model, started?.subject], [request, model, subject]);
    }
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

/** Runs inferences, several at once, kills the server at a random moment behind the first answer, and returns the ids of those that were answered. */
async function inferAndKill(server: ServerUnderTest): Promise<string[]> {
  const token = await server.signIn();
  const answered: string[] = [];
  let kill: ReturnType<typeof setTimeout> | undefined;
  const inferOn = async (): Promise<void> => {
    for (;;) {
      const response = await fetch(`${server.origin}/v1/embeddings`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
        body: JSON.stringify({ model: "use-lite", input: Array(20).fill("a sentence that takes a while") }),
      }).catch(() => undefined);
      if (response === undefined) return;
      const request = response.headers.get("x-request-id") ?? "";
      if (await response.text().catch(() => undefined) === undefined) return;
      strictEqual(response.status, 200);
      answered.push(request);
      // However busy the machine is: some are answered, and some are under way.
      kill ??= setTimeout(() => server.process.kill("SIGKILL"), Math.random() * 500);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, inferOn));
  clearTimeout(kill);
  strictEqual((await server.stop("SIGKILL")).signal, "SIGKILL");
  return answered;
}

/** The events of the trail of a server that is stopped, in order, opened where they are sealed. */
async function openedEvents(dataDir: string): Promise<Readonly<Record<string, unknown>>[]> {
  const store = openSqliteRecordStore(storeFile(dataDir), systemClock);
  try {
    const masterKey = parseMasterKey(Deno.readTextFileSync(`${dataDir}/master.key`));
    const keyRing = await openKeyRing(store, localMasterKey(masterKey), systemClock);
    const keys = await openTrailKeys({ store, keyRing, feed: NO_OTHERS, clock: systemClock, sealed: false });
    return [...Deno.readDirSync(`${dataDir}/audit`)].map(({ name }) => name).sort().flatMap((name) =>
      Deno.readTextFileSync(`${dataDir}/audit/${name}`).split("\n").slice(1, -1)
    ).map((line) => JSON.parse(line)).map(({ seq, event }) => openEvent(keys.sealingKeys(), seq, event));
  } finally {
    await store.close();
  }
}
