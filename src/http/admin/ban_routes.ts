// Ban routes: see which addresses are refused, refuse one, and let one in again.
import { z } from "@hono/zod-openapi";
import { clientNetwork, parseAddressRange } from "../../encoding/ip_address.ts";
import { Fault } from "../../faults/fault.ts";
import { type Ban, BAN_TRIGGERS } from "../../limits/ban_list.ts";
import { changedMeanwhile, fieldRefused, idInPath, inSeconds, inSecondsOrNull } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { OBJECT_BYTES_MAX, objectDescription, seconds } from "../object_fields.ts";
import { pageOf, pageQuery, pageSchema, readPage } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";

const banSchema = z.strictObject({
  id: z.string(),
  address: z.string().describe("An IPv4 address, or the /64 of an IPv6 one."),
  reason: z.enum([...BAN_TRIGGERS, "manual"]),
  note: z.string(),
  created_at: seconds,
  until: seconds.nullable().describe("Seconds since 1970; null: for good."),
  count: z.int().describe("How many-th ban of this address it is."),
  actor: z.string().nullable().describe("Issuer and subject of who banned it; null: the server itself."),
});

function banView(
  { id, network, reason, note, createdAtMs, untilMs, count, actor }: Ban,
): z.infer<typeof banSchema> {
  return {
    id,
    address: network,
    reason,
    note,
    created_at: inSeconds(createdAtMs),
    until: inSecondsOrNull(untilMs),
    count,
    actor,
  };
}

const order = z.strictObject({
  address: z.string().max(64).describe(
    "IPv4 or IPv6; of IPv6 its /64 is meant, which can be written as well.",
  ),
  seconds: z.int().min(1).max(10 * 366 * 86_400).nullable().describe("null: for good."),
  note: objectDescription.default(""),
});
const liftQuery = z.strictObject({
  forget: z.enum(["true", "false"]).default("false").describe(
    "true: the next ban of this address counts as its first.",
  ),
});

/** `GET` and `POST /v1/bans`, and `DELETE /v1/bans/{id}`. */
export function banRoutes({ bans, labelAddress }: AdminParts): AnyRoute[] {
  const common = { dialect: problemDialect, rated: true } as const;
  const write = { ...common, policy: { kind: "action", action: "ban:write" } } as const;
  return [
    defineRoute({
      ...common,
      method: "GET",
      path: "/v1/bans",
      summary: "Addresses that are banned",
      policy: { kind: "action", action: "ban:read" },
      query: pageQuery,
      answers: { 200: { description: "A page of bans, the oldest first.", schema: pageSchema(banSchema) } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const page = await readPage(
          pageOf(exchange.query as z.infer<typeof pageQuery>),
          (range) => Promise.resolve(bans.list(range)),
          ({ id }) => id,
          () => true,
        );
        await exchange.record.allowed("ban:read", null);
        return { status: 200, body: { data: page.data.map(banView), next: page.next } };
      },
    }),
    defineRoute({
      ...write,
      method: "POST",
      path: "/v1/bans",
      summary: "Ban an address",
      body: order,
      bodyBytesMax: OBJECT_BYTES_MAX,
      answers: { 201: { description: "The ban, which holds from now on.", schema: banSchema } },
      faults: ["conflict"],
      async handle(exchange, { address, seconds: forSeconds, note }) {
        const { issuer, subject } = principalOf(exchange);
        const network = networkIn(address);
        if (network === exchange.clientNetwork) {
          throw new Fault("conflict", "Cannot ban a network: the caller comes from it", {
            detail: "You come from this address yourself.",
          });
        }
        const after = { address: labelAddress(network), seconds: forSeconds, note };
        await exchange.record.changing("ban:write", "ban/new", null, after);
        const ban = await bans.ban({ network, note, seconds: forSeconds, actor: `${issuer} ${subject}` });
        // The id is known only now.
        await exchange.record.allowed("ban:write", `ban/${ban.id}`);
        return { status: 201, body: banView(ban) };
      },
    }),
    defineRoute({
      ...write,
      method: "DELETE",
      path: "/v1/bans/{id}",
      summary: "Lift a ban",
      query: liftQuery,
      answers: { 204: { description: "The address is let in again." } },
      faults: ["request_invalid", "not_found", "conflict"],
      async handle(exchange) {
        const ban = bans.read(idInPath(exchange, "ban"));
        if (ban === undefined) throw objectNotFound("no such ban");
        const forget = (exchange.query as z.infer<typeof liftQuery>).forget === "true";
        const { network, reason, count, untilMs } = ban;
        await exchange.record.changing(
          "ban:write",
          `ban/${ban.id}`,
          { address: labelAddress(network), reason, count, until: inSecondsOrNull(untilMs) },
          { lifted: true, forgotten: forget },
        );
        if (!await bans.lift(ban, { forget })) throw changedMeanwhile("a ban");
        return { status: 204 };
      },
    }),
  ];
}

/** What an address of a body means; throws Fault `fields_invalid` where it is none. */
function networkIn(address: string): string {
  const range = parseAddressRange(address);
  const isOne = range.ok &&
    (range.value.prefixBits === range.value.bytes.length * 8 || range.value.prefixBits === 64);
  if (!isOne) throw fieldRefused("/address", "is no IP address, and no /64 of IPv6");
  return clientNetwork(range.value.bytes);
}
