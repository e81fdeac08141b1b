// Matrix world: an app with somebody of every role by every kind of credential, and objects of theirs, of their team and of another.
import { ok } from "node:assert/strict";
import { createHash } from "node:crypto";
import { parseGrant } from "../../src/access/grant.ts";
import { thumbprint } from "../../src/identity/public_key.ts";
import { makeForeignKey } from "../identity/foreign_key.ts";
import { forgeToken } from "../identity/forge_token.ts";
import { answerKeys, makeKey, startKeyServer } from "../identity/oidc/issuer_under_test.ts";
import {
  type AppUnderTest,
  openAppUnderTest,
  ORIGIN,
  PASSWORD,
  postJson,
} from "../support/app_under_test.ts";

/** How somebody shows who they are. */
export const CREDENTIALS = [
  "user token",
  "client token",
  "API key",
  "external token",
  "bound token",
] as const;
export type Credential = typeof CREDENTIALS[number];

/** What belongs to somebody. */
export type ObjectKind = "user" | "client" | "key" | "session" | "role" | "team" | "ban";

/** Whose an object is, as a caller sees it. `strong`: of the same team, and with more than most of its members have. */
export type Relation = "own" | "team" | "strong" | "other" | "server" | "built in";

/** Somebody. */
export interface Caller {
  readonly role: string;
  readonly credential: Credential;
  /** The account's id, or the `sub` of another issuer's token. */
  readonly subject: string;
}

/** The world. */
export interface MatrixWorld {
  readonly app: AppUnderTest;
  readonly issuer: string;
  callers(role: string): Promise<readonly Caller[]>;
  /** The headers of a request of theirs, with a credential that nobody used before. */
  headersOf(caller: Caller, method: string, path: string): Promise<Record<string, string>>;
  /** What stands in the braces of a path; made where it is not there, or not any more. */
  placeOf(kind: ObjectKind, relation: Relation, caller: Caller): Promise<Readonly<Record<string, string>>>;
  /** Who has used a model, besides callers: somebody of their team, and somebody of another. */
  readonly used: { readonly team: string; readonly other: string };
  /** A token of an account of this server. */
  tokenOf(subject: string): Promise<string>;
  close(): Promise<void>;
}

export const TEAM = "default";
export const OTHER_TEAM = "elsewhere";
/** What objects with roles have: little enough that whoever looks after keys may give it. */
const HOLDER = "holder";

/**
 * Opens it.
 *
 * @param keeper what the custom role of that name gives in the team
 */
export async function openMatrixWorld(
  roles: readonly string[],
  keeper: readonly string[],
): Promise<MatrixWorld> {
  const issuerKey = makeKey("key-1", "ES256");
  const keyServer = await startKeyServer();
  keyServer.plays(answerKeys(issuerKey));
  const issuer = `${keyServer.url}/staff`;
  const app = await openAppUnderTest({
    // Thousands of records in a row: a disk that is slow for once is not what is asked here.
    PORTCULLIS_AUDIT_TIMEOUT_MS: "60000",
    PORTCULLIS_ISSUERS: JSON.stringify([{
      issuer,
      jwksUrl: `${keyServer.url}/jwks`,
      team: TEAM,
      roles: Object.fromEntries(roles.map((role) => [role, [role]])),
    }]),
  });
  const { identity } = app.portcullis;
  const { users, clients, apiKeys, sessions, roleBook, teams } = identity;
  const holderKey = makeForeignKey("ES256");
  const print = await thumbprint(holderKey.publicJwk);
  const boundTo = print.ok ? print.value : "";
  let made = 0;

  const makeUser = async (team: string, roles: readonly string[]): Promise<string> =>
    (await users.create({ username: `user-${made++}`, password: PASSWORD, roles, team })).id;
  const makeClient = async (team: string, roles: readonly string[]): Promise<string> => {
    const order = { name: `client-${made++}`, team, roles, authentication: "secret", keys: [] } as const;
    return (await clients.create(order)).client.id;
  };
  const makeKeyOf = async (ownerId: string, scopes: readonly string[]) => {
    const expiresAtMs = Date.now() + 3_600_000;
    return await apiKeys.create({
      name: "a key",
      ownerId,
      scopes,
      addresses: [],
      boundTo: null,
      expiresAtMs,
      seenByOthers: false,
    });
  };
  const makeRole = async (team: string | null, name: string, texts: readonly string[]): Promise<void> => {
    const grants = texts.map(parseGrant).flatMap((grant) => grant.ok ? [grant.value] : []);
    ok(grants.length === texts.length);
    await roleBook.put({ team, name, description: "", grants, builtIn: false, createdAtMs: 0 }, undefined);
  };
  await teams.create({ id: OTHER_TEAM, description: "", createdAtMs: 0 });
  await makeRole(TEAM, "keeper", keeper);
  await makeRole(null, HOLDER, ["key:read/own", "key:write/own"]);

  const known = new Map<string, string>();
  /** The id of something that is there. */
  async function standing(
    name: string,
    make: () => Promise<string>,
    read: (id: string) => Promise<unknown> = () => Promise.resolve(true),
  ): Promise<string> {
    const id = known.get(name);
    if (id !== undefined && await read(id) !== undefined) return id;
    const next = await make();
    known.set(name, next);
    return next;
  }
  const rolesOf = (role: string): string[] => role === "none" ? [] : [role];
  const twinOf = (role: string): Promise<string> =>
    standing(`twin ${role}`, () => makeUser(TEAM, [HOLDER]), users.read);
  /** Who has what is not the caller's. */
  const ownerOf = (relation: Relation): Promise<string> =>
    standing(
      `user ${relation}`,
      () => makeUser(relation === "other" ? OTHER_TEAM : TEAM, relation === "strong" ? ["admin"] : [HOLDER]),
      users.read,
    );
  const tokenOf = async (subject: string, more: { boundTo?: string; clientId?: string } = {}) =>
    (await identity.accessTokens.issue({ subject, session: null, scope: null, boundTo: null, ...more }))
      .token;

  const makeUse = async (team: string): Promise<string> => {
    const subject = await makeUser(team, ["user"]);
    const body = { model: "open", input: "some words" };
    const response = await app.call("/v1/embeddings", postJson(body, await tokenOf(subject)));
    ok(response.ok, await response.text());
    return subject;
  };

  return {
    app,
    issuer,
    used: { team: await makeUse(TEAM), other: await makeUse(OTHER_TEAM) },
    tokenOf: (subject) => tokenOf(subject),
    async callers(role) {
      const user = await standing(`caller ${role}`, () => makeUser(TEAM, rolesOf(role)));
      const client = await standing(`client caller ${role}`, () => makeClient(TEAM, rolesOf(role)));
      // Another issuer may call somebody what we call somebody else: its subject is that of an account of ours.
      const twin = await twinOf(role);
      return CREDENTIALS.map((credential) => ({
        role,
        credential,
        subject: credential === "client token" ? client : credential === "external token" ? twin : user,
      }));
    },
    async headersOf({ role, credential, subject }, method, path) {
      // One rotation at a time: whoever may begin one finds none that runs.
      if (path === "/admin/v1/vault/rotate") await app.portcullis.rotation.whenIdle();
      const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
      if (credential === "user token") return bearer(await tokenOf(subject));
      if (credential === "client token") return bearer(await tokenOf(subject, { clientId: subject }));
      if (credential === "API key") {
        return bearer(
          await standing(`secret ${role}`, async () => (await makeKeyOf(subject, ALL_GRANTS)).text),
        );
      }
      const iat = Math.floor(Date.now() / 1000);
      if (credential === "external token") {
        const claims = {
          iss: issuer,
          aud: ORIGIN,
          sub: await twinOf(role),
          jti: `jti-${made++}`,
          iat,
          exp: iat + 600,
          roles: [role],
        };
        return bearer(forgeToken({ alg: "ES256", typ: "at+jwt", kid: "key-1" }, claims, issuerKey.sign));
      }
      const token = await tokenOf(subject, { boundTo });
      const proof = forgeToken({ typ: "dpop+jwt", alg: "ES256", jwk: holderKey.publicJwk }, {
        jti: `proof-${made++}`,
        htm: method,
        htu: `${ORIGIN}${path}`,
        iat,
        nonce: identity.proofs.nonce(),
        ath: createHash("sha256").update(token).digest("base64url"),
      }, holderKey.signer);
      return { authorization: `DPoP ${token}`, dpop: proof };
    },
    async placeOf(kind, relation, { credential, role, subject }) {
      const owner = relation !== "own"
        ? () => ownerOf(relation)
        : credential === "external token"
        ? () => twinOf(role)
        : () => Promise.resolve(subject);
      const team = relation === "other" ? OTHER_TEAM : TEAM;
      const name = `${kind} ${relation === "own" ? `${credential} ${role}` : relation}`;
      switch (kind) {
        case "user":
          return { id: await owner() };
        case "client": {
          const roles = relation === "strong" ? ["admin"] : [HOLDER];
          const id = relation === "own"
            ? subject
            : await standing(name, () => makeClient(team, roles), clients.read);
          return { id };
        }
        case "key": {
          const ownerId = await owner();
          const make = async () => (await makeKeyOf(ownerId, ["key:read/own"])).key.id;
          return { id: await standing(`${name} ${ownerId}`, make, apiKeys.read) };
        }
        case "session": {
          const order = { userId: await owner(), network: "192.0.2.1", boundTo: null };
          const make = async () => (await sessions.open(order)).session.id;
          return { id: await standing(`${name} ${order.userId}`, make, sessions.read) };
        }
        case "role": {
          if (relation === "built in") return { team: "-", name: "user" };
          const of = relation === "server" ? null : team;
          const role = `spare-${relation}`;
          if (roleBook.find(of, role) === undefined) await makeRole(of, role, ["key:read/own"]);
          return { team: of ?? "-", name: role };
        }
        case "team":
          if (relation === "team") return { id: TEAM };
          await teams.create({ id: "empty", description: "", createdAtMs: 0 });
          return { id: "empty" };
        case "ban": {
          const admin = (await users.findByName("admin"))?.id ?? "";
          const order = { address: `2001:db8:2:${(made++).toString(16)}::1`, seconds: 60 };
          const response = await app.call("/v1/bans", postJson(order, await tokenOf(admin)));
          return { id: (await response.json()).id };
        }
      }
    },
    async close() {
      await app.close();
      await keyServer.close();
    },
  };
}

/** A scope that takes nothing away. */
const ALL_GRANTS: readonly string[] = [
  "model:read",
  "model:infer",
  "upstream:read",
  "session:read",
  "session:end",
  "password:write",
  "key:read",
  "key:write",
  "user:read",
  "user:write",
  "client:read",
  "client:write",
  "role:read",
  "role:write",
  "team:read",
  "team:write",
  "token:introspect",
  "signing_key:rotate",
  "usage:read",
  "ban:read",
  "ban:write",
  "payload:read",
  "payload:destroy",
  "audit:read",
  "vault:rotate",
  "model:write",
];
