// The access matrix: every route × every role × every kind of credential × whose the object is. What is expected is worked out from
// tables that are written by hand and know nothing of the code that decides.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  accountOnes,
  CARDS,
  distanceOf,
  expected,
  GOOD_CALLS,
  GRANTS,
  reachOf,
  roleOnes,
  ROLES,
  type Rule,
  RULES,
  SEES,
  teamOnes,
  userOnes,
  USES,
} from "./access_rules.ts";
import { eventMistake } from "../support/known_event.ts";
import { type GoodCall, type Objects, prepare } from "./good_calls.ts";
import {
  type Caller,
  type MatrixWorld,
  type ObjectKind,
  openMatrixWorld,
  OTHER_TEAM,
  type Relation,
  TEAM,
} from "./matrix_world.ts";

Deno.test("every route × role × kind of credential × whose the object is: the status is the one of the tables", async (test) => {
  const world = await openMatrixWorld(ROLES, (GRANTS.keeper ?? "").split(" "));
  let cells = 0;
  try {
    const protectedRoutes = world.app.portcullis.routes.filter(({ policy }) => policy.kind === "action");
    deepStrictEqual(
      Object.entries(RULES).map(([name, { action }]) => `${name} ${action}`).sort(),
      protectedRoutes.map(({ method, path, policy }) =>
        `${method} ${path} ${policy.kind === "action" ? policy.action : ""}`
      ).sort(),
    );
    for (const role of ROLES) {
      await test.step(role, async () => {
        const wrong: string[] = [];
        const check = (where: string, wanted: unknown, got: unknown, text = ""): void => {
          cells++;
          const [one, other] = [JSON.stringify(wanted), JSON.stringify(got)];
          if (one !== other) wrong.push(`${where}: ${one} expected, ${other} ${text}`);
        };
        for (const caller of await world.callers(role)) {
          for (const [name, rule] of Object.entries(RULES)) {
            for (const [object, relation] of objectsOf(rule, caller)) {
              const { status, text } = await ask(world, name, rule, caller, object, relation);
              const where = `${caller.credential}: ${name} of ${relation ?? object}`;
              check(where, expected(name, rule, caller, relation, object), status, text);
            }
          }
          await checkLists(world, caller, check);
          await checkUsage(world, caller, check);
        }
        await checkIntrospection(world, role, check);
        deepStrictEqual(wrong, []);
      });
    }
    await test.step("routes for everyone", async () => {
      const open = world.app.portcullis.routes.filter(({ policy }) => policy.kind === "public");
      const [somebody] = await world.callers("none");
      ok(somebody);
      for (const { method, path } of open) {
        const credentials: readonly Record<string, string>[] = [
          {},
          { authorization: "Bearer x" },
          await world.headersOf(somebody, method, path),
        ];
        for (const headers of credentials) {
          cells++;
          strictEqual((await world.app.call(path, { headers })).status, 200, path);
        }
      }
    });
    // Of the thousands of events of all routes, each is as docs/audit.md has it.
    deepStrictEqual([...new Set(world.app.auditEvents().map(eventMistake))], [undefined]);
    strictEqual(cells, CELLS);
  } finally {
    await world.close();
  }
});

type Check = (where: string, wanted: unknown, got: unknown, text?: string) => void;

/** Lists hold what a caller may read, and nothing else. */
async function checkLists(
  { app, headersOf, placeOf }: MatrixWorld,
  caller: Caller,
  check: Check,
): Promise<void> {
  const lists: readonly (readonly [string, ObjectKind, readonly Relation[]])[] = [
    ["/v1/users", "user", accountOnes],
    ["/v1/clients", "client", accountOnes],
    ["/v1/keys", "key", userOnes],
    ["/v1/teams", "team", teamOnes],
    ["/v1/roles", "role", roleOnes],
  ];
  for (const [path, kind, relations] of lists) {
    const here = relations.filter((relation) => relation !== "own" || hasOwn(kind, caller));
    const places = await Promise.all(here.map((relation) => placeOf(kind, relation, caller)));
    const headers = await headersOf(caller, "GET", path);
    const response = await app.call(`${path}?limit=200`, { headers });
    const reach = reachOf(caller.role, `${kind}:read`);
    check(`${caller.credential}: list ${path}`, reach === 0 ? 403 : 200, response.status);
    const { data = [], next = null } = await response.json();
    strictEqual(next, null);
    const listed = new Set(
      data.map(({ id, team, name }: Record<string, string | null>) => id ?? `${team ?? "-"} ${name}`),
    );
    const seen = here.filter((relation) => reach >= distanceOf(caller, relation, true));
    const found = here.filter((_, at) =>
      listed.has(places[at]?.id ?? `${places[at]?.team} ${places[at]?.name}`)
    );
    check(`${caller.credential}: what ${path} lists`, seen, found);
  }
  const models = await app.call("/v1/models", { headers: await headersOf(caller, "GET", "/v1/models") });
  const { data = [] } = await models.json();
  const ids = data.map(({ id }: { id: string }) => id);
  const all = [...CARDS, "generalist"];
  check(`${caller.credential}: models`, SEES[caller.role] ?? [], all.filter((id) => ids.includes(id)));
}

/** Sums of usage are of what a caller may read. By now every caller who may use a model has used one. */
async function checkUsage(
  { app, headersOf, used }: MatrixWorld,
  caller: Caller,
  check: Check,
): Promise<void> {
  const path = "/v1/usage/totals";
  const response = await app.call(`${path}?limit=200`, { headers: await headersOf(caller, "GET", path) });
  const { data = [] } = await response.json();
  const subjects = data.map(({ by }: { by: { subject: string } }) => by.subject);
  const reach = reachOf(caller.role, "usage:read");
  const whose = [[1, caller.subject], [2, used.team], [3, used.other]] as const;
  check(
    `${caller.credential}: whose usage is seen`,
    whose.map(([distance]) => reach >= distance && (distance > 1 || USES[caller.role] !== undefined)),
    whose.map(([, subject]) => subjects.includes(subject)),
  );
}

/** `POST /oauth2/introspect`, where a client's roles say of whose tokens it is told anything. */
async function checkIntrospection(world: MatrixWorld, role: string, check: Check): Promise<void> {
  const { app, callers, placeOf, tokenOf } = world;
  const { clients } = app.portcullis.identity;
  const client = (await callers(role)).find(({ credential }) => credential === "client token");
  const found = await clients.read(client?.subject ?? "");
  ok(client !== undefined && found !== undefined);
  const headers = new Headers({ "content-type": "application/x-www-form-urlencoded" });
  headers.set(
    "authorization",
    `Basic ${btoa(`${client.subject}:${(await clients.rotateSecret(found, 60))?.secret}`)}`,
  );
  for (const relation of accountOnes) {
    const { id } = await placeOf(relation === "own" ? "client" : "user", relation, client);
    const body = new URLSearchParams({ token: await tokenOf(id ?? "") }).toString();
    const response = await app.call("/oauth2/introspect", { method: "POST", headers, body });
    const reach = reachOf(role, "token:introspect");
    const wanted = reach === 0 ? [403, null] : [200, reach >= distanceOf(client, relation, true)];
    check(`introspect ${relation}`, wanted, [response.status, (await response.json()).active ?? null]);
  }
}

/** What is tried: a model's id, or whose the object is. */
function objectsOf(
  { models, kind, relations, named = "" }: Rule,
  caller: Caller,
): readonly [string, Relation | undefined][] {
  if (models !== undefined) return models.map((model) => [model, undefined]);
  if (relations === undefined) return [[named, undefined]];
  return relations.filter((relation) => relation !== "own" || hasOwn(kind, caller))
    .map((relation) => [relation === "other" ? OTHER_TEAM : TEAM, relation]);
}

/** A client is no user, has no session, and the other way round. */
function hasOwn(kind: ObjectKind | undefined, { credential }: Caller): boolean {
  if (kind === "client") return credential === "client token";
  return kind === "key" || credential !== "client token";
}

async function ask(
  { app, headersOf, placeOf }: MatrixWorld,
  name: string,
  { kind, json, inBody }: Rule,
  caller: Caller,
  object: string,
  relation: Relation | undefined,
): Promise<{ status: number; text: string }> {
  const place = kind !== undefined && relation !== undefined
    ? await placeOf(kind, relation, caller)
    // What belongs to nobody is named by the good call itself.
    : object === ""
    ? await GOOD_CALLS[name]?.at?.(NO_OBJECTS) ?? {}
    : { id: object };
  const good = GOOD_CALLS[name];
  ok(good);
  const body = json?.(caller, inBody === true ? place.id ?? "" : object) ?? good.json;
  const call: GoodCall = {
    ...good,
    as: "nobody",
    at: () => Promise.resolve(place),
    ...(body === undefined ? {} : { json: body }),
  };
  const { path, init } = await prepare(name, call, NO_OBJECTS, "");
  const headers = new Headers(init.headers);
  for (const [key, value] of Object.entries(await headersOf(caller, init.method ?? "", path))) {
    headers.set(key, value);
  }
  const response = await app.call(path, { ...init, headers });
  return { status: response.status, text: `${response.status} ${await response.text()}` };
}

/** Each place of the calls is given. */
const NO_OBJECTS = {} as Objects;

/** So that none is lost. */
const CELLS = 4924;
