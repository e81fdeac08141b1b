// API calls: requests to a server under test written out by hand, and what they left in its data folder.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { ADMIN_PASSWORD } from "../support/server_under_test.ts";

/** An answer that was read to its end. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body where it is JSON. */
  readonly body: ReturnType<typeof JSON.parse>;
  /** `X-Request-Id`: the trail knows the request by it. */
  readonly request: string;
}

/** One request. A text as body is sent as a form, anything else as JSON. */
export type Call = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Readonly<Record<string, string>>,
) => Promise<Answer>;

/** Calls with a credential, sent as `Bearer` unless it names its scheme; without one: nobody's calls. */
export function callsOf(server: { readonly origin: string }, credential?: string): Call {
  const authorization = credential?.includes(" ") ? credential : `Bearer ${credential}`;
  return async (method, path, body, headers = {}) => {
    const isForm = typeof body === "string";
    const response = await fetch(`${server.origin}${path}`, {
      method,
      headers: {
        ...(credential === undefined ? {} : { authorization }),
        ...(body === undefined
          ? {}
          : { "content-type": isForm ? "application/x-www-form-urlencoded" : "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: isForm ? body : JSON.stringify(body) }),
    });
    return await answerOf(response);
  };
}

/** Reads an answer to its end. */
export async function answerOf(response: Response): Promise<Answer> {
  const text = await response.text();
  const { status, headers } = response;
  const isJson = headers.get("content-type")?.includes("json") === true && text !== "";
  return {
    status,
    headers,
    text,
    body: isJson ? JSON.parse(text) : undefined,
    request: headers.get("x-request-id") ?? "",
  };
}

/** The body of an answer of this status. */
export async function expectStatus(asked: Promise<Answer>, status: number): Promise<Answer["body"]> {
  const answer = await asked;
  strictEqual(answer.status, status, answer.text);
  return answer.body;
}

/** What a sign-in answers. */
export interface SignedIn {
  readonly access_token: string;
  readonly refresh_token: string;
}

/** Signs in; `headers` may say from where. */
export async function signIn(
  server: { readonly origin: string },
  username = "admin",
  password = ADMIN_PASSWORD,
  headers: Readonly<Record<string, string>> = {},
): Promise<SignedIn> {
  return await expectStatus(
    callsOf(server)("POST", "/v1/auth/login", { username, password }, headers),
    200,
  );
}

/** The form of a refresh (RFC 6749 §6). */
export function refreshForm(refreshToken: string): string {
  return new URLSearchParams({ grant_type: "refresh_token", refresh_token: refreshToken }).toString();
}

/** Asks again until an answer is as wanted; fails after two minutes with the last one. */
export async function until(
  ask: () => Promise<Answer>,
  isWanted: (answer: Answer) => boolean,
): Promise<Answer> {
  const tries = 600;
  for (let attempt = 1;; attempt++) {
    const answer = await ask();
    if (isWanted(answer)) return answer;
    ok(attempt < tries, `it stays at ${answer.status}: ${answer.text}`);
    await pause(200);
  }
}

/** Waits, without saying that anything takes so long. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** One event of the trail. */
export type TrailEvent = Readonly<Record<string, unknown>>;

/** Every event so far, the oldest first. */
export function trailOf(dataDir: string): readonly TrailEvent[] {
  const folder = `${dataDir}/audit`;
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort()
    .flatMap((name) => Deno.readTextFileSync(`${folder}/${name}`).split("\n"))
    .filter((line) => line.endsWith("}")).flatMap((line) => JSON.parse(line).event ?? []);
}

/** @throws AssertionError where the chain of the trail is broken */
export async function requireIntactTrail(dataDir: string): Promise<void> {
  const { finding } = await verifyChain({
    directory: `${dataDir}/audit`,
    checkpointDirectory: `${dataDir}/audit-checkpoint`,
  });
  strictEqual(finding, undefined);
}

/**
 * @param secrets by a name to report them by
 * @throws AssertionError where one of them stands in a file of the data folder or in what the server said: as it is, or in
 * a form that it could be had back from or tried out against
 */
export function requireNowhere(
  secrets: Readonly<Record<string, string>>,
  dataDir: string,
  said: string,
): void {
  const places = { ...filesBelow(dataDir), "what the server said": said };
  const found = Object.entries(secrets).flatMap(([name, secret]) => {
    ok(secret.length >= 12, `${name} is too short to be looked for`);
    const forms = formsOf(secret);
    return Object.entries(places).flatMap(([place, content]) =>
      forms.filter((form) => content.includes(form)).map((form) => `${name} as ${form} in ${place}`)
    );
  });
  deepStrictEqual(found, []);
  ok(Object.keys(places).length >= 5 && said.includes('"event":"request"'), "too little was searched");
}

/** A text, and what it becomes by the encodings and the one digest without a key that somebody could have chosen. */
function formsOf(secret: string): readonly string[] {
  const bytes = new TextEncoder().encode(secret);
  const utf16 = [...secret].join("\0");
  const forms = [
    secret,
    utf16,
    encodeURIComponent(secret),
    bytes.toHex(),
    // Without the end, which depends on what stands behind it.
    bytes.toBase64().replace(/=+$/, "").slice(0, -1),
    hash("sha256", secret, "hex"),
    hash("sha256", secret, "base64").replace(/=+$/, ""),
    hash("sha256", secret, "base64url"),
    new TextDecoder("latin1").decode(hash("sha256", secret, "buffer")),
  ];
  return [...new Set(forms)];
}

/** Every file below a folder, its bytes as Latin-1 so that any ASCII text is found. */
function filesBelow(folder: string): Record<string, string> {
  return Object.fromEntries([...Deno.readDirSync(folder)].flatMap((entry): [string, string][] => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory
      ? Object.entries(filesBelow(path))
      : [[path, new TextDecoder("latin1").decode(Deno.readFileSync(path))]];
  }));
}
