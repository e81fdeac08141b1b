// Usage routes: what the caller has used, and how much of its own limits is left.
import { z } from "@hono/zod-openapi";
import { decide } from "../../access/decide.ts";
import type { Principal } from "../../access/principal.ts";
import {
  applies,
  COST_SCALE,
  type LimitedWork,
  limitsOf,
  type NamedLimit,
  type ReadyPolicy,
} from "../../limits/limit_policy.ts";
import { inTurns } from "../../limits/next_turn.ts";
import { addUse, NO_USE, readUsage, type UsedAmounts } from "../../limits/usage_book.ts";
import { accountResource, inSeconds } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { seconds } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { checkRows, usageDays, usageQuery, usageSums, usageSumsView } from "../usage_view.ts";
import type { AccountParts } from "./account_parts.ts";

const rowSchema = z.strictObject({
  day: z.string(),
  model: z.string(),
  key: z.string().nullable().describe("The API key's id; null where another credential was used."),
  ...usageSums.shape,
});

const limitSchema = z.strictObject({
  name: z.string(),
  unit: z.enum(["requests", "tokens", "cost"]),
  per: z.enum(["day", "month"]),
  quota: z.number(),
  used: z.number().describe("What requests under way have reserved included."),
  remaining: z.number(),
  ends_at: seconds,
});

const usageSchema = z.strictObject({
  object: z.literal("usage"),
  from: z.string(),
  to: z.string(),
  data: z.array(rowSchema),
  total: usageSums,
  limits: z.array(limitSchema).describe(
    "Limits of a day or month on the caller, its key and its team, now. Those on certain models, on models and on addresses " +
      "are not listed.",
  ),
});

/** `GET /v1/usage`. */
export function usageRoutes(parts: AccountParts): AnyRoute[] {
  return [
    defineRoute({
      method: "GET",
      path: "/v1/usage",
      summary: "What the caller has used, by day and model",
      policy: { kind: "action", action: "usage:read" },
      dialect: problemDialect,
      rated: true,
      query: usageQuery,
      answers: { 200: { description: "The sums of each day, and what limits leave.", schema: usageSchema } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const nowMs = parts.clock.now();
        const { from, to, days } = usageDays(exchange.query as z.infer<typeof usageQuery>, nowMs);
        const data: z.infer<typeof rowSchema>[] = [];
        let total = NO_USE;
        for (const day of days) {
          for await (const { model, key, used } of inTurns(await ownUse(parts, principal, day))) {
            data.push({ day, model, key: key === "" ? null : key, ...usageSumsView(used) });
            total = addUse(total, used);
          }
          checkRows(data.length, days);
        }
        const limits = await ownLimits(parts, principal, nowMs);
        await exchange.record.allowed("usage:read", null);
        return {
          status: 200,
          body: { object: "usage", from, to, data, total: usageSumsView(total), limits },
        };
      },
    }),
  ];
}

interface OwnUse {
  readonly model: string;
  readonly key: string;
  readonly used: UsedAmounts;
}

/** Of one day, by model and key; of whoever changed teams that day, together. */
async function ownUse(
  { limiter }: AccountParts,
  principal: Principal,
  day: string,
): Promise<readonly OwnUse[]> {
  const uses = new Map<string, OwnUse>();
  for await (const { row, used } of inTurns(await readUsage(limiter, day, principal))) {
    const { issuer, subject, team, model, key } = row;
    if (!decide(principal, "usage:read", accountResource(issuer, subject, team)).ok) continue;
    const name = `${model} ${key}`;
    uses.set(name, { model, key, used: addUse(uses.get(name)?.used ?? NO_USE, used) });
  }
  return [...uses].sort(([one], [other]) => one < other ? -1 : 1).map(([, use]) => use);
}

async function ownLimits(
  { limiter, policies }: AccountParts,
  { issuer, subject, team, roles, credential }: Principal,
  nowMs: number,
): Promise<readonly z.infer<typeof limitSchema>[]> {
  const work: LimitedWork = {
    address: "",
    user: `${issuer} ${subject}`,
    team,
    roles,
    key: credential.kind === "api_key" ? credential.id : null,
    model: "",
  };
  const limits = policies.filter((ready) => holdsAlways(ready) && applies(ready, work))
    .flatMap((ready) => limitsOf(ready, work, NOTHING, 0, nowMs));
  const views = await Promise.all(limits.map((limit) => limitView(limiter, limit, nowMs)));
  return views.filter((view) => view !== undefined);
}

const NOTHING = { requests: 0, tokens: 0, cost: 0 };

/** Whatever the model is, and wherever the caller is. */
function holdsAlways({ policy }: ReadyPolicy): boolean {
  return policy.subject !== "address" && policy.subject !== "model" && policy.for.models === undefined;
}

/** undefined of what is no sum of a day or month. */
async function limitView(
  limiter: AccountParts["limiter"],
  { name, unit, windowSeconds, cell }: NamedLimit,
  nowMs: number,
): Promise<z.infer<typeof limitSchema> | undefined> {
  if (cell.kind !== "count" || unit === "places") return undefined;
  const used = (await limiter.sums(cell.book, [cell.key])).get(cell.key) ?? 0;
  const scale = unit === "cost" ? COST_SCALE : 1;
  return {
    name,
    unit,
    per: windowSeconds === DAY_SECONDS ? "day" : "month",
    quota: cell.quota / scale,
    used: used / scale,
    remaining: Math.max(0, cell.quota - used) / scale,
    ends_at: inSeconds(nowMs + cell.endsInMs),
  };
}

const DAY_SECONDS = 86_400;
