// Gate journey: a real server in front of upstreams, and what must hold at the end of every journey through it: each request left one
// verdict, each inference one intent and one outcome, the trail is whole, and no upstream's secret is anywhere.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { eventMistake } from "./known_event.ts";
import { type ServerUnderTest, startServerUnderTest } from "./server_under_test.ts";

/** What stands behind the gate. */
export interface GateSettings {
  /** `upstreams` of docs/upstreams.md; `key` is its secret. */
  readonly upstreams: readonly ({ readonly name: string; readonly key?: string } & Record<string, unknown>)[];
  /** `upstreamModels`. */
  readonly models: readonly Record<string, unknown>[];
  /** Whether this machine's own models are served as well; they take seconds to start. */
  readonly localModels?: boolean;
  /** Further settings. */
  readonly variables?: Record<string, string>;
}

/** One journey. */
export interface GateJourney {
  readonly server: ServerUnderTest;
  readonly origin: string;
  /** Of the first user, an admin. */
  readonly token: string;
  /** For clients: counts requests and keeps what was answered. */
  readonly fetch: typeof fetch;
  /** The id of the last request that was answered. */
  lastRequestId(): string;
  /** Stops the server as SIGTERM does; the end of a journey does it otherwise. */
  stop(): Promise<Deno.CommandStatus>;
  /** The audit trail so far. */
  records(): AuditRecord[];
  /** The outcome of an inference, as soon as it is on record. */
  outcomeOf(requestId: string): Promise<AuditRecord>;
}

/** A record's event. */
export type AuditRecord = Readonly<Record<string, unknown>> & { readonly type: string };

/** Starts a server, signs in, lets `run` use it, and checks what must hold. */
export async function throughTheGate(
  settings: GateSettings,
  run: (journey: GateJourney) => Promise<void>,
): Promise<void> {
  const dataDir = await Deno.makeTempDir({ prefix: "portcullis-journey-" });
  const secrets = settings.upstreams.flatMap(({ key }) => key === undefined || key === "" ? [] : [key]);
  const emptyDir = await Deno.makeTempDir({ prefix: "portcullis-no-models-" });
  const variables = variablesOf(settings);
  if (settings.localModels !== true) variables.PORTCULLIS_MODELS_DIR = emptyDir;
  const server = await startServerUnderTest({ dataDir, variables });
  let requests = 0;
  let lastRequestId = "";
  const answered: string[] = [];
  const fetchCounted = async (...[input, init]: Parameters<typeof fetch>): Promise<Response> => {
    const url = input instanceof Request ? input.url : String(input);
    // Clients also fetch `data:` URLs, to see what this function can do.
    if (!url.startsWith(server.origin)) return await fetch(input, init);
    requests++;
    const response = await fetch(input, init);
    lastRequestId = response.headers.get("x-request-id") ?? "";
    answered.push(JSON.stringify([...response.headers]));
    if (response.body === null) return response;
    const decoder = new TextDecoder();
    const kept = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform(bytes, controller) {
        answered.push(decoder.decode(bytes, { stream: true }));
        controller.enqueue(bytes);
      },
    });
    return new Response(response.body.pipeThrough(kept), response);
  };
  let stopping: Promise<Deno.CommandStatus> | undefined;
  // Once: a second signal means hurry.
  const stop = (): Promise<Deno.CommandStatus> => stopping ??= server.stop();
  const records = (): AuditRecord[] => auditRecords(dataDir);
  try {
    await server.whenReady();
    requests++;
    const token = await server.signIn();
    await run({
      server,
      origin: server.origin,
      token,
      fetch: fetchCounted,
      lastRequestId: () => lastRequestId,
      stop,
      records,
      async outcomeOf(requestId) {
        for (let tries = 0; tries < 200; tries++) {
          const outcome = records().find(({ type, request }) =>
            type === "inference.finished" && request === requestId
          );
          if (outcome !== undefined) return outcome;
          await new Promise((resolve) => setTimeout(resolve, 25));
        }
        throw new Error(`no outcome of ${requestId} is on record`);
      },
    });
    strictEqual((await stop()).code, 0, server.output());

    deepStrictEqual(records().map(eventMistake).filter((mistake) => mistake !== undefined), []);
    const verdicts = records().filter(({ type }) => VERDICTS.includes(type));
    strictEqual(
      new Set(verdicts.map(({ request }) => request)).size,
      verdicts.length,
      "two verdicts for one",
    );
    strictEqual(verdicts.length, requests, "verdicts on record, requests sent");
    const requestsWith = (wanted: string): unknown[] =>
      records().filter(({ type }) => type === wanted).map(({ request }) => request).sort();
    deepStrictEqual(requestsWith("inference.finished"), requestsWith("inference.started"));
    const trail = { directory: `${dataDir}/audit`, checkpointDirectory: `${dataDir}/audit-checkpoint` };
    strictEqual((await verifyChain(trail)).finding, undefined);

    const places = { log: server.output(), answers: answered.join("\n"), ...filesBelow(dataDir) };
    for (const [place, content] of Object.entries(places)) {
      ok(!secrets.some((secret) => content.includes(secret)), `an upstream's secret is in ${place}`);
    }
  } finally {
    await server.stop("SIGKILL");
    await Deno.remove(dataDir, { recursive: true });
    await Deno.remove(emptyDir);
  }
}

const VERDICTS: readonly string[] = [
  "session.started",
  "session.refused",
  "session.ended",
  "request.allowed",
  "request.refused",
  "audit.read",
  "inference.started",
];

function variablesOf({ upstreams, models, variables }: GateSettings): Record<string, string> {
  const keys = upstreams.flatMap(({ name, key }): [string, string][] =>
    key === undefined || key === ""
      ? []
      : [[`PORTCULLIS_UPSTREAM_${name.replaceAll("-", "_").toUpperCase()}_KEY`, key]]
  );
  return {
    PORTCULLIS_UPSTREAMS: JSON.stringify(upstreams.map(({ key: _, ...upstream }) => upstream)),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify(models),
    ...Object.fromEntries(keys),
    ...variables,
  };
}

function auditRecords(dataDir: string): AuditRecord[] {
  const folder = `${dataDir}/audit`;
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort()
    .flatMap((name) => Deno.readTextFileSync(`${folder}/${name}`).split("\n"))
    .filter((line) => line.endsWith("}")).flatMap((line) => JSON.parse(line).event ?? []);
}

/** Every file below a folder, its bytes as Latin-1 so that any ASCII mark is found. */
function filesBelow(folder: string): Record<string, string> {
  return Object.fromEntries([...Deno.readDirSync(folder)].flatMap((entry): [string, string][] => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory
      ? Object.entries(filesBelow(path))
      : [[path, new TextDecoder("latin1").decode(Deno.readFileSync(path))]];
  }));
}
