// Assembly of sinks: where copies of the audit trail go, by the settings, and with their secrets.
import { auditFolders } from "../audit/audit_trail.ts";
import { type AuditSinks, openAuditSinks } from "../audit/sinks/audit_sinks.ts";
import type { HttpTarget, SinkOptions } from "../audit/sinks/sink_options.ts";
import { type Config, sinkHosts } from "../config/config.ts";
import { parseRedisAddress } from "../config/redis_setting.ts";
import { syslogPort } from "../config/sink_settings.ts";
import { Fault } from "../faults/fault.ts";
import { type Log, standardOutput } from "../telemetry/log.ts";
import { readCertificates } from "./certificates.ts";

type Setting = Config["auditSinks"][number];

/** Where the cursors of a data folder are. */
export function sinkFolder(dataDir: string): string {
  return `${dataDir}/audit-sinks`;
}

/** Opens the sinks of the settings; undefined where there are none. The trail is open. */
export function openSinks(
  config: Config,
  log: Log,
  sealingKeys: () => ReadonlyMap<string, Uint8Array>,
): AuditSinks | undefined {
  if (config.auditSinks.length === 0) return undefined;
  return openAuditSinks({
    ...auditFolders(config.dataDir),
    cursorDirectory: sinkFolder(config.dataDir),
    sinks: config.auditSinks.map((setting) => sinkOptions(setting, config)),
    hosts: sinkHosts(config),
    sealingKeys,
    log,
    standardOutput,
  });
}

function sinkOptions(setting: Setting, config: Config): SinkOptions {
  const { name, from } = setting;
  const keys = config.auditSinkKeys;
  const secret = Object.hasOwn(keys, name) ? keys[name] : undefined;
  const caCertificates = "caFile" in setting && setting.caFile !== undefined
    ? readCertificates(setting.caFile)
    : undefined;
  if (setting.kind === "witness") {
    return { name, from, kind: "witness", ...httpTarget(setting, secret, caCertificates) };
  }
  const common = { name, from, classes: setting.classes };
  switch (setting.kind) {
    case "stdout":
      return { ...common, kind: "stdout" };
    case "otlp":
      return { ...common, kind: "otlp", ...httpTarget(setting, secret, caCertificates) };
    case "loki":
      return {
        ...common,
        kind: "loki",
        tenant: setting.tenant,
        ...httpTarget(setting, secret, caCertificates),
      };
    case "syslog":
      return {
        ...common,
        kind: "syslog",
        host: setting.host,
        port: syslogPort(setting),
        tls: setting.tls,
        caCertificates,
        facility: setting.facility,
        sender: new URL(config.publicUrl).hostname,
      };
    case "redis_stream": {
      const address = parseRedisAddress(secret ?? "");
      if (address === undefined) {
        throw new Fault("internal", `Cannot open the sink ${name}: its address was not checked`);
      }
      const { stream, entriesMax } = setting;
      return { ...common, kind: "redis_stream", stream, entriesMax, address, caCertificates };
    }
  }
}

function httpTarget(
  { url, headers, username }: Extract<Setting, { url: string }>,
  secret: string | undefined,
  caCertificates: string | undefined,
): HttpTarget {
  return { url, headers, username, secret, caCertificates };
}
