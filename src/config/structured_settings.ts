// Structured settings: the settings that are no single value: upstreams, the models they serve, and caps by role.
import { z } from "zod";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { no, ok } from "../faults/outcome.ts";
import type { SettingType } from "./setting_types.ts";

const DEPTH_MAX = 8;
const MISTAKES_MAX = 5;

/** Names that callers use for a model. No two dots or slashes in a row, so that no reader could take one for a path. */
const MODEL_NAME = /^(?!.*(?:\.\.|\/\/))[A-Za-z0-9](?:[A-Za-z0-9._:/-]{0,126}[A-Za-z0-9])?$/;
const modelName = z.string().regex(
  MODEL_NAME,
  'is no model name (letters, digits and . _ : / -, such as "llama3.2:3b")',
);
const upstreamName = z.string().regex(
  /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/,
  "is no name (lower-case letters, digits and -)",
);
const fieldName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/, "is no field name");
/** A team's id, as its own room has it. */
export const teamName = z.string().regex(
  /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/,
  "is no team (a-z, 0-9 and -)",
);
const role = z.enum(["admin", "operator", "auditor", "user"]);
const milliseconds = (fallback: number) => z.int().min(10).max(24 * 3_600_000).default(fallback);
/** A file that is read at the start; its path becomes part of a permission flag. */
export const filePath = z.string().regex(
  /^(?!-)[^\p{Cc}\s,]{1,1000}$/u,
  "is no path without spaces and commas",
);

/** A base address: where a path is put behind it, nothing of it can be moved by that path. */
const baseUrl = z.string().max(500).transform((text, context) => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const wrong = url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")
    ? "is no http or https address"
    : url.username !== "" || url.password !== ""
    ? "must hold no user and no password; the secret comes from a variable or a file"
    : url.search !== "" || url.hash !== "" || text.includes("?") || text.includes("#")
    ? "must end with its path, without ? and #"
    : undefined;
  if (url === undefined || wrong !== undefined) {
    context.addIssue({ code: "custom", message: wrong ?? "is no address" });
    return z.NEVER;
  }
  return url.href.replace(/\/+$/, "");
});

const upstream = z.strictObject({
  name: upstreamName,
  kind: z.enum(["openai", "openinference", "anthropic"]),
  url: baseUrl,
  /** Plain HTTP to another machine: only when said so. */
  plainHttp: z.boolean().default(false),
  caFile: filePath.optional(),
  requestsAtOnceMax: z.int().min(1).max(100_000).default(64),
  connectTimeoutMs: milliseconds(3000),
  firstByteTimeoutMs: milliseconds(120_000),
  betweenBytesTimeoutMs: milliseconds(60_000),
  wholeTimeoutMs: milliseconds(600_000),
  answerBytesMax: z.int().min(1024).max(1024 * 1024 * 1024).default(32 * 1024 * 1024),
  usageInStreams: z.boolean().default(true),
  healthPath: z.string().regex(/^\/(?!.*\.\.)[A-Za-z0-9/._~-]{0,200}$/, "is no path").optional(),
  healthSeconds: z.int().min(1).max(3600).default(10),
});

const upstreamModel = z.strictObject({
  id: modelName,
  aliases: z.array(modelName).max(16).default([]),
  capabilities: z.array(z.enum([
    "chat",
    "completion",
    "embedding",
    "rerank",
    "moderation",
    "speech",
    "transcription",
    "image",
    "tensor",
  ])).min(1).max(9),
  servedBy: z.array(z.strictObject({
    upstream: upstreamName,
    /** The model's name there; default: `id`. */
    model: z.string().regex(MODEL_NAME, "is no model name").optional(),
    weight: z.int().min(1).max(1000).default(1),
  })).min(1).max(64),
  routing: z.enum(["least-busy", "weighted"]).default("least-busy"),
  fallbacks: z.array(modelName).max(8).default([]),
  contextTokensMax: z.int().min(1).max(100_000_000).optional(),
  outputTokensMax: z.int().min(1).max(10_000_000).optional(),
  textsPerRequestMax: z.int().min(1).max(100_000).default(2048),
  charactersPerTextMax: z.int().min(1).max(100_000_000).default(1_000_000),
  dimensions: z.int().min(1).max(65_536).optional(),
  passFields: z.array(fieldName).max(64).default([]),
  prices: z.strictObject({
    inputPerMillion: z.number().min(0).max(1e9),
    outputPerMillion: z.number().min(0).max(1e9),
  }).optional(),
  see: z.array(role).min(1).default(["admin", "operator", "auditor", "user"]),
  use: z.array(role).default(["admin", "operator", "user"]),
  /** Teams that the model is for; absent: all of them. */
  teams: z.array(teamName).min(1).max(1000).optional(),
});

const count = (max: number) => z.int().min(0).max(max).optional();
const caps = z.strictObject({
  outputTokensMax: z.int().min(1).max(10_000_000).optional(),
  choicesMax: z.int().min(1).max(128).optional(),
  stopSequencesMax: count(64),
  imagesMax: count(1000),
  toolsMax: count(1000),
});
const roleCaps = z.strictObject({
  admin: caps.optional(),
  operator: caps.optional(),
  auditor: caps.optional(),
  user: caps.optional(),
});

/** One upstream as the settings have it. */
export type UpstreamSetting = z.infer<typeof upstream>;
/** One model of upstreams as the settings have it. */
export type UpstreamModelSetting = z.infer<typeof upstreamModel>;
/** Caps by role as the settings have them; what is absent keeps its default. */
export type RoleCapsSetting = z.infer<typeof roleCaps>;

/** `upstreams`. */
export const upstreamList = structured(
  "a list of upstreams (docs/upstreams.md)",
  z.array(upstream).max(256).superRefine((upstreams, context) => {
    upstreams.forEach(({ name, url, plainHttp }, index) => {
      if (upstreams.findIndex((other) => other.name === name) < index) {
        context.addIssue({ code: "custom", path: [index, "name"], message: `"${name}" stands twice` });
      }
      if (url.startsWith("http:") && !plainHttp && !isLoopback(new URL(url).hostname)) {
        context.addIssue({
          code: "custom",
          path: [index, "url"],
          message:
            'is plain HTTP to another machine; use https, or say "plainHttp": true where the network is trusted',
        });
      }
    });
  }),
);

/** `upstreamModels`. */
export const upstreamModelList = structured(
  "a list of models that upstreams serve (docs/upstreams.md)",
  z.array(upstreamModel).max(1024).superRefine((models, context) => {
    const seen = new Set<string>();
    models.forEach(({ id, aliases }, index) => {
      for (const name of [id, ...aliases]) {
        if (seen.has(name)) {
          context.addIssue({ code: "custom", path: [index], message: `the name "${name}" is taken already` });
        }
        seen.add(name);
      }
    });
  }),
);

/** `roleCaps`. */
export const roleCapsType = structured("caps by role (docs/upstreams.md)", roleCaps);

/** The variable of an upstream's secret; `…_FILE` names a file that holds it. */
export function upstreamKeyVariable(name: string): string {
  return `PORTCULLIS_UPSTREAM_${name.replaceAll("-", "_").toUpperCase()}_KEY`;
}

/** Whether a host, as `URL.hostname` has it, is this machine. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/** A type whose values are objects: JSON in the file, JSON text in the environment. */
export function structured<Value>(allowed: string, schema: z.ZodType<Value>): SettingType<Value> {
  const parse = (raw: unknown): z.ZodSafeParseResult<Value> | string => {
    if (typeof raw !== "string") return schema.safeParse(raw);
    const json = parseStrictJson(raw, DEPTH_MAX);
    return json.ok ? schema.safeParse(json.value) : `is not strict JSON: ${json.reason}`;
  };
  return {
    allowed,
    read(raw) {
      const parsed = parse(raw);
      return typeof parsed === "object" && parsed.success ? ok(parsed.data) : no("wrong");
    },
    explain(raw) {
      const parsed = parse(raw);
      if (typeof parsed === "string") return parsed;
      const issues = parsed.error?.issues.slice(0, MISTAKES_MAX) ?? [];
      return issues.map(({ path, message }) => `${placeOf(path)}${message}`).join("; ");
    },
  };
}

/** `[0].url: ` */
function placeOf(path: readonly PropertyKey[]): string {
  const place = path.map((part) => typeof part === "number" ? `[${part}]` : `.${String(part)}`).join("");
  return place === "" ? "" : `${place.replace(/^\./, "")}: `;
}
