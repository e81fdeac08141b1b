// Tests of the settings of sinks: what has a default, what is refused, where secrets come from, which hosts and files are granted.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { permissionFlags } from "../../src/cli/permission_flags.ts";
import {
  type Config,
  type ConfigMistake,
  outgoingHosts,
  parseConfig,
  sinkHosts,
} from "../../src/config/config.ts";

const KEY = "PORTCULLIS_AUDIT_SINK_KEY_";

function parse(auditSinks: unknown, variables: Record<string, string> = {}) {
  return parseConfig({ variables, file: { auditSinks }, cores: 2, storeExists: () => true });
}

function configOf(auditSinks: unknown, variables: Record<string, string> = {}): Config {
  const outcome = parse(auditSinks, variables);
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.mistakes));
  return outcome.config;
}

function mistakesOf(auditSinks: unknown, variables: Record<string, string> = {}): readonly ConfigMistake[] {
  const outcome = parse(auditSinks, variables);
  return outcome.ok ? [] : outcome.mistakes;
}

function refused(sink: Record<string, unknown>, words: RegExp): void {
  const mistakes = mistakesOf([sink]);
  strictEqual(mistakes.length, 1, JSON.stringify(mistakes));
  match(mistakes[0]?.what ?? "", words);
}

Deno.test("a sink needs its name, its kind and where it is; everything else has a default", () => {
  deepStrictEqual(
    configOf([
      { name: "out", kind: "stdout" },
      { name: "collector", kind: "otlp", url: "https://otel.example.com" },
      { name: "siem", kind: "syslog", host: "siem.example.com" },
    ]).auditSinks,
    [
      { name: "out", kind: "stdout", from: "now" },
      {
        name: "collector",
        kind: "otlp",
        from: "now",
        url: "https://otel.example.com/",
        plainHttp: false,
        headers: {},
      },
      { name: "siem", kind: "syslog", from: "now", host: "siem.example.com", tls: true, facility: 13 },
    ],
  );
});

Deno.test("what does not fit together is refused with its place", () => {
  refused({ name: "a", kind: "kafka" }, /\[0\]\.kind/);
  refused({ name: "A", kind: "stdout" }, /\[0\]\.name: is no name/);
  refused({ name: "a-file", kind: "stdout" }, /must not end in "-file"/);
  refused({ name: "a", kind: "stdout", url: "https://a.example" }, /\[0\]: .*url/);
  refused({ name: "a", kind: "otlp" }, /\[0\]\.url/);
  refused({ name: "a", kind: "otlp", url: "http://a.example" }, /is plain HTTP to another machine/);
  refused({ name: "a", kind: "otlp", url: "https://u:p@a.example" }, /must hold no user and no password/);
  refused({ name: "a", kind: "loki", url: "https://a.example/?x" }, /without \? and #/);
  refused({ name: "a", kind: "loki", url: "https://a.example", tenant: "a/b" }, /is no tenant/);
  for (const field of ["Authorization", "content-length", "Host", "x y"]) {
    refused({ name: "a", kind: "otlp", url: "https://a.example", headers: { [field]: "x" } }, /header field/);
  }
  refused({ name: "a", kind: "otlp", url: "https://a.example", headers: { a: "x\r\nb: y" } }, /no value/);
  refused({ name: "a", kind: "syslog", host: "a.example:514" }, /is no host/);
  refused({ name: "a", kind: "syslog", host: "a.example", facility: 24 }, /facility/);
  refused({ name: "a", kind: "witness", url: "https://a.example", classes: ["security"] }, /classes/);
  const mistakes = mistakesOf([{ name: "a", kind: "stdout" }, { name: "a", kind: "stdout" }]);
  match(mistakes[0]?.what ?? "", /"a" stands twice/);
});

Deno.test("secrets come from variables of their names only, and only for sinks that have some", () => {
  const sinks = [
    { name: "big-loki", kind: "loki", url: "https://loki.example.com", username: "gate" },
    { name: "constructor", kind: "otlp", url: "https://otel.example.com" },
  ];
  const config = configOf(sinks, { [`${KEY}BIG_LOKI`]: "s3cret" });
  deepStrictEqual({ ...config.auditSinkKeys }, { "big-loki": "s3cret" });
  deepStrictEqual(mistakesOf(sinks).map(({ where }) => where), [`${KEY}BIG_LOKI`]);
  deepStrictEqual(
    mistakesOf([{ name: "out", kind: "stdout" }], { [`${KEY}OUT`]: "x" }).map(({ what }) => what),
    ["is no setting"],
  );
  const spaced = mistakesOf(sinks, { [`${KEY}BIG_LOKI`]: "two words" });
  ok(!JSON.stringify(spaced).includes("two words"));
  strictEqual(spaced[0]?.where, `${KEY}BIG_LOKI`);
});

Deno.test("ASVS V12.3.1, V13.2.1: a stream's Redis has an address, over TLS and with a password where production reaches another machine", () => {
  const sinks = [{ name: "stream", kind: "redis_stream" }];
  const wrong = (url: string | undefined, mode: Record<string, string> = {}) =>
    mistakesOf(sinks, { ...url === undefined ? {} : { [`${KEY}STREAM`]: url }, ...mode })
      .filter(({ where }) => where === `${KEY}STREAM`).map(({ what }) => what.split(/[,;:]/)[0]);
  const production = { PORTCULLIS_MODE: "production" };
  deepStrictEqual(wrong(undefined), ["is missing"]);
  deepStrictEqual(wrong("http://redis.example.com"), ["is malformed"]);
  deepStrictEqual(wrong("redis://redis.example.com"), []);
  deepStrictEqual(wrong("redis://127.0.0.1", production), []);
  deepStrictEqual(wrong("rediss://audit:word@redis.example.com", production), []);
  deepStrictEqual(wrong("redis://redis.example.com", production), [
    "is plain redis",
    "has no password",
  ]);
});

Deno.test("exactly the hosts of sinks are granted, with their ports, and the files of their authorities", () => {
  const config = configOf([
    { name: "out", kind: "stdout" },
    { name: "collector", kind: "otlp", url: "https://otel.example.com", caFile: "/etc/otel.pem" },
    { name: "loki", kind: "loki", url: "http://127.0.0.1:3100/x" },
    { name: "siem", kind: "syslog", host: "siem.example.com", caFile: "/etc/siem.pem" },
    { name: "old", kind: "syslog", host: "::1", tls: false },
    { name: "stream", kind: "redis_stream", hosts: ["10.0.0.7:6379"], caFile: "/etc/redis.pem" },
    { name: "witness", kind: "witness", url: "https://witness.example.org:8443/add" },
  ], { [`${KEY}STREAM`]: "rediss+sentinel://:word@s1.example.com,s2.example.com/main" });
  const hosts = [
    "otel.example.com:443",
    "127.0.0.1:3100",
    "siem.example.com:6514",
    "[::1]:514",
    "s1.example.com:26379",
    "s2.example.com:26379",
    "10.0.0.7:6379",
    "witness.example.org:8443",
  ];
  deepStrictEqual(sinkHosts(config), hosts);
  deepStrictEqual(outgoingHosts(config).toSorted(), hosts.toSorted());
  const flags = permissionFlags(config, []);
  const listOf = (flag: string) =>
    flags.find((each) => each.startsWith(flag))?.split("=")[1]?.split(",") ?? [];
  deepStrictEqual(listOf("--allow-net").slice(1).toSorted(), hosts.toSorted());
  for (const file of ["/etc/otel.pem", "/etc/siem.pem", "/etc/redis.pem"]) {
    ok(listOf("--allow-read").includes(file));
  }
});

Deno.test("a proxy of the environment is a mistake for sinks over HTTP as for upstreams, and none for the others", () => {
  const placesOf = (sink: unknown) => {
    const outcome = parseConfig({
      variables: {},
      file: { auditSinks: [sink] },
      cores: 2,
      storeExists: () => true,
      proxyVariables: ["HTTPS_PROXY"],
    });
    return outcome.ok ? [] : outcome.mistakes.map(({ where }) => where);
  };
  deepStrictEqual(placesOf({ name: "a", kind: "otlp", url: "https://a.example" }), ["HTTPS_PROXY"]);
  deepStrictEqual(placesOf({ name: "a", kind: "syslog", host: "a.example" }), []);
});
