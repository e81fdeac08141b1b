// Team routes: the tenants of this server.
import { z } from "@hono/zod-openapi";
import type { Action } from "../../access/action.ts";
import { decide } from "../../access/decide.ts";
import { Fault } from "../../faults/fault.ts";
import type { Kept } from "../../identity/kept.ts";
import { DEFAULT_TEAM, type Team } from "../../identity/teams.ts";
import { changedMeanwhile, inSeconds, teamResource } from "../administer.ts";
import { type Exchange, principalOf } from "../exchange.ts";
import { OBJECT_BYTES_MAX, objectDescription, seconds, teamId } from "../object_fields.ts";
import { pageOf, pageQuery, pageSchema, readPage } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import { hasMembers } from "./team_members.ts";

const teamSchema = z.strictObject({ id: z.string(), description: z.string(), created_at: seconds });

const common = { dialect: problemDialect, rated: true } as const;
const READ = { kind: "action", action: "team:read" } as const;
const WRITE = { kind: "action", action: "team:write" } as const;

/** Every route below `/v1/teams`. */
export function teamRoutes(parts: AdminParts): AnyRoute[] {
  const { teams } = parts;
  return [
    createTeamRoute(parts),
    defineRoute({
      ...common,
      method: "GET",
      path: "/v1/teams",
      summary: "Teams that the caller may see",
      policy: READ,
      query: pageQuery,
      answers: { 200: { description: "A page of teams.", schema: pageSchema(teamSchema) } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const page = await readPage(
          pageOf(exchange.query as z.infer<typeof pageQuery>),
          (range) => teams.list(range),
          ({ id }) => id,
          ({ id }) => decide(principal, "team:read", teamResource(id)).ok,
        );
        await exchange.record.allowed("team:read", null);
        return { status: 200, body: { data: page.data.map(teamView), next: page.next } };
      },
    }),
    defineRoute({
      ...common,
      method: "GET",
      path: "/v1/teams/{id}",
      summary: "One team",
      policy: READ,
      answers: { 200: { description: "The team.", schema: teamSchema } },
      faults: ["not_found"],
      async handle(exchange) {
        const { value: team } = await requireTeam(parts, exchange, "team:read");
        await exchange.record.allowed("team:read", `team/${team.id}`);
        return { status: 200, body: teamView(team) };
      },
    }),
    defineRoute({
      ...common,
      method: "PATCH",
      path: "/v1/teams/{id}",
      summary: "Change a team's description",
      policy: WRITE,
      body: z.strictObject({ description: objectDescription }),
      bodyBytesMax: OBJECT_BYTES_MAX,
      answers: { 200: { description: "The team as it is now.", schema: teamSchema } },
      faults: ["not_found", "conflict"],
      async handle(exchange, { description }) {
        const found = await requireTeam(parts, exchange, "team:write");
        const before = found.value;
        const next = { ...before, description };
        await exchange.record.changing(
          "team:write",
          `team/${next.id}`,
          recordedTeam(before),
          recordedTeam(next),
        );
        if (!await teams.replace(found, next)) throw changedMeanwhile("a team");
        return { status: 200, body: teamView(next) };
      },
    }),
    defineRoute({
      ...common,
      method: "DELETE",
      path: "/v1/teams/{id}",
      summary: "Delete a team that nobody belongs to",
      policy: WRITE,
      answers: { 204: { description: "There is no such team any more." } },
      faults: ["not_found", "conflict"],
      async handle(exchange) {
        // Read before its members are looked for: whoever joins since then changes it.
        const found = await requireTeam(parts, exchange, "team:write");
        const { id } = found.value;
        if (id === DEFAULT_TEAM) throw notNow("it is the default one", "The default team stays.");
        if (await hasMembers(parts, id)) {
          throw notNow("it is not empty", "The team still has users, clients or roles.");
        }
        await exchange.record.changing("team:write", `team/${id}`, recordedTeam(found.value), null);
        if (!await teams.remove(found)) throw changedMeanwhile("a team");
        return { status: 204 };
      },
    }),
  ];
}

function createTeamRoute({ teams, clock }: AdminParts): AnyRoute {
  return defineRoute({
    ...common,
    method: "POST",
    path: "/v1/teams",
    summary: "Make a team",
    policy: WRITE,
    body: z.strictObject({ id: teamId, description: objectDescription.default("") }),
    bodyBytesMax: OBJECT_BYTES_MAX,
    answers: { 201: { description: "The team.", schema: teamSchema } },
    faults: ["not_found", "conflict"],
    async handle(exchange, { id, description }) {
      requireAccess(principalOf(exchange), "team:write", teamResource(null));
      const team = { id, description, createdAtMs: clock.now() };
      await exchange.record.changing("team:write", `team/${id}`, null, recordedTeam(team));
      if (!await teams.create(team)) {
        throw new Fault("conflict", "Cannot create a team: there is one of that id", {
          detail: "There is such a team already.",
        });
      }
      return { status: 201, body: teamView(team) };
    },
  });
}

function teamView({ id, description, createdAtMs }: Team): z.infer<typeof teamSchema> {
  return { id, description, created_at: inSeconds(createdAtMs) };
}

function recordedTeam({ description }: Team) {
  return { description };
}

function notNow(reason: string, detail: string): Fault {
  return new Fault("conflict", `Cannot delete a team: ${reason}`, { detail });
}

/** The team in the path, for a caller who may do this to it. */
async function requireTeam({ teams }: AdminParts, exchange: Exchange, action: Action): Promise<Kept<Team>> {
  const { id = "" } = exchange.parameters;
  if (!teamId.safeParse(id).success) throw objectNotFound("the path names no team");
  // Before it is read: a team that is not there is refused in the words, and the time, of one that is.
  requireAccess(principalOf(exchange), action, teamResource(id));
  const found = await teams.read(id);
  if (found === undefined) throw objectNotFound("no such team");
  return found;
}
