// Handlers under test: the account and admin routes over real parts in memory, called as the gate calls them once it knows
// who asks: the route's action, its query, its body, its handler.
import { parseGrant } from "../../../src/access/grant.ts";
import type { Credential, Principal } from "../../../src/access/principal.ts";
import type { AuditEvent } from "../../../src/audit/audit_event.ts";
import { openIdentity } from "../../../src/assembly/identity.ts";
import { parseConfig } from "../../../src/config/config.ts";
import type { AuditArchive } from "../../../src/audit/archive/audit_archive.ts";
import { memoryAuditTrail } from "../../../src/audit/memory_audit_trail.ts";
import { openPayloadKeys } from "../../../src/audit/payload/payload_keys.ts";
import { RequestRecord } from "../../../src/audit/request_record.ts";
import { PLAIN_SUBJECTS } from "../../../src/audit/subject_labels.ts";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { newId } from "../../../src/encoding/ids.ts";
import { clientNetwork, parseAddress, parseAddressRange } from "../../../src/encoding/ip_address.ts";
import { Fault, type FaultKind, toFault } from "../../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../../src/faults/fault_table.ts";
import { accountRoutes } from "../../../src/http/account/account_routes.ts";
import { adminRoutes } from "../../../src/http/admin/admin_routes.ts";
import type { Exchange } from "../../../src/http/exchange.ts";
import { parseFields } from "../../../src/http/middleware/parse_fields.ts";
import { parseQuery } from "../../../src/http/middleware/parse_query.ts";
import { requireAccess } from "../../../src/http/require_access.ts";
import type { AnyRoute } from "../../../src/http/route.ts";
import type { Client } from "../../../src/identity/clients.ts";
import type { User } from "../../../src/identity/users.ts";
import { openBanList } from "../../../src/limits/ban_list.ts";
import { type LimitPolicy, readyPolicies } from "../../../src/limits/limit_policy.ts";
import { openLimiter } from "../../../src/limits/limiter.ts";
import { openMemoryLimitStore } from "../../../src/limits/memory_limit_store.ts";
import { NO_OTHERS } from "../../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../../src/store/memory_record_store.ts";
import { openKeyRing } from "../../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../../src/vault/master_key.ts";
import type { ModelAdminParts } from "../../../src/http/admin/model_routes.ts";
import { openVaultRotation } from "../../../src/vault/rotation.ts";
import { sealedTable } from "../../../src/vault/sealed_store.ts";
import { openLog } from "../../../src/telemetry/log.ts";
import { manualClock } from "../../support/manual_clock.ts";

export const ISSUER = "https://ai.example.com";
export const PASSWORD = "correct horse battery staple";
export const OTHER_PASSWORD = "nine lives of a grey cat";
export const SESSION_TTL_SECONDS = 86_400;
export const TOKEN_TTL_SECONDS = 600;
/** An id of the right form behind which nothing is. */
export const NOBODY = "0".repeat(26);

/** What came of a call: an answer or a refusal. */
export interface Called {
  readonly status: number;
  /** Of a refusal: which. */
  readonly fault?: FaultKind;
  readonly detail?: string;
  /** JSON Pointers of the fields that were refused. */
  readonly fields?: readonly string[];
  // deno-lint-ignore no-explicit-any -- what tests look into
  readonly body?: any;
  readonly headers: Readonly<Record<string, string>>;
  /** What the call left in the trail. */
  readonly events: readonly AuditEvent[];
}

/** The trail is in memory here: audit routes are tested over the real one, in audit_routes_test.ts. */
const NO_ARCHIVE: AuditArchive = {
  page: refuseArchive,
  export: refuseArchive,
  newestCheckpoint: refuseArchive,
  verifierKeys: refuseArchive,
  close: () => Promise.resolve(),
};

function refuseArchive(): Promise<never> {
  return Promise.reject(new Fault("unavailable", "Cannot search the audit trail: it is in memory"));
}

/** There are none here: model routes are tested over the real catalog, in model_routes_test.ts. */
const NO_MODELS: ModelAdminParts["models"] = {
  standings: () => [],
  standing: () => undefined,
  enable: noModel,
  disable: noModel,
};

function noModel(): Promise<never> {
  return Promise.reject(new Fault("not_found", "Cannot find a model: there are none"));
}

export type World = Awaited<ReturnType<typeof openWorld>>;

/** A server without its gate: teams `red` and `blue`, and nobody in them yet. */
export async function openWorld(policies: readonly LimitPolicy[] = []) {
  const clock = manualClock();
  const memory = openMemoryRecordStore(clock);
  const store = { ...memory };
  const keyRing = await openKeyRing(store, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  const trail = memoryAuditTrail();
  const config = parseConfig({
    variables: {
      PORTCULLIS_PUBLIC_URL: ISSUER,
      PORTCULLIS_TOKEN_TTL_SECONDS: String(TOKEN_TTL_SECONDS),
      PORTCULLIS_SESSION_TTL_SECONDS: String(SESSION_TTL_SECONDS),
    },
    file: undefined,
    cores: 1,
    storeExists: () => false,
  });
  if (!config.ok) throw new Error(JSON.stringify(config.mistakes));
  const log = openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) });
  const trust = {
    store,
    keyRing,
    trail,
    feed: NO_OTHERS,
    redis: undefined,
    sums: undefined,
    alone: <Value>(act: () => Promise<Value>): Promise<Value> => act(),
  };
  const identity = await openIdentity(trust, config.config, clock, log, []);
  const limiter = openLimiter({
    store: openMemoryLimitStore(clock),
    local: openMemoryLimitStore(clock),
    degradedFraction: 1,
    clock,
    log,
  });
  const loopback = parseAddressRange("127.0.0.0/8");
  const bans = await openBanList({
    store,
    table: sealedTable(store, keyRing, "bans"),
    feed: NO_OTHERS,
    clock,
    log,
    exempt: loopback.ok ? [loopback.value] : [],
    firstSeconds: 86_400,
    secondSeconds: 604_800,
    labelNetwork: (network) => keyRing.pseudonym("address", network),
  });
  const parts = {
    ...identity,
    bans,
    labelAddress: (address: string) => keyRing.pseudonym("address", address),
    archive: NO_ARCHIVE,
    models: NO_MODELS,
    isModelReady: () => false,
    payloadKeys: openPayloadKeys({ store, keyRing, feed: NO_OTHERS, trail, clock, log }),
    subjects: PLAIN_SUBJECTS,
    issuer: ISSUER,
    limiter,
    policies: readyPolicies(policies),
    clock,
    labelAccount: (username: string) => keyRing.pseudonym("account", username),
    vault: await openVaultRotation({
      store,
      keyRing,
      master: localMasterKey(parseMasterKey(generateMasterKey())),
      clock,
      feed: NO_OTHERS,
      isShared: false,
      settleMs: 0,
      share: 1,
      recordKey: () => Promise.resolve(),
      onFault: () => {},
    }),
  };
  const { users, teams, roleBook } = identity;
  for (const id of ["red", "blue"]) await teams.create({ id, description: "", createdAtMs: clock.now() });
  const routes = [...accountRoutes(parts), ...adminRoutes(parts)];

  async function call(
    caller: Principal | undefined,
    method: AnyRoute["method"],
    target: string,
    body?: JsonValue,
    headers: Record<string, string> = {},
  ): Promise<Called> {
    const url = new URL(target, ISSUER);
    const { route, parameters } = findRoute(routes, method, url.pathname);
    const address = parseAddress("192.0.2.1");
    const record = new RequestRecord(trail, {
      request: newId("req", clock.now()),
      address: "192.0.2.1",
      route: `${route.method} ${route.path}`,
    });
    if (caller !== undefined) record.identify({ ...caller, credential: caller.credential.id });
    const exchange: Exchange = {
      id: "req",
      request: new Request(url, { method, headers }),
      receivedMs: clock.monotonic(),
      clientNetwork: address.ok ? clientNetwork(address.value) : "",
      address: address.ok ? address.value : [],
      parameters,
      record,
      limits: [],
      admitted: false,
      answerHeaders: {},
      query: route.query === undefined ? undefined : parseQuery(route.query, url.href),
      principal: caller,
    };
    const before = trail.events.length;
    const outcome = async (): Promise<Omit<Called, "headers" | "events">> => {
      try {
        if (caller !== undefined && route.policy.kind === "action") {
          requireAccess(caller, route.policy.action);
        }
        const fields = route.body === undefined ? undefined : parseFields(route.body, body ?? null);
        const answer = await route.handle(exchange, fields as never);
        if (route.answers[answer.status] === undefined) {
          throw new TypeError("the status is not in the description");
        }
        route.answers[answer.status]?.schema?.parse(answer.body);
        return { status: answer.status, body: answer.body };
      } catch (thrown) {
        const fault = toFault(thrown);
        if (fault.kind === "internal") throw thrown;
        const { detail, fields } = fault.details;
        return {
          status: FAULT_TABLE[fault.kind].status,
          fault: fault.kind,
          ...(detail === undefined ? {} : { detail }),
          ...(fields === undefined ? {} : { fields: fields.map(({ path }) => path) }),
        };
      }
    };
    return {
      ...await outcome(),
      headers: exchange.answerHeaders,
      events: trail.events.slice(before),
    };
  }

  return {
    ...parts,
    store,
    /** The same store, past what a test has put in its way. */
    memory,
    trail,
    routes,
    call,
    /** Makes a user, who is named so. */
    user: (username: string, roles: readonly string[], team = "red"): Promise<User> =>
      users.create({ username, password: PASSWORD, roles, team }),
    /** An account as the gate would see it at this moment. */
    as(
      { id, team, roles }: Pick<User | Client, "id" | "team" | "roles">,
      { scope, ...credential }: Partial<Credential> & { readonly scope?: readonly string[] } = {},
    ): Principal {
      return {
        issuer: ISSUER,
        subject: id,
        kind: id.startsWith("cli_") ? "client" : "user",
        team,
        roles,
        grants: roleBook.grantsOf(team, roles),
        scope: scope === undefined
          ? null
          : scope.map(parseGrant).flatMap((grant) => grant.ok ? [grant.value] : []),
        credential: {
          kind: "access_token",
          id: newId("tok", clock.now()),
          expiresAtSeconds: clock.now() / 1000 + TOKEN_TTL_SECONDS,
          session: null,
          boundTo: null,
          ...credential,
        },
      };
    },
    /** Somebody of another issuer. */
    external(roles: readonly string[], team = "red", subject = "somebody"): Principal {
      return {
        ...this.as({ id: subject, team, roles }),
        issuer: "https://login.example.org",
        kind: "external",
      };
    },
    /** Somebody else changes a record while the next call is under way: between its read and its write. */
    changeMeanwhile(change: () => Promise<unknown>): void {
      const { write } = store;
      store.write = async (changes) => {
        // What a sign-in counts beforehand is no record that anybody changes.
        if (changes.every(({ table }) => table.startsWith("lockout_"))) return await write(changes);
        store.write = write;
        await change();
        return await write(changes);
      };
    },
  };
}

function findRoute(
  routes: readonly AnyRoute[],
  method: string,
  path: string,
): { route: AnyRoute; parameters: Record<string, string> } {
  for (const route of routes) {
    const pattern = new RegExp(`^${route.path.replace(/\{(\w+)\}/g, "(?<$1>[^/]+)")}$`);
    const match = pattern.exec(path);
    if (route.method === method && match !== null) {
      const parameters = Object.entries(match.groups ?? {}).map((
        [name, value],
      ) => [name, decodeURIComponent(value)]);
      return { route, parameters: Object.fromEntries(parameters) };
    }
  }
  throw new TypeError(`there is no route ${method} ${path}`);
}

/** Kinds of events, in order. */
export function typesOf({ events }: Called): readonly string[] {
  return events.map(({ type }) => type);
}

/** Refusals in short. */
export function refusalOf({ status, fault, fields }: Called): readonly unknown[] {
  return fields === undefined ? [status, fault] : [status, fault, ...fields];
}
