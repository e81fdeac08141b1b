// Payload settings: of which inferences the trail keeps what was asked and answered.
import { z } from "zod";
import { structured } from "./structured_settings.ts";

/** `*` stands for any characters. */
const model = z.string().regex(/^[A-Za-z0-9*][A-Za-z0-9._:/*-]{0,127}$/, "is no model or pattern");
const role = z.string().regex(/^[a-z*][a-z0-9*-]{0,63}$/, "is no role or pattern");

const policy = z.strictObject({
  /** Models by their ids; absent: all. */
  models: z.array(model).min(1).max(256).optional(),
  /** Roles, of which the caller has one; absent: everybody. */
  roles: z.array(role).min(1).max(64).optional(),
  parts: z.array(z.enum(["input", "output"])).min(1).max(2).default(["input", "output"]),
});

/** One policy as the settings have it; all that is named has to fit. */
export type PayloadPolicySetting = z.infer<typeof policy>;

/** `auditPayloads`. */
export const payloadPolicyList = structured(
  "a list of policies (docs/audit.md)",
  z.array(policy).max(256),
);
