// The OAuth door under test: its routes behind the real gate, over the real parts of identity, a store in memory and a clock moved by
// hand.
import { openIdentity } from "../../../src/assembly/identity.ts";
import type { Opened } from "../../../src/assembly/trust.ts";
import { memoryAuditTrail } from "../../../src/audit/memory_audit_trail.ts";
import type { Config } from "../../../src/config/config.ts";
import { PLAIN_SUBJECTS } from "../../../src/audit/subject_labels.ts";
import { createApp, type GateParts } from "../../../src/http/app.ts";
import { challenges } from "../../../src/http/challenge.ts";
import { rateTiers } from "../../../src/http/middleware/rate_tiers.ts";
import { standardHeaders } from "../../../src/http/middleware/standard_headers.ts";
import { oauthRoutes } from "../../../src/http/oauth/oauth_routes.ts";
import { thumbprint } from "../../../src/identity/public_key.ts";
import { NO_BANS, NO_PRESSURE, openLimiterUnderTest } from "../../support/limits_under_test.ts";
import type { ChangeFeed } from "../../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../../src/store/record_store.ts";
import { openLog } from "../../../src/telemetry/log.ts";
import { type KeyRing, openKeyRing } from "../../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../../src/vault/master_key.ts";
import { type ForeignKey, makeForeignKey } from "../../identity/foreign_key.ts";
import { forgeToken } from "../../identity/forge_token.ts";
import { responseOf } from "../../support/app_under_test.ts";
import { type ManualClock, manualClock } from "../../support/manual_clock.ts";
import { trustOver } from "../../support/trust_over.ts";
import { basic, type Form, type JsonAnswer } from "./oauth_messages.ts";

export const ISSUER = "https://ai.example.com";
export const TOKEN_TTL_SECONDS = 300;
export const SESSION_TTL_SECONDS = 86_400;
export const TOKEN_URL = "/oauth2/token";
export const REVOKE_URL = "/oauth2/revoke";
export const INTROSPECT_URL = "/oauth2/introspect";
export const ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/** What survives a restart. */
interface Matter {
  readonly clock: ManualClock;
  readonly store: RecordStore;
  readonly keyRing: KeyRing;
}

async function makeMatter(): Promise<Matter> {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  return {
    clock,
    store,
    keyRing: await openKeyRing(store, localMasterKey(parseMasterKey(generateMasterKey())), clock),
  };
}

/**
 * Opens it.
 *
 * @param options.tokenRatePerMinute of the tier that clients are under
 * @param before for a restart, or another instance: what was open before
 */
export async function openOauthUnderTest(
  { tokenRatePerMinute = 1_000_000, externalIssuers = [] as readonly string[] } = {},
  before?: Matter,
  feed?: ChangeFeed,
) {
  const { clock, store, keyRing } = before ?? await makeMatter();
  const trail = memoryAuditTrail();
  const logText: string[] = [];
  const log = openLog({
    level: "debug",
    clock,
    sink: (bytes) => {
      logText.push(new TextDecoder().decode(bytes));
      return Promise.resolve(bytes.length);
    },
  });
  const settings: Partial<Config> = {
    publicUrl: ISSUER,
    tokenTtlSeconds: TOKEN_TTL_SECONDS,
    sessionTtlSeconds: SESSION_TTL_SECONDS,
    signingKey: undefined,
    issuers: [],
  };
  const opened: Opened = [];
  const identity = await openIdentity(
    trustOver({ store, keyRing, trail, feed }),
    settings as Config,
    clock,
    log,
    opened,
  );
  const eventsOfOpening = trail.events.length;
  const gate: GateParts = {
    ...identity,
    clock,
    log,
    trail,
    challenge: challenges(ISSUER),
    limiter: openLimiterUnderTest(clock),
    pressure: NO_PRESSURE,
    banWatch: NO_BANS,
    rateTiers: rateTiers({
      rateAddressPerMinute: 1_000_000,
      rateSignInPerMinute: 1_000_000,
      rateTokenPerMinute: tokenRatePerMinute,
      rateUserPerMinute: 1_000_000,
    }),
    standardHeaders: standardHeaders(ISSUER, []),
    bodyBounds: { bodyBytesMax: 1_000_000, bodyTimeoutMs: 5000 },
    bodiesBytesMax: 10_000_000,
    allowedHosts: new Set(["ai.example.com"]),
    trustedProxies: [],
    labelAddress: (address) => address,
    subjects: PLAIN_SUBJECTS,
  };
  const routes = oauthRoutes({ ...identity, clock, issuer: ISSUER, externalIssuers });
  const app = createApp(gate, routes);

  async function call(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has("host")) headers.set("host", "ai.example.com");
    const request = new Request(`http://ai.example.com${path}`, { ...init, headers });
    const answer = await app(request, { remoteAddr: { hostname: "192.0.2.1" } });
    await log.flush(); // nothing is left of a call when a test ends
    return responseOf(answer);
  }
  async function post(
    path: string,
    form: Form | string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<JsonAnswer> {
    const response = await call(path, {
      method: "POST",
      headers: { "content-type": "application/x-www-form-urlencoded", ...headers },
      body: typeof form === "string" ? form : new URLSearchParams(form).toString(),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text === "" ? {} : JSON.parse(text) };
  }

  return {
    ...identity,
    clock,
    store,
    keyRing,
    trail,
    routes,
    call,
    post,
    /** What was logged so far. */
    logged: () => logText.join(""),
    /** A client with a secret; `by` is the header that proves it. */
    async secretClient(roles: readonly string[], team = "default") {
      const { client, secret } = await identity.clients.create({
        name: `client ${roles.join(" ")}`,
        team,
        roles,
        authentication: "secret",
        keys: [],
      });
      return { client, secret: secret ?? "", by: basic(client.id, secret ?? "") };
    },
    async keyClient(roles: readonly string[], key: ForeignKey) {
      const { client } = await identity.clients.create({
        name: "client with a key",
        team: "default",
        roles,
        authentication: "private_key_jwt",
        keys: [{ ...key.publicJwk, alg: "ES256" }],
      });
      return client;
    },
    /** Somebody who is signed in. */
    async session(roles: readonly string[], { boundTo = null as string | null, team = "default" } = {}) {
      const username = `user-${people++}`;
      const user = await identity.users.create({ username, password: PASSWORD, roles, team });
      const { session, refreshToken } = await identity.sessions.open({
        userId: user.id,
        network: "192.0.2.1",
        boundTo,
      });
      return { user, session, refreshToken };
    },
    async team(id: string): Promise<void> {
      await identity.teams.create({ id, description: "", createdAtMs: clock.now() });
    },
    /** Whether a token opens the gate. */
    async opens(authorization: string, proof: string | null = null): Promise<boolean> {
      const recognised = await identity.authenticate({
        authorization,
        proof,
        method: "GET",
        path: "/v1/models",
        address: [192, 0, 2, 1],
      });
      return recognised.ok;
    },
    /** The events of a type, or all of them, since the opening. */
    events: (type?: string) =>
      trail.events.slice(eventsOfOpening).filter((event) => type === undefined || event.type === type),
    async close() {
      while (opened.length > 0) await opened.pop()?.();
    },
  };
}
export type OauthUnderTest = Awaited<ReturnType<typeof openOauthUnderTest>>;

const PASSWORD = "correct horse battery staple";
let people = 0;
let numbers = 0;

/** Opens it, and closes it after a test. */
export async function withOauth(
  test: (oauth: OauthUnderTest) => Promise<void>,
  options: Parameters<typeof openOauthUnderTest>[0] = {},
): Promise<void> {
  const oauth = await openOauthUnderTest(options);
  try {
    await test(oauth);
  } finally {
    await oauth.close();
  }
}

/** An assertion of a client's, right unless changed. */
export function assertionOf(
  { clock }: OauthUnderTest,
  clientId: string,
  key: ForeignKey,
  changed: Readonly<Record<string, unknown>> = {},
): Form {
  const claims = {
    iss: clientId,
    sub: clientId,
    aud: ISSUER,
    jti: `assertion-${numbers++}`,
    exp: Math.floor(clock.now() / 1000) + 60,
    ...changed,
  };
  return {
    client_assertion_type: ASSERTION_TYPE,
    client_assertion: forgeToken({ alg: "ES256" }, claims, key.signer),
  };
}

/** A holder of a key that proves it. */
export async function openHolder({ clock, proofs }: OauthUnderTest) {
  const key = makeForeignKey("ES256");
  const id = await thumbprint(key.publicJwk);
  return {
    thumbprint: id.ok ? id.value : "",
    /** A proof, right for the token endpoint unless changed. */
    proof(changed: Readonly<Record<string, unknown>> = {}): string {
      const claims = {
        jti: `proof-${numbers++}`,
        htm: "POST",
        htu: `${ISSUER}${TOKEN_URL}`,
        iat: Math.floor(clock.now() / 1000),
        nonce: proofs.nonce(),
        ...changed,
      };
      return forgeToken({ typ: "dpop+jwt", alg: "ES256", jwk: key.publicJwk }, claims, key.signer);
    },
  };
}
