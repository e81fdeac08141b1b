// Tests of the configuration: a pure function of its sources that reports every mistake at once and repeats no secret.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  type Config,
  type ConfigMistake,
  type ConfigSources,
  outgoingHosts,
  parseConfig,
} from "../../src/config/config.ts";
import { generateSigningKey } from "../../src/identity/signing_keys.ts";
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { DEFAULT_BANS } from "../../src/config/limit_settings.ts";
import { type SettingName, SETTINGS, variableOf } from "../../src/config/schema.ts";

const MASTER_KEY = "3q2-7wAdZfN4XbYh0kQmRsTuVgWc1iLjE5oPlC8y9zA";
const OLD_MASTER_KEY = "Qw8ZkP0vTn3yXbUeRj7mLs1dGf5hCa2oIi6KtVxNz9E";
const SIGNING_KEY = await generateSigningKey();
const PASSWORD = "violet-kettle-harbour-31";

/** An upstream with every field that has a default. */
const UPSTREAM = {
  name: "gpu",
  kind: "openai",
  url: "https://gpu.example.com/v1",
  plainHttp: false,
  requestsAtOnceMax: 1,
  connectTimeoutMs: 10,
  firstByteTimeoutMs: 11,
  betweenBytesTimeoutMs: 12,
  wholeTimeoutMs: 13,
  answerBytesMax: 1024,
  usageInStreams: false,
  healthSeconds: 1,
} as const;

/** An issuer with every field that has a default. */
const ISSUER = {
  issuer: "https://login.example.com",
  audience: "portcullis",
  jwksUrl: "https://keys.example.com/jwks",
  discovery: false,
  algorithms: ["ES256"],
  leewaySeconds: 0,
  lifetimeSecondsMax: 60,
  tokenType: "JWT",
  rolesClaim: "/groups",
  roles: { staff: ["user"] },
  team: "research",
  plainHttp: true,
} as const;

/** Variables with which production starts. */
const PRODUCTION = {
  PORTCULLIS_MODE: "production",
  PORTCULLIS_PUBLIC_URL: "https://ai.example.com",
  PORTCULLIS_MASTER_KEY: MASTER_KEY,
  PORTCULLIS_SIGNING_KEY: SIGNING_KEY,
  PORTCULLIS_ADMIN_PASSWORD: PASSWORD,
};

function sources(variables: Record<string, string>, file?: unknown): ConfigSources {
  return { variables, file, cores: 4, storeExists: () => false };
}

function configOf(variables: Record<string, string>, file?: unknown): Config {
  const outcome = parseConfig(sources(variables, file));
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.mistakes));
  return outcome.config;
}

function mistakesOf(variables: Record<string, string>, file?: unknown): readonly ConfigMistake[] {
  const outcome = parseConfig(sources(variables, file));
  return outcome.ok ? [] : outcome.mistakes;
}

const placesOf = (mistakes: readonly ConfigMistake[]) => mistakes.map(({ where }) => where).sort();

Deno.test("without any setting the configuration is the documented one: loopback, development, no secret", () => {
  deepStrictEqual(configOf({}), {
    mode: "development",
    host: "127.0.0.1",
    port: 8000,
    publicUrl: "http://127.0.0.1:8000",
    allowedHosts: [],
    trustedProxies: [],
    corsOrigins: [],
    dataDir: "data",
    modelsDir: "models",
    modelSigners: [],
    modelsPlain: "allow",
    upstreams: [],
    upstreamModels: [],
    roleCaps: {},
    upstreamProxy: "none",
    issuers: [],
    imageHosts: [],
    bodyBytesMax: 1_048_576,
    mediaBodyBytesMax: 16_777_216,
    uploadBytesMax: 26_214_400,
    bodiesBytesMax: 134_217_728,
    bodyTimeoutMs: 10_000,
    requestTimeoutMs: 30_000,
    generationTimeoutMs: 600_000,
    shutdownTimeoutMs: 8000,
    headTimeoutMs: 10_000,
    idleTimeoutMs: 60_000,
    connectionsMax: 10_000,
    rateAddressPerMinute: 100,
    rateSignInPerMinute: 10,
    rateTokenPerMinute: 60,
    rateUserPerMinute: 500,
    requestsAtOncePerUser: 16,
    limits: [],
    degradedPercent: 25,
    bans: {
      enabled: true,
      credentials: { count: 20, seconds: 300 },
      validation: { count: 50, seconds: 600 },
      probes: { count: 3, seconds: 600 },
      firstSeconds: 86_400,
      secondSeconds: 7 * 86_400,
    },
    banExempt: ["127.0.0.0/8", "::1"],
    inferencesAtOnceMax: 1024,
    loopLagMsMax: 250,
    lowPriorityRoles: [],
    redisUrl: undefined,
    redisPrefix: "portcullis",
    redisHosts: [],
    redisCaFile: undefined,
    storeTimeoutMs: 250,
    storeStaleMsMax: 1000,
    tokenTtlSeconds: 900,
    sessionTtlSeconds: 30 * 86_400,
    engineWorkers: 3,
    engineQueueMax: 256,
    auditSegmentBytesMax: 67_108_864,
    auditTimeoutMs: 2000,
    auditAtRest: "plain",
    auditCheckpointEntries: 10_000,
    auditCheckpointMs: 60_000,
    auditLostTrail: "refuse",
    auditSecurityDays: 365,
    auditActivityDays: 90,
    auditAddresses: "pseudonym",
    auditSubjects: "plain",
    auditPayloads: [],
    auditSinks: [],
    logLevel: "info",
    adminPassword: undefined,
    masterKey: undefined,
    keyServiceUrl: undefined,
    keyServiceMount: "transit",
    keyServiceKey: "portcullis",
    keyServiceToken: undefined,
    keyServiceNamespace: undefined,
    keyServiceCaFile: undefined,
    signingKey: undefined,
    upstreamKeys: {},
    auditSinkKeys: {},
    secretFiles: {},
  });
});

Deno.test("what is computed from other settings follows them", () => {
  strictEqual(configOf({ PORTCULLIS_HOST: "::1", PORTCULLIS_PORT: "81" }).publicUrl, "http://[::1]:81");
  strictEqual(configOf({ PORTCULLIS_HOST: "localhost" }).publicUrl, "http://localhost:8000");
  const alone = parseConfig({ ...sources({}), cores: 1 });
  strictEqual(alone.ok && alone.config.engineWorkers, 1);
});

const POLICY = { name: "free", subject: "user", for: {}, requestsPerMinute: 5 } as const;

/** A value for each setting that is not its default: as text for the environment and as JSON for the file. */
const OTHER: Readonly<Record<SettingName, readonly [text: string, json: unknown]>> = {
  mode: ["production", "production"],
  host: ["localhost", "localhost"],
  port: ["8443", 8443],
  publicUrl: ["https://ai.example.com", "https://ai.example.com"],
  allowedHosts: ["a.example, b.example:81", ["a.example", "b.example:81"]],
  trustedProxies: ["10.0.0.0/8,::1", ["10.0.0.0/8", "::1"]],
  corsOrigins: ["https://a.example", ["https://a.example"]],
  dataDir: ["/var/lib/portcullis", "/var/lib/portcullis"],
  modelsDir: ["other-models", "other-models"],
  modelSigners: ["A".repeat(43), ["A".repeat(43)]],
  modelsPlain: ["refuse", "refuse"],
  upstreams: [JSON.stringify([UPSTREAM]), [UPSTREAM]],
  upstreamModels: ["[]", []],
  roleCaps: ['{"user":{"imagesMax":1}}', { user: { imagesMax: 1 } }],
  upstreamProxy: ["environment", "environment"],
  issuers: [JSON.stringify([ISSUER]), [ISSUER]],
  imageHosts: ["images.example.com", ["images.example.com"]],
  bodyBytesMax: ["2048", 2048],
  mediaBodyBytesMax: ["2049", 2049],
  uploadBytesMax: ["2050", 2050],
  bodiesBytesMax: ["1048577", 1_048_577],
  bodyTimeoutMs: ["101", 101],
  requestTimeoutMs: ["102", 102],
  generationTimeoutMs: ["104", 104],
  shutdownTimeoutMs: ["103", 103],
  headTimeoutMs: ["105", 105],
  idleTimeoutMs: ["106", 106],
  connectionsMax: ["9", 9],
  rateAddressPerMinute: ["1", 1],
  rateSignInPerMinute: ["2", 2],
  rateTokenPerMinute: ["3", 3],
  requestsAtOncePerUser: ["7", 7],
  limits: [JSON.stringify([POLICY]), [POLICY]],
  degradedPercent: ["50", 50],
  bans: ['{"enabled":false}', { ...DEFAULT_BANS, enabled: false }],
  banExempt: ["192.0.2.0/24", ["192.0.2.0/24"]],
  inferencesAtOnceMax: ["11", 11],
  loopLagMsMax: ["12", 12],
  lowPriorityRoles: ["user,guest", ["user", "guest"]],
  redisUrl: ["rediss://:word@redis.example.com", "rediss://:word@redis.example.com"],
  redisPrefix: ["other", "other"],
  redisHosts: ["10.0.0.7:6379", ["10.0.0.7:6379"]],
  redisCaFile: ["/etc/ca.pem", "/etc/ca.pem"],
  storeTimeoutMs: ["13", 13],
  storeStaleMsMax: ["501", 501],
  rateUserPerMinute: ["3", 3],
  tokenTtlSeconds: ["60", 60],
  sessionTtlSeconds: ["600", 600],
  engineWorkers: ["7", 7],
  engineQueueMax: ["8", 8],
  auditSegmentBytesMax: ["65536", 65_536],
  auditTimeoutMs: ["51", 51],
  auditAtRest: ["sealed", "sealed"],
  auditCheckpointEntries: ["5", 5],
  auditCheckpointMs: ["101", 101],
  auditLostTrail: ["begin", "begin"],
  auditSecurityDays: ["7", 7],
  auditActivityDays: ["8", 8],
  auditAddresses: ["plain", "plain"],
  auditSubjects: ["pseudonym", "pseudonym"],
  auditSinks: ['[{"name":"out","kind":"stdout"}]', [{ name: "out", kind: "stdout", from: "now" }]],
  auditPayloads: ['[{"models":["gpt-*"],"parts":["input"]}]', [{ models: ["gpt-*"], parts: ["input"] }]],
  logLevel: ["error", "error"],
  adminPassword: [PASSWORD, PASSWORD],
  masterKey: [`${MASTER_KEY}\n${OLD_MASTER_KEY}`, `${MASTER_KEY}\n${OLD_MASTER_KEY}`],
  keyServiceUrl: ["https://vault.example.com:8200", "https://vault.example.com:8200"],
  keyServiceMount: ["keys/transit", "keys/transit"],
  keyServiceKey: ["other", "other"],
  keyServiceToken: ["hvs.word", "hvs.word"],
  keyServiceNamespace: ["team/one", "team/one"],
  keyServiceCaFile: ["/etc/ca.pem", "/etc/ca.pem"],
  signingKey: [SIGNING_KEY, SIGNING_KEY],
};
const names = Object.keys(OTHER) as SettingName[];
/** What production needs besides the setting under test. */
const around = (name: SettingName) =>
  name === "mode"
    ? PRODUCTION
    : name === "keyServiceUrl"
    ? { PORTCULLIS_KEY_SERVICE_TOKEN: "hvs.word" }
    : name === "redisUrl"
    ? { PORTCULLIS_MASTER_KEY: MASTER_KEY }
    : {};

Deno.test("every setting is read from its variable", () => {
  deepStrictEqual(names.sort(), Object.keys(SETTINGS).sort());
  for (const name of names) {
    const [text, json] = OTHER[name];
    deepStrictEqual(configOf({ ...around(name), [variableOf(name)]: text })[name], json, name);
  }
});

Deno.test("every setting that is no secret is read from the file, and its variable wins over the file", () => {
  for (const name of names.filter((name) => !SETTINGS[name].secret)) {
    const [text, json] = OTHER[name];
    const { PORTCULLIS_MODE: _, ...rest } = PRODUCTION;
    deepStrictEqual(configOf(name === "mode" ? rest : around(name), { [name]: json })[name], json, name);
    const different = SETTINGS[name].fallback ??
      (name === "engineWorkers" ? 99 : name === "redisCaFile" ? "/other.pem" : "https://other.example");
    deepStrictEqual(
      configOf({ ...around(name), [variableOf(name)]: text }, { [name]: different })[name],
      json,
      name,
    );
  }
});

Deno.test("a variable's name is its setting's in capitals with underscores", () => {
  strictEqual(variableOf("dataDir"), "PORTCULLIS_DATA_DIR");
  strictEqual(variableOf("rateSignInPerMinute"), "PORTCULLIS_RATE_SIGN_IN_PER_MINUTE");
  strictEqual(new Set(names.map(variableOf)).size, names.length);
});

Deno.test("every setting refuses a value of a wrong kind, from the variable and from the file", () => {
  for (const name of names) {
    const variable = variableOf(name);
    deepStrictEqual(placesOf(mistakesOf({ [variable]: "\u0000 , no" })), [variable]);
    for (const wrong of [null, true, { "": 0 }, [null], 1.5, "\u0000"]) {
      deepStrictEqual(
        placesOf(mistakesOf({}, { [name]: wrong })),
        [`portcullis.json: ${name}`],
        `${name}: ${JSON.stringify(wrong)}`,
      );
    }
  }
});

Deno.test("a mistake names the place, the value and what is allowed", () => {
  deepStrictEqual(mistakesOf({ PORTCULLIS_PORT: "70000" }, { logLevel: ["loud"] }), [
    { where: "PORTCULLIS_PORT", what: 'is "70000"; allowed: a whole number from 1 to 65535' },
    {
      where: "portcullis.json: logLevel",
      what: 'is ["loud"]; allowed: "debug" or "info" or "warn" or "error"',
    },
  ]);
});

Deno.test("numbers are taken at their bounds and refused beyond them", () => {
  for (
    const [name, min, max] of [
      ["port", 1, 65_535],
      ["bodyBytesMax", 1024, 67_108_864],
      ["tokenTtlSeconds", 60, 3600],
      ["auditTimeoutMs", 50, 60_000],
      ["engineWorkers", 1, 256],
    ] as const
  ) {
    const variable = variableOf(name);
    strictEqual(configOf({ [variable]: String(min) })[name], min);
    strictEqual(configOf({ [variable]: String(max) })[name], max);
    for (const beyond of [min - 1, max + 1]) {
      deepStrictEqual(placesOf(mistakesOf({ [variable]: String(beyond) })), [variable]);
    }
  }
});

Deno.test("a host is a name in lower case or an address, without scheme, port or path", () => {
  const trusting = { PORTCULLIS_TRUSTED_PROXIES: "10.0.0.1" };
  for (const host of ["0.0.0.0", "::", "fe80::1", "ai.example.com", "a"]) {
    strictEqual(configOf({ ...trusting, PORTCULLIS_HOST: host }).host, host);
  }
  for (
    const host of [
      "",
      "AI.example.com",
      "a:80",
      "cafe:80",
      "FE80::1",
      "::1%1",
      "http://a",
      "a/b",
      "a b",
      "-a",
      "a.",
      "[::1]",
      "a\n",
    ]
  ) {
    deepStrictEqual(placesOf(mistakesOf({ ...trusting, PORTCULLIS_HOST: host })), ["PORTCULLIS_HOST"], host);
  }
});

Deno.test("paths hold no control characters and no comma, which would split a permission flag", () => {
  for (const dataDir of ["a,b", "a\nb", "", "\u0085", "x".repeat(1001)]) {
    deepStrictEqual(placesOf(mistakesOf({ PORTCULLIS_DATA_DIR: dataDir })), ["PORTCULLIS_DATA_DIR"]);
  }
});

Deno.test("all mistakes are reported at once, of the environment and of the file, each once", () => {
  deepStrictEqual(
    placesOf(mistakesOf({
      PORTCULLIS_PORT: "x",
      PORTCULLIS_LOG_LEVEL: "loud",
      PORTCULLIS_NO_SUCH: "1",
      PORTCULLIS_MASTER_KEY: "short",
    }, { bodyBytesMax: -1, noSuch: true, masterKey: MASTER_KEY, port: 1 })),
    [
      "PORTCULLIS_LOG_LEVEL",
      "PORTCULLIS_MASTER_KEY",
      "PORTCULLIS_NO_SUCH",
      "PORTCULLIS_PORT",
      "portcullis.json: bodyBytesMax",
      "portcullis.json: masterKey",
      "portcullis.json: noSuch",
    ],
  );
});

Deno.test("a wrong value hides no other mistake: what is unknown, wrong and missing is told in one go, and only once", () => {
  deepStrictEqual(
    placesOf(mistakesOf({
      PORTCULLIS_MODE: "production",
      PORTCULLIS_HOST: "",
      PORTCULLIS_MASTER_KEY: "short",
      PORTCULLIS_ADMIN_PASSWORD: "change-me-please",
    }, { publicUrl: "not an origin", noSuch: 1 })),
    [
      "PORTCULLIS_ADMIN_PASSWORD",
      "PORTCULLIS_HOST",
      "PORTCULLIS_MASTER_KEY",
      "PORTCULLIS_SIGNING_KEY",
      "portcullis.json: noSuch",
      "portcullis.json: publicUrl",
    ],
  );
});

Deno.test("trusted proxies that are wrong make no host trusted", () => {
  deepStrictEqual(
    placesOf(mistakesOf({ PORTCULLIS_HOST: "0.0.0.0", PORTCULLIS_TRUSTED_PROXIES: "10.0.0.0/99" })),
    [
      "PORTCULLIS_HOST",
      "PORTCULLIS_TRUSTED_PROXIES",
    ],
  );
});

Deno.test("an unknown variable or field is a mistake, with the nearest name where there is one", () => {
  const whatOf = (variables: Record<string, string>, file?: unknown) =>
    mistakesOf(variables, file).map(({ what }) => what);
  deepStrictEqual(whatOf({ PORTCULLIS_PROT: "1" }), ["is no setting (did you mean PORTCULLIS_PORT?)"]);
  deepStrictEqual(whatOf({ PORTCULLIS_LOGLEVEL: "info" }), [
    "is no setting (did you mean PORTCULLIS_LOG_LEVEL?)",
  ]);
  deepStrictEqual(whatOf({ PORTCULLIS_SOMETHING_ELSE: "1" }), ["is no setting"]);
  deepStrictEqual(whatOf({}, { datadir: "x" }), ["is no setting (did you mean dataDir?)"]);
  deepStrictEqual(whatOf({}, { PORTCULLIS_PORT: 1 }), ["is no setting"]);
  deepStrictEqual(whatOf({}, JSON.parse('{"__proto__":{"port":1},"constructor":1}')), [
    "is no setting",
    "is no setting",
  ]);
});

Deno.test("a file that is no JSON object is a mistake", () => {
  for (const file of [null, [], "text", 1, true]) {
    deepStrictEqual(mistakesOf({}, file), [{ where: "portcullis.json", what: "is not a JSON object" }]);
  }
});

Deno.test("ASVS V13.3.1: secrets in the file are refused, and no mistake repeats a secret's value", () => {
  for (const name of ["masterKey", "signingKey", "adminPassword"] as const) {
    const [value] = OTHER[name];
    const variable = variableOf(name);
    const inFile = mistakesOf({}, { [name]: value });
    deepStrictEqual(placesOf(inFile), [`portcullis.json: ${name}`]);
    match(inFile[0]?.what ?? "", new RegExp(`use ${variable} or ${variable}_FILE`));
    // Too long, too short: malformed, and still nobody's business.
    for (const wrong of [`${value}!\u0000`.repeat(20), value.slice(0, 9)]) {
      const mistakes = mistakesOf({ [variable]: wrong });
      deepStrictEqual(placesOf(mistakes), [variable], wrong);
      ok(!JSON.stringify([...mistakes, ...inFile]).includes(value.slice(0, 9)), name);
    }
  }
});

Deno.test("ASVS V12.2.1: a host that other machines reach is refused unless a proxy is named", () => {
  for (const host of ["0.0.0.0", "::", "10.0.0.5", "ai.example.com", "127.0.0.1.example.com", "128.0.0.1"]) {
    deepStrictEqual(placesOf(mistakesOf({ PORTCULLIS_HOST: host })), ["PORTCULLIS_HOST"], host);
    strictEqual(
      configOf({ PORTCULLIS_HOST: host, PORTCULLIS_TRUSTED_PROXIES: "10.0.0.1" }).host,
      host,
    );
  }
  for (const host of ["127.0.0.1", "127.8.9.10", "::1", "localhost"]) {
    strictEqual(configOf({ PORTCULLIS_HOST: host }).host, host);
  }
});

Deno.test("a proxy that the environment names is a mistake where upstreams or issuers are set and nothing says that it is meant", () => {
  const variables = { PORTCULLIS_UPSTREAMS: JSON.stringify([UPSTREAM]) };
  const placesWith = (proxyVariables: readonly string[], variables: Record<string, string>) => {
    const outcome = parseConfig({ ...sources(variables), proxyVariables });
    return outcome.ok ? [] : placesOf(outcome.mistakes);
  };
  deepStrictEqual(placesWith(["all_proxy", "HTTP_PROXY"], variables), ["HTTP_PROXY", "all_proxy"]);
  deepStrictEqual(placesWith(["HTTP_PROXY"], { ...variables, PORTCULLIS_UPSTREAM_PROXY: "none" }), [
    "HTTP_PROXY",
  ]);
  deepStrictEqual(placesWith(["HTTP_PROXY"], { PORTCULLIS_ISSUERS: JSON.stringify([ISSUER]) }), [
    "HTTP_PROXY",
  ]);
  deepStrictEqual(placesWith([], variables), []);
  deepStrictEqual(placesWith(["HTTP_PROXY"], {}), []);
  deepStrictEqual(placesWith(["HTTP_PROXY"], { ...variables, PORTCULLIS_UPSTREAM_PROXY: "environment" }), []);
});

Deno.test("ASVS V6.3.2: production starts with all its secrets and refuses to start without, naming all that is missing", () => {
  strictEqual(configOf(PRODUCTION).mode, "production");
  deepStrictEqual(placesOf(mistakesOf({ PORTCULLIS_MODE: "production" })), [
    "PORTCULLIS_ADMIN_PASSWORD",
    "PORTCULLIS_MASTER_KEY",
    "PORTCULLIS_PUBLIC_URL",
    "PORTCULLIS_SIGNING_KEY",
  ]);
  for (const missing of Object.keys(PRODUCTION).filter((variable) => variable !== "PORTCULLIS_MODE")) {
    const { [missing as keyof typeof PRODUCTION]: _, ...rest } = PRODUCTION;
    deepStrictEqual(placesOf(mistakesOf(rest)), [missing]);
  }
  deepStrictEqual(placesOf(mistakesOf({ ...PRODUCTION, PORTCULLIS_PUBLIC_URL: "http://ai.example.com" })), [
    "PORTCULLIS_PUBLIC_URL",
  ]);
});

Deno.test("production with a Redis asks the start for the first password, which sees whether there is a user", () => {
  const { PORTCULLIS_ADMIN_PASSWORD: _, ...variables } = PRODUCTION;
  const redis = { PORTCULLIS_REDIS_URL: "rediss://:word@redis.example.com" };
  deepStrictEqual(mistakesOf({ ...variables, ...redis }), []);
});

Deno.test("whoever shares a Redis names the master key or a key service, also in development: a data folder's own key is one instance's", () => {
  const redis = { PORTCULLIS_REDIS_URL: "redis://127.0.0.1" };
  const [mistake] = mistakesOf(redis);
  strictEqual(mistake?.where, "PORTCULLIS_MASTER_KEY");
  match(mistake.what, /is missing: all that share the Redis of PORTCULLIS_REDIS_URL need the same one/);
  const service = {
    PORTCULLIS_KEY_SERVICE_URL: "https://vault.example.com:8200",
    PORTCULLIS_KEY_SERVICE_TOKEN: "hvs.word",
  };
  deepStrictEqual(mistakesOf({ ...redis, PORTCULLIS_MASTER_KEY: MASTER_KEY }), []);
  deepStrictEqual(mistakesOf({ ...redis, ...service }), []);
});

Deno.test("ASVS V12.3.1: a key service in plain HTTP on this machine is not reached through a proxy of the environment", () => {
  const service = {
    PORTCULLIS_KEY_SERVICE_URL: "http://127.0.0.1:8200",
    PORTCULLIS_KEY_SERVICE_TOKEN: "hvs.word",
  };
  deepStrictEqual(mistakesOf(service), []);
  const [mistake] = mistakesOf({ ...service, PORTCULLIS_UPSTREAM_PROXY: "environment" });
  strictEqual(mistake?.where, "PORTCULLIS_KEY_SERVICE_URL");
  match(mistake.what, /a proxy would read every data key/);
  const tls = { ...service, PORTCULLIS_KEY_SERVICE_URL: "https://127.0.0.1:8200" };
  deepStrictEqual(mistakesOf({ ...tls, PORTCULLIS_UPSTREAM_PROXY: "environment" }), []);
});

Deno.test("ASVS V12.3.1, V13.2.1: production reaches a Redis elsewhere over TLS and with a password only; on loopback it may be plain", () => {
  const wrong = (url: string, mode = PRODUCTION): readonly string[] =>
    mistakesOf({ ...mode, PORTCULLIS_REDIS_URL: url }).map(({ what }) => what);
  deepStrictEqual(wrong("redis://:word@redis.example.com").map((what) => what.slice(0, 17)), [
    "is plain redis://",
  ]);
  deepStrictEqual(wrong("rediss://redis.example.com").map((what) => what.slice(0, 15)), ["has no password"]);
  strictEqual(wrong("redis+cluster://127.0.0.1,10.0.0.7").length, 2);
  for (
    const url of [
      "redis://127.0.0.1",
      "redis://localhost:7000/2",
      "redis://[::1]",
      "rediss://u:p@redis.example.com",
    ]
  ) {
    deepStrictEqual(wrong(url), [], url);
  }
  const development = { PORTCULLIS_MASTER_KEY: MASTER_KEY };
  deepStrictEqual(mistakesOf({ ...development, PORTCULLIS_REDIS_URL: "redis://redis.example.com" }), []);
  // Sentinels and a cluster on this machine may point to another one.
  for (const url of ["redis+sentinel://:word@127.0.0.1/main", "redis+cluster://:word@127.0.0.1"]) {
    deepStrictEqual(wrong(url), [], url);
    const elsewhere = { PORTCULLIS_REDIS_URL: url, PORTCULLIS_REDIS_HOSTS: "10.0.0.5:6379" };
    deepStrictEqual(placesOf(mistakesOf({ ...PRODUCTION, ...elsewhere })), ["PORTCULLIS_REDIS_URL"], url);
  }
});

Deno.test("production with a store needs no first password, and the data folder asked about is the one that is set", () => {
  const { PORTCULLIS_ADMIN_PASSWORD: _, ...variables } = PRODUCTION;
  const asked: string[] = [];
  const outcome = parseConfig({
    ...sources({ ...variables, PORTCULLIS_DATA_DIR: "/srv/data" }),
    storeExists(dataDir) {
      asked.push(dataDir);
      return true;
    },
  });
  strictEqual(outcome.ok, true);
  deepStrictEqual(asked, ["/srv/data"]);
});

Deno.test("ASVS V6.3.2: placeholders and secrets that are not random are refused in every mode", () => {
  for (
    const password of [
      "change-me-please",
      "CHANGEME12345678",
      "password12345678",
      "Admin1234567890",
      "my-example-secret",
      "your_password_here",
      "letmein-letmein",
      "aaaaaaaaaaaaaaaa",
      "aaaaabcdeaaaa",
      "abababababababab",
      "<replace this value>",
      "a placeholder text",
    ]
  ) {
    for (const mode of [{}, PRODUCTION]) {
      deepStrictEqual(
        placesOf(mistakesOf({ ...mode, PORTCULLIS_ADMIN_PASSWORD: password })),
        ["PORTCULLIS_ADMIN_PASSWORD"],
        password,
      );
    }
  }
  for (
    const key of [
      "A".repeat(43),
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ",
      "0123456789".repeat(5).slice(0, 43),
      `example${MASTER_KEY}`.slice(0, 43),
    ]
  ) {
    deepStrictEqual(placesOf(mistakesOf({ PORTCULLIS_MASTER_KEY: key })), ["PORTCULLIS_MASTER_KEY"], key);
  }
  const zeros = `-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI${
    "A".repeat(43)
  }\n-----END PRIVATE KEY-----\n`;
  deepStrictEqual(placesOf(mistakesOf({ PORTCULLIS_SIGNING_KEY: zeros })), ["PORTCULLIS_SIGNING_KEY"]);
});

Deno.test("keys that deno task keys makes are never taken for weak", async () => {
  for (let round = 0; round < 300; round++) {
    const variables = {
      PORTCULLIS_MASTER_KEY: generateMasterKey(),
      PORTCULLIS_SIGNING_KEY: await generateSigningKey(),
    };
    deepStrictEqual(mistakesOf(variables), []);
  }
});

Deno.test("a password counts its characters, whatever they are: 12 to 256", () => {
  for (const password of ["åß∂ƒ©˙∆˚¬…æ!", "🔑🗝🚪🏰🛡⚔🧱🪨🔒🔓🕯🪵", "two\nlines, quite long"]) {
    strictEqual(configOf({ PORTCULLIS_ADMIN_PASSWORD: password }).adminPassword, password);
  }
  const long = Array.from({ length: 257 }, (_, index) => String.fromCharCode(0x100 + index % 50));
  strictEqual(configOf({ PORTCULLIS_ADMIN_PASSWORD: long.slice(1).join("") }).adminPassword?.length, 256);
  for (const password of ["eleven-char", long.join(""), "🔑🗝🚪🏰🛡⚔🧱🪨🔒🔓🕯"]) {
    deepStrictEqual(placesOf(mistakesOf({ PORTCULLIS_ADMIN_PASSWORD: password })), [
      "PORTCULLIS_ADMIN_PASSWORD",
    ]);
  }
});

Deno.test("property: whatever the sources hold, the outcome is a configuration or a list of mistakes", () => {
  const variables = fc.dictionary(
    fc.oneof(fc.constantFrom(...names.map(variableOf)), fc.string().map((text) => `PORTCULLIS_${text}`)),
    fc.oneof(fc.string(), fc.constantFrom("", "1", "production", "::", "0.0.0.0", "10.0.0.0/8", PASSWORD)),
  );
  const file = fc.oneof(
    fc.jsonValue(),
    fc.dictionary(fc.oneof(fc.constantFrom(...names), fc.string()), fc.jsonValue()),
  );
  fc.assert(fc.property(variables, file, (variables, file) => {
    const outcome = parseConfig(sources(variables, file));
    if (outcome.ok) return;
    ok(outcome.mistakes.length > 0);
    for (const { where, what } of outcome.mistakes) ok(where.length > 0 && what.length > 0);
  }));
});

Deno.test("a key service takes the place of the master key in production, over https or on this machine, and with a token", () => {
  const { PORTCULLIS_MASTER_KEY: _, ...others } = PRODUCTION;
  const service = {
    PORTCULLIS_KEY_SERVICE_URL: "https://vault.example.com",
    PORTCULLIS_KEY_SERVICE_TOKEN: "hvs.word",
  };
  strictEqual(configOf({ ...others, ...service }).masterKey, undefined);
  ok(outgoingHosts(configOf({ ...others, ...service })).includes("vault.example.com:443"));
  deepStrictEqual(placesOf(mistakesOf(others)), ["PORTCULLIS_MASTER_KEY"]);
  deepStrictEqual(placesOf(mistakesOf({ ...PRODUCTION, ...service })), ["PORTCULLIS_KEY_SERVICE_URL"]);
  const { PORTCULLIS_KEY_SERVICE_TOKEN: __, ...withoutToken } = service;
  deepStrictEqual(placesOf(mistakesOf(withoutToken)), ["PORTCULLIS_KEY_SERVICE_TOKEN"]);
  const plain = (url: string) => ({ ...service, PORTCULLIS_KEY_SERVICE_URL: url });
  strictEqual(
    configOf(plain("http://127.0.0.1:8200")).keyServiceUrl,
    "http://127.0.0.1:8200",
  );
  deepStrictEqual(placesOf(mistakesOf(plain("http://10.0.0.9:8200"))), ["PORTCULLIS_KEY_SERVICE_URL"]);
});

Deno.test("of several master keys every one must be random", () => {
  deepStrictEqual(
    placesOf(mistakesOf({ PORTCULLIS_MASTER_KEY: `${MASTER_KEY} ${"a".repeat(43)}` })),
    ["PORTCULLIS_MASTER_KEY"],
  );
  strictEqual(
    configOf({ PORTCULLIS_MASTER_KEY: `${MASTER_KEY}\r\n${OLD_MASTER_KEY}\n` }).mode,
    "development",
  );
});

Deno.test("a model signer is an Ed25519 public key, in base64url or as PEM, and nothing else", async () => {
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]) as CryptoKeyPair;
  const exported = async (format: "raw" | "spki") =>
    new Uint8Array(await crypto.subtle.exportKey(format, pair.publicKey));
  const raw = (await exported("raw")).toBase64({ alphabet: "base64url", omitPadding: true });
  const pem = `-----BEGIN PUBLIC KEY-----\n${
    (await exported("spki")).toBase64()
  }\n-----END PUBLIC KEY-----\n`;
  deepStrictEqual(configOf({ PORTCULLIS_MODEL_SIGNERS: `${raw},${pem}` }).modelSigners, [raw, raw]);
  deepStrictEqual(configOf({}, { modelSigners: [pem] }).modelSigners, [raw]);
  const otherKind = pem.replace("MCowBQYDK2Vw", "MCowBQYDK2Vu");
  for (
    const wrong of [raw.slice(1), `${raw}A`, otherKind, pem.replace("PUBLIC", "PRIVATE"), pem.slice(0, 60)]
  ) {
    deepStrictEqual(
      placesOf(mistakesOf({ PORTCULLIS_MODEL_SIGNERS: wrong })),
      ["PORTCULLIS_MODEL_SIGNERS"],
      wrong,
    );
  }
});
