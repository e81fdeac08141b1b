// Teams: the tenants of this server. Every user, program and key belongs to one, and nothing crosses their borders.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { SealedTable } from "../vault/sealed_store.ts";
import type { Kept } from "./kept.ts";

/** A tenant. */
export interface Team {
  /** Chosen by people; see `TEAM_PATTERN`. */
  readonly id: string;
  readonly description: string;
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
}

/** The teams. */
export interface Teams {
  read(id: string): Promise<Kept<Team> | undefined>;
  /** In the order of their ids. */
  list(page: { readonly after?: string; readonly limit: number }): Promise<readonly Team[]>;
  /** False: there is such a team. Throws Fault `fields_invalid` when the id breaks `TEAM_PATTERN`. */
  create(team: Team): Promise<boolean>;
  /** False: it was changed meanwhile. The id stays, whatever `next` says. */
  replace(found: Kept<Team>, next: Team): Promise<boolean>;
  /**
   * Removes a team that nobody belongs to: `found` must have been read before that was looked for, so that whoever
   * joined since then makes this false.
   *
   * @throws Fault `conflict` for the default team
   */
  remove(found: Kept<Team>): Promise<boolean>;
  /**
   * Part of every write that puts somebody into a team: the team as it is, in another version, so that it can neither be
   * removed nor changed before that is written. Throws Fault `conflict` when there is none.
   */
  hold(id: string): Promise<RecordChange>;
}

/** 1 to 32 of lower-case letters, digits and hyphens; no hyphen at either end. */
export const TEAM_PATTERN = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/;
/** Whoever is put into no other team belongs here. It always exists. */
export const DEFAULT_TEAM = "default";

/** Opens the teams, making the default one where it is missing. */
export async function openTeams(options: {
  readonly store: RecordStore;
  readonly sealed: (table: string) => SealedTable;
  readonly clock: Clock;
}): Promise<Teams> {
  const { store, sealed, clock } = options;
  const table = sealed("teams");
  await table.create(
    DEFAULT_TEAM,
    teamRecord({ id: DEFAULT_TEAM, description: "", createdAtMs: clock.now() }),
  );

  const change = (found: Kept<Team>, next: Team | undefined): Promise<RecordChange> => {
    const record = next === undefined ? undefined : teamRecord(next);
    return table.changeOf(found.value.id, record, { expects: found.version });
  };

  async function read(id: string): Promise<Kept<Team> | undefined> {
    const record = TEAM_PATTERN.test(id) ? await table.read(id) : undefined;
    return record === undefined ? undefined : { value: parseTeam(id, record.value), version: record.version };
  }

  return {
    read,
    list: async (page) => (await table.list(page)).map(({ key, value }) => parseTeam(key, value)),
    async create(team) {
      if (!TEAM_PATTERN.test(team.id)) {
        throw new Fault("fields_invalid", "Cannot create a team: its id breaks the rule", {
          fields: [{ path: "/id", message: "is not 1 to 32 of a-z, 0-9 and - (no - at either end)" }],
        });
      }
      return await table.create(team.id, teamRecord(team));
    },
    replace: async (found, next) => await store.write([await change(found, next)]),
    async remove(found) {
      if (found.value.id === DEFAULT_TEAM) {
        throw new Fault("conflict", "Cannot remove a team: it is the default one", {
          detail: "The default team stays.",
        });
      }
      return await store.write([await change(found, undefined)]);
    },
    async hold(id) {
      const found = await read(id);
      if (found !== undefined) return await change(found, found.value);
      throw new Fault("conflict", "Cannot put an account into a team: there is none of that id", {
        detail: "There is no such team.",
      });
    },
  };
}

/** Without the id, which is the record's key. */
function teamRecord({ description, createdAtMs }: Team): JsonValue {
  return { description, createdAtMs };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
function parseTeam(id: string, value: JsonValue): Team {
  const { description, createdAtMs } = (value ?? {}) as Record<string, JsonValue>;
  if (typeof description !== "string" || typeof createdAtMs !== "number") {
    throw new Fault("unavailable", "Cannot read a team: the record has no known form");
  }
  return { id, description, createdAtMs };
}
