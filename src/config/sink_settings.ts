// Sink settings: where entries of the audit trail go besides the trail itself.
import { z } from "zod";
import { filePath, isLoopback, structured } from "./structured_settings.ts";

/** `URL.hostname` of a host without brackets: a name in lower case, or an address. */
const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?|[0-9a-f:.]{2,45})$/;
/** RFC 9110 §5.6.2; the value without control characters (§5.5). */
const FIELD_NAME = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$/;
const FIELD_VALUE = /^[\x20-\x7e]{0,1000}$/;
/** Fields that the sink itself or the connection sets, or that hold secrets, which come by a variable or a file. */
const FORBIDDEN_FIELDS =
  /^(?:authorization|proxy-.*|cookie|host|content-.*|transfer-encoding|connection|te|trailer|upgrade|expect|x-scope-orgid)$/i;

const name = z.string()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/, "is no name (lower-case letters, digits and -)")
  // Its variable would be that of the file with another sink's secret.
  .refine((text) => !text.endsWith("-file"), 'must not end in "-file"');

/** An address that is called as it is written, but for what a path is put behind. */
const url = z.string().max(500).transform((text, context) => {
  const parsed = URL.parse(text);
  const wrong = parsed === null || (parsed.protocol !== "http:" && parsed.protocol !== "https:")
    ? "is no http or https address"
    : parsed.username !== "" || parsed.password !== ""
    ? "must hold no user and no password; the secret comes from a variable or a file"
    : parsed.search !== "" || parsed.hash !== "" || /[?#]/.test(text)
    ? "must end with its path, without ? and #"
    : undefined;
  if (parsed === null || wrong !== undefined) {
    context.addIssue({ code: "custom", message: wrong ?? "is no address" });
    return z.NEVER;
  }
  return parsed.href;
});

const fields = z.record(z.string(), z.string()).superRefine((record, context) => {
  for (const [field, value] of Object.entries(record)) {
    const message = !FIELD_NAME.test(field)
      ? "is no header field"
      : FORBIDDEN_FIELDS.test(field)
      ? "is a header field that is set otherwise; a secret comes from a variable or a file"
      : !FIELD_VALUE.test(value)
      ? "is no value of a header field"
      : undefined;
    if (message !== undefined) context.addIssue({ code: "custom", path: [field], message });
  }
});

const common = {
  name,
  /** Which entries; absent: all. */
  classes: z.array(z.enum(["security", "activity"])).min(1).max(2).optional(),
  /** Where a sink begins that has never shipped anything. */
  from: z.enum(["start", "now"]).default("now"),
};
const http = {
  url,
  plainHttp: z.boolean().default(false),
  caFile: filePath.optional(),
  headers: fields.default({}),
  /** The secret then is the password of this user (RFC 7617); absent: a bearer token (RFC 6750). */
  username: z.string().regex(/^[^\p{Cc}:]{1,255}$/u, "is no user name").optional(),
};

const sink = z.discriminatedUnion("kind", [
  z.strictObject({ ...common, kind: z.literal("stdout") }),
  z.strictObject({ ...common, ...http, kind: z.literal("otlp") }),
  z.strictObject({
    ...common,
    ...http,
    kind: z.literal("loki"),
    tenant: z.string().regex(/^[A-Za-z0-9!._*'()-]{1,150}$/, "is no tenant").optional(),
  }),
  z.strictObject({
    ...common,
    kind: z.literal("syslog"),
    host: z.string().regex(HOST, "is no host name in lower case and no address"),
    port: z.int().min(1).max(65_535).optional(),
    tls: z.boolean().default(true),
    caFile: filePath.optional(),
    /** RFC 5424 §6.2.1; 13 is "log audit". */
    facility: z.int().min(0).max(23).default(13),
  }),
  z.strictObject({
    ...common,
    kind: z.literal("redis_stream"),
    /** Without braces: what a cluster hashes then is the whole name. */
    stream: z.string().regex(/^[A-Za-z0-9:._-]{1,200}$/, "is no name of a stream").default(
      "portcullis:audit",
    ),
    entriesMax: z.int().min(1000).max(1_000_000_000).default(1_000_000),
    caFile: filePath.optional(),
    /** Hosts that sentinels or a cluster may point to. */
    hosts: z.array(
      z.string().regex(
        /^(?:[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]):\d{1,5}$/,
        "is no host with its port",
      ),
    ).max(64).default([]),
  }),
  z.strictObject({ name, from: common.from, ...http, kind: z.literal("witness") }),
]);

/** One sink as the settings have it. */
export type SinkSetting = z.infer<typeof sink>;

/** `auditSinks`. */
export const auditSinkList = structured(
  "a list of sinks (docs/audit.md)",
  z.array(sink).max(16).superRefine((sinks, context) => {
    sinks.forEach((each, index) => {
      if (sinks.findIndex((other) => other.name === each.name) < index) {
        context.addIssue({ code: "custom", path: [index, "name"], message: `"${each.name}" stands twice` });
      }
      if ("url" in each) {
        const { protocol, hostname } = new URL(each.url);
        if (protocol === "http:" && !each.plainHttp && !isLoopback(hostname)) {
          context.addIssue({
            code: "custom",
            path: [index, "url"],
            message:
              'is plain HTTP to another machine; use https, or say "plainHttp": true where the network is trusted',
          });
        }
      }
    });
  }),
);

/** The variable of a sink's secret; `…_FILE` names a file that holds it. */
export function sinkKeyVariable(name: string): string {
  return `PORTCULLIS_AUDIT_SINK_KEY_${name.replaceAll("-", "_").toUpperCase()}`;
}

/** The port of syslog over TLS (RFC 5425 §4.1) or, by custom (RFC 6587 §3.1), over plain TCP. */
export function syslogPort({ port, tls }: Extract<SinkSetting, { kind: "syslog" }>): number {
  return port ?? (tls ? 6514 : 514);
}
