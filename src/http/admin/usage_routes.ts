// Usage routes: what everybody has used whom the caller may look after, in sums by user, team, key or model.
import { z } from "@hono/zod-openapi";
import { decide } from "../../access/decide.ts";
import type { Principal } from "../../access/principal.ts";
import { encodeUtf8 } from "../../encoding/utf8.ts";
import { inTurns } from "../../limits/next_turn.ts";
import { addUse, NO_USE, readUsage, type UsageRow, type UsedAmounts } from "../../limits/usage_book.ts";
import { accountResource, seesOthers } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { pageOf, pageQuery, pageSchema } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { usageDays, usageQuery, usageSums, usageSumsView } from "../usage_view.ts";
import type { AdminParts } from "./admin_parts.ts";

const totalsQuery = z.strictObject({
  ...usageQuery.shape,
  by: z.enum(["user", "team", "key", "model"], "is none of user, team, key, model").default("user"),
  ...pageQuery.shape,
  // Subjects of other issuers are longer than ids of ours.
  after: z.string().regex(/^(?:[0-9a-f]{2}){1,2048}$/, "is no `next` of a page").optional()
    .describe("The `next` of the page before."),
});
type TotalsQuery = z.infer<typeof totalsQuery>;

const by = z.union([
  z.strictObject({ issuer: z.string(), subject: z.string() }),
  z.strictObject({ team: z.string() }),
  z.strictObject({ key: z.string().nullable().describe("null: all credentials that are no API key.") }),
  z.strictObject({ model: z.string() }),
]);
const totalSchema = z.strictObject({ by, ...usageSums.shape });

/** Of what a sum is; the names are those of the answer. */
const GROUPS: Readonly<Record<TotalsQuery["by"], (row: UsageRow) => z.infer<typeof by>>> = {
  user: ({ issuer, subject }) => ({ issuer, subject }),
  team: ({ team }) => ({ team }),
  key: ({ key }) => ({ key: key === "" ? null : key }),
  model: ({ model }) => ({ model }),
};

/** `GET /v1/usage/totals`. */
export function usageRoutes(parts: AdminParts): AnyRoute[] {
  return [
    defineRoute({
      method: "GET",
      path: "/v1/usage/totals",
      summary: "Sums of all usage that the caller may see",
      policy: { kind: "action", action: "usage:read" },
      dialect: problemDialect,
      rated: true,
      query: totalsQuery,
      answers: { 200: { description: "A page of sums.", schema: pageSchema(totalSchema) } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const query = exchange.query as TotalsQuery;
        const { days } = usageDays(query, parts.clock.now());
        const totals = await totalsOf(parts, principalOf(exchange), days, GROUPS[query.by]);
        const { after, limit } = pageOf(query);
        const rest = totals.filter(({ place }) => after === undefined || place > after);
        const page = rest.slice(0, limit);
        await exchange.record.allowed("usage:read", null);
        return {
          status: 200,
          body: {
            data: page.map(({ by, used }) => ({ by, ...usageSumsView(used) })),
            next: rest.length > limit ? page.at(-1)?.place ?? null : null,
          },
        };
      },
    }),
  ];
}

/** A sum. */
interface Total {
  /** Where it stands in the list. */
  readonly place: string;
  readonly by: z.infer<typeof by>;
  readonly used: UsedAmounts;
}

/** Day by day, so that memory holds one of them and the sums. */
async function totalsOf(
  { limiter }: AdminParts,
  principal: Principal,
  days: readonly string[],
  groupOf: (row: UsageRow) => z.infer<typeof by>,
): Promise<readonly Total[]> {
  const totals = new Map<string, Total>();
  const user = seesOthers(principal, "usage:read") ? undefined : principal;
  for (const day of days) {
    for await (const { row, used } of inTurns(await readUsage(limiter, day, user))) {
      const { issuer, subject, team } = row;
      if (!decide(principal, "usage:read", accountResource(issuer, subject, team)).ok) continue;
      const by = groupOf(row);
      const place = placeOf(by);
      totals.set(place, { place, by, used: addUse(totals.get(place)?.used ?? NO_USE, used) });
    }
  }
  return [...totals.values()].sort((one, other) => one.place < other.place ? -1 : 1);
}

/** A text that a query can hold, in the order of what it stands for, and never empty. */
function placeOf(by: Total["by"]): string {
  return encodeUtf8(["", ...Object.values(by)].join(" ")).toHex();
}
