// Vault routes: the data keys under which the store is sealed, and new ones for them while the server works.
import { z } from "@hono/zod-openapi";
import { inSeconds, inSecondsOrNull } from "../administer.ts";
import { seconds } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";

/** How far a rotation of the data keys is. Milliseconds since 1970. */
interface RotationProgress {
  readonly state: "running" | "done" | "blocked" | "failed";
  readonly phase: "keys" | "reseal" | "settle" | "check" | "destroy";
  readonly key: string | null;
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  readonly table: string | null;
  readonly done: number;
  readonly total: number;
  readonly resealed: number;
  readonly reason: string | null;
}

/** What the routes need of the vault. */
export interface VaultAdminParts {
  readonly vault: {
    keys(): Promise<
      readonly {
        readonly id: string;
        readonly kind: "seal" | "pseudonym";
        readonly state: "active" | "retired";
        readonly createdAtMs: number;
        readonly isUnderNewestMasterKey: boolean;
      }[]
    >;
    /** undefined: there never was one. */
    state(): Promise<RotationProgress | undefined>;
    /** Throws Fault `conflict` while one runs. */
    start(): Promise<RotationProgress>;
  };
}

const rotationSchema = z.strictObject({
  state: z.enum(["running", "done", "blocked", "failed"]).describe(
    "`blocked`: values do not open, so the older keys stay; `failed`: there is no new key.",
  ),
  phase: z.enum(["keys", "reseal", "settle", "check", "destroy"]),
  key: z.string().nullable().describe("The new key."),
  started_at: seconds,
  ended_at: seconds.nullable(),
  table: z.string().nullable().describe("Which table is looked at."),
  done: z.int().describe("Records that were looked at, of `total`."),
  total: z.int(),
  resealed: z.int().describe("Values that are under the new key because of it."),
  reason: z.string().nullable(),
});

const vaultSchema = z.strictObject({
  keys: z.array(z.strictObject({
    id: z.string(),
    kind: z.enum(["seal", "pseudonym"]),
    state: z.enum(["active", "retired"]),
    created_at: seconds,
    newest_master_key: z.boolean().describe("Whether it is wrapped under the newest master key."),
  })),
  rotation: rotationSchema.nullable().describe("The one that runs, or the last one."),
});

function rotationView(rotation: RotationProgress): z.infer<typeof rotationSchema> {
  const { state, phase, key, startedAtMs, endedAtMs, table, done, total, resealed, reason } = rotation;
  return {
    state,
    phase,
    key,
    started_at: inSeconds(startedAtMs),
    ended_at: inSecondsOrNull(endedAtMs),
    table,
    done,
    total,
    resealed,
    reason,
  };
}

/** `GET /admin/v1/vault` and `POST /admin/v1/vault/rotate`. */
export function vaultRoutes({ vault }: VaultAdminParts): AnyRoute[] {
  const common = {
    policy: { kind: "action", action: "vault:rotate" },
    dialect: problemDialect,
    rated: true,
  } as const;
  return [
    defineRoute({
      ...common,
      method: "GET",
      path: "/admin/v1/vault",
      summary: "The data keys, and how far their rotation is",
      answers: { 200: { description: "Ids and times; never a key.", schema: vaultSchema } },
      faults: [],
      async handle({ record }) {
        const [keys, rotation] = [await vault.keys(), await vault.state()];
        await record.allowed("vault:rotate", null);
        const body: z.infer<typeof vaultSchema> = {
          keys: keys.map(({ id, kind, state, createdAtMs, isUnderNewestMasterKey }) => ({
            id,
            kind,
            state,
            created_at: inSeconds(createdAtMs),
            newest_master_key: isUnderNewestMasterKey,
          })),
          rotation: rotation === undefined ? null : rotationView(rotation),
        };
        return { status: 200, body };
      },
    }),
    defineRoute({
      ...common,
      method: "POST",
      path: "/admin/v1/vault/rotate",
      summary: "Seal everything under a new data key, and destroy the older ones at the end",
      answers: {
        202: { description: "The new key seals from now on; the rest goes on.", schema: rotationSchema },
      },
      faults: ["conflict"],
      async handle({ record }) {
        const active = (await vault.keys()).find(({ kind, state }) => kind === "seal" && state === "active");
        await record.changing("vault:rotate", "vault/data_keys", { active: active?.id ?? null }, null);
        const rotation = await vault.start();
        // The id is known only now.
        await record.allowed("vault:rotate", `vault/data_keys/${rotation.key}`);
        return { status: 202, body: rotationView(rotation) };
      },
    }),
  ];
}
