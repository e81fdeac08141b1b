// Good calls: for every route a call that works, with whatever it needs made through the real routes before.
import { ok } from "node:assert/strict";
import { PASSWORD } from "../support/app_under_test.ts";

/** A way to a server, in this process or another. */
export type Send = (path: string, init?: RequestInit) => Promise<Response>;

/** A call that works, and what it answers. */
export interface GoodCall {
  /** Default: 200. */
  readonly status?: number;
  /** What stands in the braces of the route's path. */
  readonly at?: (objects: Objects) => Promise<Readonly<Record<string, string>>>;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as multipart/form-data, in this order. */
  readonly multipart?: Readonly<Record<string, string | File>>;
  /** Sent as application/x-www-form-urlencoded. */
  readonly form?: (objects: Objects) => Promise<Readonly<Record<string, string>>>;
  /** Whose credential it brings; default: an admin's. The user's is a session of its own, for what may end it. */
  readonly as?: "admin" | "user" | "client" | "nobody";
}

/** The first bytes of a WAVE file. */
const RIFF = new Uint8Array([...new TextEncoder().encode("RIFF\0\0\0\0WAVEfmt "), ...new Uint8Array(32)]);
const QUESTION = [{ role: "user", content: "hello" }];

/** For each route, with the ids of a model that embeds and of one that does all else. */
export function goodCalls(embeds: string, general: string): Readonly<Record<string, GoodCall>> {
  const model = () => Promise.resolve({ id: embeds });
  return {
    "GET /v1/models": {},
    "GET /v1/models/{id}": { at: model },
    "POST /v1/embeddings": { json: { model: embeds, input: "some words" } },
    "POST /v1/chat/completions": { json: { model: general, messages: QUESTION } },
    "POST /v1/completions": { json: { model: general, prompt: "hello" } },
    "POST /v1/responses": { json: { model: general, input: "hello" } },
    "POST /v1/moderations": { json: { model: general, input: "hello" } },
    "POST /v1/rerank": { json: { model: general, query: "a", documents: ["b"] } },
    "POST /v1/audio/speech": { json: { model: general, input: "hello", voice: "alloy" } },
    "POST /v1/audio/transcriptions": {
      multipart: { model: general, file: new File([RIFF], "a.wav", { type: "audio/wav" }) },
    },
    "POST /v1/images/generations": { json: { model: general, prompt: "a house" } },
    "POST /v1/messages": { json: { model: general, max_tokens: 5, messages: QUESTION } },
    "POST /v1/messages/count_tokens": { json: { model: general, messages: QUESTION } },
    "GET /v2": {},
    "GET /v2/health/live": { as: "nobody" },
    "GET /v2/health/ready": { as: "nobody" },
    "GET /v2/models/{id}": { at: model },
    "GET /v2/models/{id}/ready": { at: model },
    "POST /v2/models/{id}/infer": {
      at: model,
      json: { inputs: [{ name: "text", shape: [1], datatype: "BYTES", data: ["some words"] }] },
    },
    "POST /v1/auth/login": { as: "nobody", json: { username: "admin", password: PASSWORD } },
    "POST /v1/auth/logout": { as: "user", status: 204 },
    "GET /v1/auth/sessions": { as: "user" },
    "DELETE /v1/auth/sessions": { as: "user" },
    "DELETE /v1/auth/sessions/{id}": { at: (objects) => objects.session(), status: 204 },
    "POST /v1/auth/password": {
      as: "user",
      json: { current_password: PASSWORD, new_password: "a tram of seventeen lanterns" },
      status: 204,
    },
    "GET /v1/keys": {},
    "POST /v1/keys": { json: { name: "a key" }, status: 201 },
    "GET /v1/keys/{id}": { at: (objects) => objects.key() },
    "DELETE /v1/keys/{id}": { at: (objects) => objects.key(), status: 204 },
    "POST /v1/keys/{id}/rotate": { at: (objects) => objects.key(), json: { grace_seconds: 60 } },
    "GET /v1/users": {},
    "POST /v1/users": {
      json: { username: "somebody", password: PASSWORD, roles: ["user"] },
      status: 201,
    },
    "GET /v1/users/{id}": { at: (objects) => objects.user() },
    "PATCH /v1/users/{id}": { at: (objects) => objects.user(), json: { roles: ["operator"] } },
    "DELETE /v1/users/{id}": { at: (objects) => objects.user(), status: 204 },
    "GET /v1/users/{id}/sessions": { at: (objects) => objects.user() },
    "DELETE /v1/users/{id}/sessions": { at: (objects) => objects.user() },
    "POST /v1/users/{id}/unlock": { at: (objects) => objects.user() },
    "GET /v1/teams": {},
    "POST /v1/teams": { json: { id: "some-team" }, status: 201 },
    "GET /v1/teams/{id}": { at: (objects) => objects.team() },
    "PATCH /v1/teams/{id}": { at: (objects) => objects.team(), json: { description: "of a test" } },
    "DELETE /v1/teams/{id}": { at: (objects) => objects.team(), status: 204 },
    "GET /v1/roles": {},
    "GET /v1/roles/{team}/{name}": { at: (objects) => objects.role() },
    "PUT /v1/roles/{team}/{name}": { at: (objects) => objects.role(), json: { grants: ["key:read/own"] } },
    "DELETE /v1/roles/{team}/{name}": { at: (objects) => objects.role(), status: 204 },
    "GET /v1/clients": {},
    "POST /v1/clients": {
      json: { name: "a client", roles: ["user"], authentication: "secret" },
      status: 201,
    },
    "GET /v1/clients/{id}": { at: (objects) => objects.client() },
    "PATCH /v1/clients/{id}": { at: (objects) => objects.client(), json: { name: "another name" } },
    "DELETE /v1/clients/{id}": { at: (objects) => objects.client(), status: 204 },
    "POST /v1/clients/{id}/rotate": { at: (objects) => objects.client(), json: { grace_seconds: 60 } },
    "GET /v1/signing-keys": {},
    "POST /v1/signing-keys/rotate": { status: 201 },
    "GET /v1/usage": {},
    "GET /v1/usage/totals": {},
    "GET /v1/bans": {},
    "POST /v1/bans": { json: { address: "203.0.113.9", seconds: 60, note: "of a test" }, status: 201 },
    "DELETE /v1/bans/{id}": { at: (objects) => objects.ban(), status: 204 },
    "GET /admin/v1/models": {},
    "GET /admin/v1/audit": {},
    "GET /admin/v1/audit/export": {},
    "GET /admin/v1/audit/checkpoint": {},
    "GET /admin/v1/audit/keys": {},
    // In this order: the calls after them find it enabled.
    "POST /admin/v1/models/{id}/disable": { at: model },
    "POST /admin/v1/models/{id}/enable": { at: model },
    // By default nothing is kept.
    "GET /admin/v1/requests/{id}/payload": {
      at: () => Promise.resolve({ id: `req_${"0".repeat(26)}` }),
      status: 404,
    },
    "DELETE /admin/v1/subjects/{id}/payload-key": {
      at: () => Promise.resolve({ id: `usr_${"0".repeat(26)}` }),
      status: 404,
    },
    "GET /admin/v1/vault": {},
    "POST /admin/v1/vault/rotate": { status: 202 },
    "POST /oauth2/token": {
      as: "client",
      form: () => Promise.resolve({ grant_type: "client_credentials" }),
    },
    "POST /oauth2/revoke": { as: "client", form: clientToken },
    "POST /oauth2/introspect": { as: "client", form: clientToken },
    "GET /.well-known/oauth-authorization-server": { as: "nobody" },
    "GET /.well-known/oauth-protected-resource": { as: "nobody" },
    "GET /healthz": { as: "nobody" },
    "GET /readyz": { as: "nobody" },
    "GET /.well-known/jwks.json": { as: "nobody" },
    "GET /openapi.json": { as: "nobody" },
  };
}

async function clientToken(objects: Objects): Promise<Readonly<Record<string, string>>> {
  return { token: (await objects.client()).token };
}

/** A call as it is sent. */
export interface Call {
  readonly path: string;
  readonly init: RequestInit;
}

/**
 * The call of a route, its objects made.
 *
 * @param name method and path, as in the table
 */
export async function prepare(
  name: string,
  call: GoodCall,
  objects: Objects,
  adminToken: string,
): Promise<Call> {
  const [method = "", template = ""] = name.split(" ");
  const places = await call.at?.(objects) ?? {};
  const headers = new Headers();
  const { as = "admin" } = call;
  if (as === "admin") headers.set("authorization", `Bearer ${adminToken}`);
  if (as === "user") headers.set("authorization", `Bearer ${(await objects.user()).token}`);
  if (as === "client") headers.set("authorization", (await objects.client()).basic);
  return {
    path: template.replace(/\{(\w+)\}/g, (_, place) => places[place] ?? ""),
    init: { method, headers, ...await bodyOf(call, objects, headers) },
  };
}

async function bodyOf(
  { json, multipart, form }: GoodCall,
  objects: Objects,
  headers: Headers,
): Promise<{ body?: BodyInit }> {
  if (json !== undefined) {
    headers.set("content-type", "application/json");
    return { body: JSON.stringify(json) };
  }
  if (form !== undefined) {
    headers.set("content-type", "application/x-www-form-urlencoded");
    return { body: new URLSearchParams(await form(objects)).toString() };
  }
  if (multipart === undefined) return {};
  const fields = new FormData();
  for (const [name, value] of Object.entries(multipart)) fields.append(name, value);
  const encoded = new Request("http://x/", { method: "POST", body: fields });
  headers.set("content-type", encoded.headers.get("content-type") ?? "");
  return { body: await encoded.bytes() };
}

/** One object of each kind, made when it is asked for the first time. */
export interface Objects {
  /** With a token of its own session. */
  user(): Promise<{ readonly id: string; readonly token: string }>;
  /** Another session of that user. */
  session(): Promise<{ readonly id: string }>;
  /** An admin's. */
  key(): Promise<{ readonly id: string }>;
  /** With all that an admin may do. */
  client(): Promise<{ readonly id: string; readonly basic: string; readonly token: string }>;
  role(): Promise<{ readonly team: string; readonly name: string }>;
  team(): Promise<{ readonly id: string }>;
  /** Of an address that nobody has. */
  ban(): Promise<{ readonly id: string }>;
}

let made = 0;

/**
 * Objects of a server.
 *
 * @param team whose they are; where it is not the default one, the key is its user's, for an admin is of none other
 */
export function openObjects(send: Send, adminToken: string, team = "default"): Objects {
  const post = async (path: string, body: unknown, token = adminToken, method = "POST") =>
    await answerOf(
      await send(path, {
        method,
        headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
        body: JSON.stringify(body),
      }),
    );
  const signIn = async (username: string): Promise<string> =>
    (await post("/v1/auth/login", { username, password: PASSWORD })).access_token;
  const account = once(async () => {
    const username = `made-${made++}`;
    const { id } = await post("/v1/users", { username, password: PASSWORD, roles: ["user"], team });
    return { id, username };
  });
  const user = once(async () => {
    const { id, username } = await account();
    return { id, token: await signIn(username) };
  });
  return {
    user,
    session: once(async () => {
      const { token } = await user();
      await signIn((await account()).username);
      const list = await answerOf(
        await send("/v1/auth/sessions", { headers: { authorization: `Bearer ${token}` } }),
      );
      return { id: list.data.find(({ current }) => !current)?.id ?? "" };
    }),
    key: once(async () => {
      const owner = team === "default" ? {} : { owner: (await user()).id };
      const { id } = await post("/v1/keys", { name: "a key", ...owner });
      return { id };
    }),
    client: once(async () => {
      const order = { name: "a client", roles: ["admin"], authentication: "secret", team };
      const { id, secret } = await post("/v1/clients", order);
      const basic = `Basic ${btoa(`${id}:${secret}`)}`;
      const { access_token: token } = await answerOf(
        await send("/oauth2/token", {
          method: "POST",
          headers: { authorization: basic, "content-type": "application/x-www-form-urlencoded" },
          body: "grant_type=client_credentials",
        }),
      );
      return { id, basic, token };
    }),
    role: once(async () => {
      const name = `made-${made++}`;
      await post(`/v1/roles/${team}/${name}`, { grants: ["key:read/own"] }, adminToken, "PUT");
      return { team, name };
    }),
    team: once(async () => {
      const { id } = await post("/v1/teams", { id: `made-${made++}` });
      return { id };
    }),
    ban: once(async () => {
      const address = `2001:db8:0:${(made++).toString(16)}::1`;
      const { id } = await post("/v1/bans", { address, seconds: 60 });
      return { id };
    }),
  };
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => made ??= make();
}

/** What answers hold of which calls are made. */
interface Made {
  readonly id: string;
  readonly secret: string;
  readonly access_token: string;
  readonly data: readonly { readonly id: string; readonly current: boolean }[];
}

async function answerOf(response: Response): Promise<Made> {
  const answer = await response.json();
  ok(response.ok, `cannot make what a call needs: ${response.status} ${JSON.stringify(answer)}`);
  return answer;
}
