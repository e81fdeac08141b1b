// Config: a pure function from what was set to a checked configuration, or to the list of every mistake.
import { parseRedisAddress, redisUrlType } from "./redis_setting.ts";
import { type SettingName, SETTINGS, variableOf } from "./schema.ts";
import type { SettingType } from "./setting_types.ts";
import { sinkKeyVariable, type SinkSetting, syslogPort } from "./sink_settings.ts";
import { isLoopback, upstreamKeyVariable, type UpstreamSetting } from "./structured_settings.ts";

/** What one setting's value was read as. */
type ValueOf<Type> = Type extends SettingType<infer Value> ? Value : never;
type Values = { readonly [Name in SettingName]: ValueOf<(typeof SETTINGS)[Name]["type"]> };

/** Settings that may be absent once all is checked. */
type Optional =
  | "adminPassword"
  | "masterKey"
  | "keyServiceUrl"
  | "keyServiceToken"
  | "keyServiceNamespace"
  | "keyServiceCaFile"
  | "signingKey"
  | "redisUrl"
  | "redisCaFile";

/** The checked configuration. In production `signingKey` is there, and `masterKey` or `keyServiceUrl` with its token. */
export type Config = Omit<Values, Optional> & { readonly [Name in Optional]: string | undefined } & {
  /** The secrets of upstreams by their names. */
  readonly upstreamKeys: Readonly<Record<string, string>>;
  /** The secrets of sinks by their names; of a Redis its address. */
  readonly auditSinkKeys: Readonly<Record<string, string>>;
  /** The files that secrets were read from, by the variables of the secrets. */
  readonly secretFiles: Readonly<Record<string, string>>;
};

/** One mistake, for a person to read. */
export interface ConfigMistake {
  /** The variable or the place in the file. */
  readonly where: string;
  readonly what: string;
}

/** Everything that settings are read from. */
export interface ConfigSources {
  /** Variables whose names begin with `PORTCULLIS_`; `…_FILE` ones already replaced by the file's content. */
  readonly variables: Readonly<Record<string, string>>;
  /** The files of those, by the names of what they replace: `PORTCULLIS_X`. */
  readonly secretFiles?: Readonly<Record<string, string>>;
  /** The parsed portcullis.json, where there is one. */
  readonly file: unknown;
  /** Names of variables that are set and name a proxy for outgoing calls (HTTP_PROXY); their values may hold passwords. */
  readonly proxyVariables?: readonly string[];
  /** Cores of the machine. */
  readonly cores: number;
  /** Whether a store exists in a data folder: without one, production needs the first user's password. */
  readonly storeExists: (dataDir: string) => boolean;
}

/** The outcome of reading the settings. */
export type ConfigOutcome =
  | { readonly ok: true; readonly config: Config }
  | { readonly ok: false; readonly mistakes: readonly ConfigMistake[] };

const NAMES = Object.keys(SETTINGS) as SettingName[];
const PLACEHOLDER =
  /change.?me|place.?holder|example|replace|insert|your.?(secret|password|key)|^(password|admin|secret|letmein|qwerty)/i;

/** A host with its port as URLs and permission flags write it: IPv6 in brackets (RFC 3986 §3.2.2). */
export function hostAndPort(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Host and port under which a server of these settings is reached on its own machine. */
export function localAddress({ host, port }: Pick<Config, "host" | "port">): string {
  const isEvery = host === "0.0.0.0" || host === "::";
  return hostAndPort(!isEvery ? host : host === "::" ? "::1" : "127.0.0.1", port);
}

/** Host and port of an address that is called, as permission flags write them. */
export function upstreamHost(url: string): string {
  const { hostname, port, protocol } = new URL(url);
  return `${hostname}:${port !== "" ? port : protocol === "https:" ? 443 : 80}`;
}

/** Every host and port that is called under a configuration, each once. */
export function outgoingHosts(config: Config): readonly string[] {
  return [...new Set([...calledHosts(config), ...redisHosts(config), ...sinkHosts(config)])];
}

/** Those of Redis: connections that no proxy for HTTP carries. */
function redisHosts({ redisUrl, redisHosts }: Config): readonly string[] {
  const address = redisUrl === undefined ? undefined : parseRedisAddress(redisUrl);
  return [...(address?.hosts ?? []).map(({ host, port }) => hostAndPort(host, port)), ...redisHosts];
}

/** Those that sinks of the audit trail reach. */
export function sinkHosts({ auditSinks, auditSinkKeys }: Config): readonly string[] {
  return [...new Set(auditSinks.flatMap((sink) => hostsOfSink(sink, keyOf(sink, auditSinkKeys))))];
}

function hostsOfSink(sink: SinkSetting, key: string | undefined): readonly string[] {
  switch (sink.kind) {
    case "stdout":
      return [];
    case "syslog":
      return [hostAndPort(sink.host, syslogPort(sink))];
    case "redis_stream": {
      const address = key === undefined ? undefined : parseRedisAddress(key);
      return [...(address?.hosts ?? []).map(({ host, port }) => hostAndPort(host, port)), ...sink.hosts];
    }
    default:
      return [upstreamHost(sink.url)];
  }
}

/** A sink may be called "constructor". */
function keyOf({ name }: SinkSetting, keys: Config["auditSinkKeys"]): string | undefined {
  return Object.hasOwn(keys, name) ? keys[name] : undefined;
}

/** Those that are called over HTTP. */
export function calledHosts({ upstreams, issuers, keyServiceUrl, auditSinks }: Config): readonly string[] {
  const urls = [
    ...upstreams.map(({ url }) => url),
    ...auditSinks.flatMap((sink) => "url" in sink ? [sink.url] : []),
    // What discovery finds has the issuer's origin, or is refused.
    ...issuers.map(({ issuer, jwksUrl }) => jwksUrl ?? issuer),
    ...(keyServiceUrl === undefined ? [] : [keyServiceUrl]),
  ];
  return urls.map(upstreamHost);
}

/** The mistakes as lines for a person, below a headline that says what they prevent. */
export function mistakeLines(headline: string, mistakes: readonly ConfigMistake[]): readonly string[] {
  return [
    headline,
    ...mistakes.map(({ where, what }) => `  ${where} ${what}`),
    "All settings: docs/settings.md",
  ];
}

/** Reads every setting: environment over file over default. All mistakes are reported, not the first one. */
export function parseConfig(sources: ConfigSources): ConfigOutcome {
  const mistakes: ConfigMistake[] = [];
  const fileValues = readFileObject(sources.file, mistakes);

  const values: Record<string, unknown> = {};
  const wrong = new Set<string>();
  for (const name of NAMES) {
    const read = readSetting(name, sources.variables, fileValues);
    // A wrong value counts as the default from here on, so that the other mistakes are found as well.
    values[name] = read.mistake === undefined ? read.value : SETTINGS[name].fallback;
    if (read.mistake !== undefined) {
      mistakes.push(read.mistake);
      wrong.add(variableOf(name));
    }
  }
  const upstreams = values.upstreams as Values["upstreams"];
  const keys = readKeys(upstreams, upstreamKeyVariable, sources.variables, mistakes);
  const sinks = (values.auditSinks as Values["auditSinks"]).filter(hasKey);
  const sinkKeys = readKeys(sinks, sinkKeyVariable, sources.variables, mistakes);
  mistakes.unshift(
    ...unknownNames(sources.variables, fileValues, keys.variables.union(sinkKeys.variables)),
  );
  const set = values as
    & { [Name in SettingName]: Values[Name] | undefined }
    & Omit<Values, "publicUrl" | "engineWorkers" | Optional>;
  const config: Config = {
    ...set,
    publicUrl: set.publicUrl ?? `http://${hostAndPort(set.host, set.port)}`,
    engineWorkers: set.engineWorkers ?? Math.max(1, sources.cores - 1),
    upstreamKeys: keys.values,
    auditSinkKeys: sinkKeys.values,
    secretFiles: sources.secretFiles ?? {},
  };
  const compared = [
    ...exposureMistakes(config),
    ...secretMistakes(config),
    ...upstreamMistakes(config),
    ...issuerMistakes(config),
    ...proxyMistakes(config, sources.proxyVariables ?? []),
    ...redisMistakes(config),
    ...sharedKeyMistakes(config),
    ...sinkMistakes(config),
    ...keyServiceMistakes(config),
  ];
  if (config.mode === "production") {
    compared.push(...productionMistakes(config, set.publicUrl, sources.storeExists));
  }
  // What is there and wrong is not missing as well.
  mistakes.push(...compared.filter(({ where }) => !wrong.has(where)));
  return mistakes.length > 0 ? { ok: false, mistakes } : { ok: true, config };
}

function readFileObject(file: unknown, mistakes: ConfigMistake[]): Readonly<Record<string, unknown>> {
  if (file === undefined) return {};
  if (typeof file === "object" && file !== null && !Array.isArray(file)) {
    return file as Record<string, unknown>;
  }
  mistakes.push({ where: "portcullis.json", what: "is not a JSON object" });
  return {};
}

function unknownNames(
  variables: Readonly<Record<string, string>>,
  file: Readonly<Record<string, unknown>>,
  upstreamKeys: ReadonlySet<string>,
): ConfigMistake[] {
  const known = new Map(NAMES.map((name) => [variableOf(name), name]));
  const mistakes: ConfigMistake[] = [];
  for (const variable of Object.keys(variables)) {
    if (!known.has(variable) && !upstreamKeys.has(variable)) {
      mistakes.push({ where: variable, what: `is no setting${nearest(variable, [...known.keys()])}` });
    }
  }
  for (const name of Object.keys(file)) {
    const where = `portcullis.json: ${name}`;
    if (!(NAMES as string[]).includes(name)) {
      mistakes.push({ where, what: `is no setting${nearest(name, NAMES)}` });
    } else if (SETTINGS[name as SettingName].secret) {
      const variable = variableOf(name as SettingName);
      mistakes.push({
        where,
        what: `is a secret and must not stand in a file of settings; use ${variable} or ${variable}_FILE`,
      });
    }
  }
  return mistakes;
}

function readSetting(
  name: SettingName,
  variables: Readonly<Record<string, string>>,
  file: Readonly<Record<string, unknown>>,
): { readonly value?: unknown; readonly mistake?: ConfigMistake } {
  const { type, fallback, secret }: { type: SettingType<unknown>; fallback: unknown; secret: boolean } =
    SETTINGS[name];
  const variable = variableOf(name);
  const fromVariable = variables[variable];
  const raw = fromVariable ?? (secret ? undefined : file[name]);
  if (raw === undefined) return { value: fallback };
  const read = type.read(raw);
  if (read.ok) return { value: read.value };
  // The value of a secret is not repeated.
  const shown = secret ? "is malformed" : type.explain?.(raw) ?? `is ${JSON.stringify(raw)}`;
  return {
    mistake: {
      where: fromVariable === undefined ? `portcullis.json: ${name}` : variable,
      what: `${shown}; allowed: ${type.allowed}`,
    },
  };
}

/** The secrets of upstreams or sinks, and the variables that they may come from. */
function readKeys(
  owners: readonly { readonly name: string }[],
  variableOfKey: (name: string) => string,
  variables: Readonly<Record<string, string>>,
  mistakes: ConfigMistake[],
): { readonly values: Readonly<Record<string, string>>; readonly variables: ReadonlySet<string> } {
  const values: Record<string, string> = {};
  const known = new Set<string>();
  for (const { name } of owners) {
    const variable = variableOfKey(name);
    known.add(variable);
    const value = variables[variable];
    if (value === undefined) continue;
    // What goes into a header field must be a token's characters (RFC 9110 §5.5); the value is not repeated.
    if (/^[\x21-\x7e]{1,4096}$/.test(value)) values[name] = value;
    else {mistakes.push({
        where: variable,
        what: "is malformed; allowed: 1 to 4096 printable characters without spaces",
      });}
  }
  return { values, variables: known };
}

const KIND_CAPABILITIES: Readonly<Record<UpstreamSetting["kind"], readonly string[]>> = {
  openai: ["chat", "completion", "embedding", "rerank", "moderation", "speech", "transcription", "image"],
  anthropic: ["chat"],
  openinference: ["tensor", "embedding"],
};

/** What one setting says of another: names that do not exist, and protocols that lack a capability. */
function upstreamMistakes({ upstreams, upstreamModels }: Config): ConfigMistake[] {
  const mistakes: ConfigMistake[] = [];
  const byName = new Map(upstreams.map((upstream) => [upstream.name, upstream]));
  const byId = new Map(upstreamModels.map((model) => [model.id, model]));
  const wrong = (id: string, what: string) =>
    mistakes.push({ where: variableOf("upstreamModels"), what: `has the model "${id}", which ${what}` });
  for (const { id, servedBy, capabilities, fallbacks } of upstreamModels) {
    for (const { upstream: name } of servedBy) {
      const upstream = byName.get(name);
      const lacking = capabilities.find((each) =>
        upstream !== undefined && !KIND_CAPABILITIES[upstream.kind].includes(each)
      );
      if (upstream === undefined) wrong(id, `names the upstream "${name}", which is not among the upstreams`);
      else if (lacking !== undefined) {
        wrong(id, `does "${lacking}", for which "${name}" (${upstream.kind}) has no protocol`);
      }
    }
    for (const fallback of fallbacks) {
      const other = byId.get(fallback);
      if (fallback === id) wrong(id, "is its own fallback");
      else if (other !== undefined && !other.capabilities.some((each) => capabilities.includes(each))) {
        wrong(id, `falls back to "${fallback}", which does nothing that it does`);
      }
    }
  }
  return mistakes;
}

/** Nobody else may speak in our name: a token says whose it is by its issuer alone. */
function issuerMistakes({ issuers, publicUrl }: Config): ConfigMistake[] {
  const own = new URL(publicUrl).href;
  return issuers.filter(({ issuer }) => new URL(issuer).href === own).map(({ issuer }) => ({
    where: variableOf("issuers"),
    what: `has the issuer "${issuer}", which is this server itself (${variableOf("publicUrl")})`,
  }));
}

/** The runtime gives each call to such a proxy, which reads key and prompt of a plain-http one: that has to be meant. */
function proxyMistakes(config: Config, proxyVariables: readonly string[]): ConfigMistake[] {
  if (calledHosts(config).length === 0 || config.upstreamProxy === "environment") return [];
  return proxyVariables.map((where) => ({
    where,
    what:
      "names a proxy that calls to upstreams (with their keys and prompts), issuers and other services would go through; unset it, or say that " +
      `this is meant: ${variableOf("upstreamProxy")}=environment`,
  }));
}

/** ASVS V12.2.1: nothing but loopback is listened on in plain HTTP, unless a proxy in front ends TLS. */
function exposureMistakes(config: Config): ConfigMistake[] {
  const loopback = config.host === "localhost" || config.host === "::1" ||
    /^127\.\d+\.\d+\.\d+$/.test(config.host);
  if (loopback || config.trustedProxies.length > 0) return [];
  return [{
    where: variableOf("host"),
    what:
      `is "${config.host}", which other machines reach in plain HTTP; put a proxy that ends TLS in front and name its ` +
      `address in ${variableOf("trustedProxies")}, or listen on 127.0.0.1`,
  }];
}

/** Whether a sink may have a secret. */
function hasKey({ kind }: SinkSetting): boolean {
  return kind !== "stdout" && kind !== "syslog";
}

/** What a sink lacks, and ASVS V12.3.1, V13.2.1 for one in Redis. */
function sinkMistakes(config: Config): ConfigMistake[] {
  return config.auditSinks.flatMap((sink) => {
    const key = keyOf(sink, config.auditSinkKeys);
    const wrong = (what: string) => [{ where: sinkKeyVariable(sink.name), what }];
    if ("username" in sink && sink.username !== undefined && key === undefined) {
      return wrong(`is missing: the sink "${sink.name}" has a user name and no password`);
    }
    if (sink.kind !== "redis_stream") return [];
    if (key === undefined) {
      return wrong(`is missing: it is the address of the Redis of the sink "${sink.name}"`);
    }
    const address = parseRedisAddress(key);
    if (address === undefined) return wrong(`is malformed; allowed: ${redisUrlType.allowed}`);
    const isElsewhere = hostsOfSink(sink, key).some((host) =>
      !isLoopback(new URL(`http://${host}`).hostname)
    );
    if (config.mode !== "production" || !isElsewhere) return [];
    return [
      ...address.tls ? [] : wrong("is plain redis:// to another machine, which production does not allow"),
      ...address.password === null
        ? wrong("has no password, which production demands of a Redis on another machine")
        : [],
    ];
  });
}

/** A data folder's own key is one instance's, and a rotation there replaces it: nobody else could open what they share. */
function sharedKeyMistakes({ mode, redisUrl, masterKey, keyServiceUrl }: Config): ConfigMistake[] {
  // Production demands one in any case.
  if (mode === "production" || redisUrl === undefined) return [];
  if (masterKey !== undefined || keyServiceUrl !== undefined) return [];
  return [{
    where: variableOf("masterKey"),
    what: `is missing: all that share the Redis of ${
      variableOf("redisUrl")
    } need the same one; make one with: deno task keys`,
  }];
}

/** ASVS V12.3.1, V13.2.1: what instances share crosses no network in the clear, and not as everybody. */
function redisMistakes(config: Config): ConfigMistake[] {
  const address = config.redisUrl === undefined ? undefined : parseRedisAddress(config.redisUrl);
  if (address === undefined) return [];
  const mistakes: ConfigMistake[] = [];
  const wrong = (what: string) => mistakes.push({ where: variableOf("redisUrl"), what });
  // Also where sentinels or a cluster on this machine may point to.
  const isElsewhere = redisHosts(config).some((host) => !isLoopback(new URL(`http://${host}`).hostname));
  if (config.mode === "production" && isElsewhere) {
    if (!address.tls) {
      wrong("is plain redis:// to another machine, which production does not allow; use rediss://");
    }
    if (address.password === null) {
      wrong("has no password, which production demands of a Redis on another machine");
    }
  }
  return mistakes;
}

/** One master key, and no data key on a network in the clear (ASVS V12.3.1), whatever the mode. */
function keyServiceMistakes(
  { keyServiceUrl: url, keyServiceToken: token, masterKey, upstreamProxy }: Config,
): ConfigMistake[] {
  if (url === undefined) return [];
  const mistakes: ConfigMistake[] = [];
  if (masterKey !== undefined) {
    const what = `is set together with ${variableOf("masterKey")}; the master key is in one place`;
    mistakes.push({ where: variableOf("keyServiceUrl"), what });
  }
  if (!url.startsWith("https:") && !isLoopback(new URL(url).hostname)) {
    const what = "is plain HTTP to another machine, which would read every data key; use https";
    mistakes.push({ where: variableOf("keyServiceUrl"), what });
  } else if (!url.startsWith("https:") && upstreamProxy === "environment") {
    const what = `is plain HTTP, and with ${
      variableOf("upstreamProxy")
    }=environment a proxy would read every data key; use https`;
    mistakes.push({ where: variableOf("keyServiceUrl"), what });
  }
  if (token === undefined) {
    mistakes.push({ where: variableOf("keyServiceToken"), what: "is missing; the key service demands one" });
  }
  return mistakes;
}

function secretMistakes(config: Config): ConfigMistake[] {
  const mistakes: ConfigMistake[] = [];
  const weak = (name: SettingName, what: string) => mistakes.push({ where: variableOf(name), what });
  const { adminPassword, masterKey, signingKey } = config;
  if (adminPassword !== undefined && (PLACEHOLDER.test(adminPassword) || new Set(adminPassword).size < 8)) {
    weak("adminPassword", "is a placeholder or too simple; choose a long random one");
  }
  const masterKeys = masterKey?.trim().split(/\s+/) ?? [];
  if (masterKeys.some((each) => PLACEHOLDER.test(each) || !looksRandom(each))) {
    weak("masterKey", "is a placeholder or not random; make one with: deno task keys");
  }
  // The last 32 bytes of an Ed25519 key in PKCS #8 are its seed (RFC 8410 §7): 43 characters of base64 hold it.
  const pem = signingKey?.replace(/-----[A-Z ]+-----/g, "").replace(/[\s=]/g, "");
  if (pem !== undefined && !looksRandom(pem.slice(-43))) {
    weak("signingKey", "is not random; make one with: deno task keys");
  }
  return mistakes;
}

/**
 * Whether 43 characters of base64 can be 32 random bytes. Random ones have about 32 different characters and next to no
 * runs of neighbours of the alphabet; fewer than 16, or more than 16 neighbours, do not happen by chance.
 */
function looksRandom(text: string): boolean {
  let neighbours = 0;
  for (let index = 1; index < text.length; index++) {
    if (Math.abs(text.charCodeAt(index) - text.charCodeAt(index - 1)) <= 1) neighbours++;
  }
  return new Set(text).size >= 16 && neighbours <= 16;
}

/** ASVS V6.3.2: production starts with no default secret. */
function productionMistakes(
  config: Config,
  publicUrl: string | undefined,
  storeExists: (dataDir: string) => boolean,
): ConfigMistake[] {
  const mistakes: ConfigMistake[] = [];
  const missing = (name: SettingName, next: string) =>
    mistakes.push({ where: variableOf(name), what: `is missing in production; ${next}` });
  if (publicUrl === undefined) missing("publicUrl", "set the https origin that clients use");
  else if (!publicUrl.startsWith("https://")) {
    mistakes.push({ where: variableOf("publicUrl"), what: "must be an https origin in production" });
  }
  if (config.masterKey === undefined && config.keyServiceUrl === undefined) {
    missing(
      "masterKey",
      `make one with: deno task keys, or name a key service in ${variableOf("keyServiceUrl")}`,
    );
  }
  if (config.signingKey === undefined) missing("signingKey", "make one with: deno task keys");
  // Whether a shared store has its first user, only the start itself can see.
  if (config.adminPassword === undefined && config.redisUrl === undefined && !storeExists(config.dataDir)) {
    missing("adminPassword", "the first start creates the user admin with it");
  }
  return mistakes;
}

/** ` (did you mean X?)` where a known name differs in two letters or fewer. */
function nearest(name: string, known: readonly string[]): string {
  const found = known.find((candidate) => editDistance(name, candidate) <= 2);
  return found === undefined ? "" : ` (did you mean ${found}?)`;
}

/** Levenshtein's distance. */
function editDistance(left: string, right: string): number {
  let previous = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let row = 1; row <= left.length; row++) {
    const current = [row];
    for (let column = 1; column <= right.length; column++) {
      const replace = (previous[column - 1] ?? 0) + (left[row - 1] === right[column - 1] ? 0 : 1);
      current.push(Math.min(replace, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[right.length] ?? 0;
}
