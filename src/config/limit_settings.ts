// Limit settings: named policies of how much is allowed to whom, and what leads to a ban.
import { z } from "zod";
import { structured, teamName } from "./structured_settings.ts";

const requests = z.int().min(1).max(1_000_000_000).optional();
const tokens = z.int().min(1).max(1_000_000_000_000).optional();
/** In the currency of the prices; kept in billionths of it. */
const cost = z.number().min(1e-6).max(1_000_000).optional();
const name = z.string().regex(
  /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/,
  "is no name (lower-case letters, digits and -)",
);
const roleName = z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, "is no role");
const keyId = z.string().regex(/^pck_[0-9a-hjkmnp-tv-z]{26}$/, "is no id of an API key");
/** A model's id; `*` stands for any characters. */
const modelPattern = z.string().regex(/^[A-Za-z0-9*][A-Za-z0-9._:/*-]{0,127}$/, "is no model or pattern");
const TAKEN_NAMES = ["address", "sign-in", "token", "user", "at-once"];

const policy = z.strictObject({
  name,
  /** Each of these has a limit of its own. */
  subject: z.enum(["address", "user", "key", "team", "model"]),
  /** Whom and what the policy is about; all that is named has to fit. Absent: everybody, everything. */
  for: z.strictObject({
    roles: z.array(roleName).min(1).max(64).optional(),
    teams: z.array(teamName).min(1).max(1000).optional(),
    keys: z.array(keyId).min(1).max(1000).optional(),
    models: z.array(modelPattern).min(1).max(256).optional(),
  }).default({}),
  requestsPerMinute: requests,
  tokensPerMinute: z.int().min(1).max(1_000_000_000).optional(),
  requestsAtOnce: z.int().min(1).max(1_000_000).optional(),
  requestsPerDay: requests,
  requestsPerMonth: requests,
  tokensPerDay: tokens,
  tokensPerMonth: tokens,
  costPerDay: cost,
  costPerMonth: cost,
  /** Default: rates and places `degraded`, days and months `closed`. */
  whenStoreFails: z.enum(["closed", "degraded"]).optional(),
});

/** One policy as the settings have it. */
export type LimitPolicySetting = z.infer<typeof policy>;

/** `limits`. */
export const limitPolicyList = structured(
  "a list of policies (docs/limits.md)",
  z.array(policy).max(256).superRefine((policies, context) => {
    policies.forEach((each, index) => {
      const wrong = (message: string) => context.addIssue({ code: "custom", path: [index, "name"], message });
      if (policies.findIndex((other) => other.name === each.name) < index) {
        wrong(`"${each.name}" stands twice`);
      }
      if (TAKEN_NAMES.includes(each.name)) {
        wrong(`"${each.name}" is the name of a limit with a setting of its own`);
      }
      const { name: _, subject: __, for: ___, whenStoreFails, ...quotas } = each;
      const named = Object.entries(quotas).filter(([, quota]) => quota !== undefined);
      if (named.length === 0) wrong("limits nothing: name at least one quota, such as requestsPerMinute");
      // What a local fraction of a month's budget is, nobody can say: each instance would start it anew.
      if (whenStoreFails === "degraded" && named.some(([quota]) => /Day$|Month$/.test(quota))) {
        wrong('has a quota of a day or month, which cannot be "degraded"; give rates a policy of their own');
      }
    });
  }),
);

const trigger = (count: number, seconds: number) =>
  z.strictObject({
    /** As many within the seconds ban an address. */
    count: z.int().min(1).max(1000).default(count),
    seconds: z.int().min(1).max(86_400).default(seconds),
  }).prefault({});

const bans = z.strictObject({
  enabled: z.boolean().default(true),
  /** Failed sign-ins and credentials that are none. */
  credentials: trigger(20, 300),
  /** Requests that break the rules of their form. */
  validation: trigger(50, 600),
  /** Attack signatures, and paths that nobody asks for honestly. */
  probes: trigger(3, 600),
  firstSeconds: z.int().min(1).max(10 * 366 * 86_400).default(86_400),
  secondSeconds: z.int().min(1).max(10 * 366 * 86_400).default(7 * 86_400),
});

/** The triggers of bans and how long bans last; the third is for good. */
export type BanSetting = z.infer<typeof bans>;

/** `bans`. */
export const banType = structured("what leads to a ban (docs/bans.md)", bans);

/** What holds where the settings say nothing. */
export const DEFAULT_BANS: BanSetting = bans.parse({});
