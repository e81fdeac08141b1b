// Settings: the one table of all settings: name, what is allowed, default, meaning. docs/settings.md is printed from it.
import { parseAddress, parseAddressRange } from "../encoding/ip_address.ts";
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import { no, ok } from "../faults/outcome.ts";
import { issuerList, type IssuerSetting } from "./issuer_settings.ts";
import {
  type BanSetting,
  banType,
  DEFAULT_BANS,
  limitPolicyList,
  type LimitPolicySetting,
} from "./limit_settings.ts";
import { payloadPolicyList, type PayloadPolicySetting } from "./payload_settings.ts";
import { redisUrlType } from "./redis_setting.ts";
import { auditSinkList, type SinkSetting } from "./sink_settings.ts";
import { integer, listOf, oneOf, origin, type SettingType, text } from "./setting_types.ts";
import {
  type RoleCapsSetting,
  roleCapsType,
  upstreamList,
  upstreamModelList,
  type UpstreamModelSetting,
  type UpstreamSetting,
} from "./structured_settings.ts";

/** One setting. Its variable is `PORTCULLIS_` and the name in capitals with underscores. */
export interface Setting<Value> {
  readonly type: SettingType<Value>;
  /** undefined: computed from other settings, or absent. */
  readonly fallback: Value | undefined;
  readonly meaning: string;
  /** A secret comes from `PORTCULLIS_…` or `PORTCULLIS_…_FILE`, never from portcullis.json. */
  readonly secret: boolean;
}

function setting<Value>(
  type: SettingType<Value>,
  fallback: Value | undefined,
  meaning: string,
): Setting<Value> {
  return { type, fallback, meaning, secret: false };
}

function secret(type: SettingType<string>, meaning: string): Setting<string> {
  return { type, fallback: undefined, meaning, secret: true };
}

const path = text(
  "a path without spaces, commas and control characters, and not the root",
  /^(?!-)(?!\/+$)[^\p{Cc}\s,]{1,1000}$/u,
);
const hostName: SettingType<string> = {
  allowed: "an IP address or a host name in lower case",
  read: (raw) =>
    typeof raw === "string" && raw === raw.toLowerCase() &&
      (/^[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?$/.test(raw) || parseAddress(raw).ok)
      ? ok(raw)
      : no("wrong"),
};
const hostHeader = text(
  "a host, with its port unless that is the scheme's own, such as ai.example.com or 10.0.0.5:8000",
  /^(?:[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::\d{1,5})?$/,
);
const range: SettingType<string> = {
  allowed: "an address or a CIDR range such as 10.0.0.0/8",
  read: (raw) => typeof raw === "string" && parseAddressRange(raw).ok ? ok(raw) : no("wrong"),
};

const SPKI_OF_ED25519 = "302a300506032b6570032100";
/** Read as its 32 bytes in base64url. */
const ed25519PublicKey: SettingType<string> = {
  allowed: "an Ed25519 public key: its 32 bytes in base64url, or PEM",
  read(raw) {
    if (typeof raw !== "string") return no("wrong");
    const raw32 = decodeBase64url(raw);
    if (raw32.ok && raw32.value.length === 32) return ok(raw);
    const body = /^-----BEGIN PUBLIC KEY-----\s*([A-Za-z0-9+/]{59}=)\s*-----END PUBLIC KEY-----\s*$/.exec(raw)
      ?.[1];
    const hex = body === undefined ? "" : Uint8Array.fromBase64(body).toHex();
    return hex.startsWith(SPKI_OF_ED25519)
      ? ok(encodeBase64url(Uint8Array.fromHex(hex.slice(SPKI_OF_ED25519.length))))
      : no("wrong");
  },
};

/** Every setting there is; anything else is refused. */
export const SETTINGS = {
  mode: setting(
    oneOf("development", "production"),
    "development",
    "Production generates nothing and demands every secret.",
  ),
  host: setting(hostName, "127.0.0.1", "Address to listen on. Anything but loopback needs trustedProxies."),
  port: setting(integer(1, 65_535), 8000, "Port to listen on."),
  publicUrl: setting(
    origin,
    undefined,
    "Origin that clients use; issuer and audience of tokens. Default: http://HOST:PORT.",
  ),
  allowedHosts: setting(listOf(hostHeader), [], "Host headers accepted besides the public one and loopback."),
  trustedProxies: setting(listOf(range), [], "Peers whose X-Forwarded-For is believed."),
  corsOrigins: setting(listOf(origin), [], "Origins of web pages that may call this server."),
  dataDir: setting(path, "data", "Folder of everything the server keeps."),
  modelsDir: setting(path, "models", "Folder of model folders."),
  modelSigners: setting(
    listOf(ed25519PublicKey),
    [],
    "Keys whose signatures under models are believed beside this installation's own.",
  ),
  modelsPlain: setting(
    oneOf("allow", "refuse"),
    "allow",
    "Whether a model without a signed manifest, such as the default one, is served.",
  ),
  upstreams: setting(upstreamList, [], "Servers that run models for this one."),
  upstreamModels: setting(upstreamModelList, [], "Models that those servers serve."),
  roleCaps: setting(roleCapsType, {}, "How much one request of a role may ask for."),
  upstreamProxy: setting(
    oneOf("none", "environment"),
    "none",
    "Whether calls to upstreams and issuers may go through the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names.",
  ),
  issuers: setting(issuerList, [], "Identity providers whose access tokens are accepted beside our own."),
  imageHosts: setting(
    listOf(hostName),
    [],
    "Hosts whose https pictures a chat may name; the engine fetches them. Data URLs are always allowed.",
  ),
  bodyBytesMax: setting(integer(1024, 64 * 1024 * 1024), 1024 * 1024, "Largest request body, bytes."),
  mediaBodyBytesMax: setting(
    integer(1024, 1024 * 1024 * 1024),
    16 * 1024 * 1024,
    "Largest body of a request that may carry pictures or sound, bytes.",
  ),
  uploadBytesMax: setting(
    integer(1024, 4 * 1024 * 1024 * 1024),
    25 * 1024 * 1024,
    "Largest upload of sound to be transcribed, bytes.",
  ),
  bodiesBytesMax: setting(
    integer(1024 * 1024, 64 * 1024 * 1024 * 1024),
    128 * 1024 * 1024,
    "Bytes of all request bodies under way, from their announcement to the answer; a quarter of it for one user. " +
      "One body of the largest size is always let in.",
  ),
  bodyTimeoutMs: setting(
    integer(100, 600_000),
    10_000,
    "Time within which a body must have arrived, milliseconds.",
  ),
  requestTimeoutMs: setting(
    integer(100, 600_000),
    30_000,
    "Time within which an inference must be answered, milliseconds.",
  ),
  generationTimeoutMs: setting(
    integer(100, 24 * 3_600_000),
    600_000,
    "Time within which a generated answer must be complete, streams included, milliseconds.",
  ),
  shutdownTimeoutMs: setting(
    integer(100, 600_000),
    8000,
    "Time that running requests get when the server stops, milliseconds.",
  ),
  headTimeoutMs: setting(
    integer(100, 600_000),
    10_000,
    "Time within which the head of a request must have arrived, milliseconds.",
  ),
  idleTimeoutMs: setting(
    integer(100, 3_600_000),
    60_000,
    "How long a connection is kept on which nothing runs, or whose client takes nothing, milliseconds.",
  ),
  connectionsMax: setting(
    integer(1, 1_000_000),
    10_000,
    "Connections at once; more are closed as they come.",
  ),
  rateAddressPerMinute: setting(
    integer(1, 1_000_000_000),
    100,
    "Requests a minute from one address (IPv6: one /64).",
  ),
  rateSignInPerMinute: setting(integer(1, 1_000_000_000), 10, "Sign-in attempts a minute from one address."),
  rateTokenPerMinute: setting(
    integer(1, 1_000_000_000),
    60,
    "Calls a minute of the token endpoints from one address.",
  ),
  rateUserPerMinute: setting(integer(1, 1_000_000_000), 500, "Requests a minute by one user."),
  requestsAtOncePerUser: setting(
    integer(1, 1_000_000),
    16,
    "Inferences of one user that may be under way at once; one more is 429.",
  ),
  limits: setting(limitPolicyList, [], "Named policies of how much is allowed to whom."),
  degradedPercent: setting(
    integer(1, 100),
    25,
    "What an instance allows by itself of a rate while the shared store fails, percent.",
  ),
  bans: setting(banType, DEFAULT_BANS, "What leads to a ban of an address, and for how long."),
  banExempt: setting(
    listOf(range),
    ["127.0.0.0/8", "::1"],
    "Addresses that are never banned; trusted proxies never are.",
  ),
  inferencesAtOnceMax: setting(
    integer(1, 1_000_000),
    1024,
    "Inferences that may be under way at once; beyond it the answer is 503, for low priorities from 80 % on.",
  ),
  loopLagMsMax: setting(
    integer(10, 60_000),
    250,
    "Lag of the event loop beyond which low priorities are answered 503, and all but admin and operator at four times as much.",
  ),
  lowPriorityRoles: setting(
    listOf(text("a role", /^[a-z][a-z0-9-]{0,63}$/)),
    [],
    "Who has no other roles than these is the first to be answered 503 under load.",
  ),
  redisUrl: secret(
    redisUrlType,
    "The Redis that instances share; without it the data folder holds everything.",
  ),
  redisPrefix: setting(
    text("1 to 32 letters, digits and -", /^[A-Za-z0-9-]{1,32}$/),
    "portcullis",
    "What the names of all keys in Redis begin with.",
  ),
  redisHosts: setting(
    listOf(hostHeader),
    [],
    "Hosts and ports that sentinels or a cluster may point to, besides those of redisUrl.",
  ),
  redisCaFile: setting(
    path,
    undefined,
    "Certificates of the authorities that rediss:// trusts, PEM; default: those of the machine.",
  ),
  storeTimeoutMs: setting(
    integer(10, 60_000),
    250,
    "Time within which Redis must answer, milliseconds; then the breaker opens.",
  ),
  storeStaleMsMax: setting(
    integer(500, 86_400_000),
    1000,
    "For so long an instance believes what it knows of accounts, keys, roles and bans while Redis does not answer; then 503, milliseconds.",
  ),
  tokenTtlSeconds: setting(integer(60, 3600), 900, "Life of an access token, seconds."),
  sessionTtlSeconds: setting(
    integer(60, 366 * 86_400),
    30 * 86_400,
    "Life of a session, counted from the sign-in: as long its refresh tokens work, seconds.",
  ),
  engineWorkers: setting(
    integer(1, 256),
    undefined,
    "Workers that compute, for each model. Default: cores - 1, at least 1.",
  ),
  engineQueueMax: setting(
    integer(1, 100_000),
    256,
    "Requests that may wait for a model; beyond it the answer is 503.",
  ),
  auditSegmentBytesMax: setting(
    integer(64 * 1024, 4_294_967_296),
    64 * 1024 * 1024,
    "Size at which an audit segment is closed, bytes.",
  ),
  auditTimeoutMs: setting(
    integer(50, 60_000),
    2000,
    "Time within which a record must be durable, milliseconds.",
  ),
  auditAtRest: setting(
    oneOf("plain", "sealed"),
    "plain",
    "Whether the events of the audit trail rest sealed. Their chain is checked without a key in either case.",
  ),
  auditCheckpointEntries: setting(
    integer(1, 1_000_000_000),
    10_000,
    "New entries of the audit trail after which a checkpoint is signed, whatever the time.",
  ),
  auditCheckpointMs: setting(
    integer(100, 86_400_000),
    60_000,
    "Time within which a checkpoint is signed over a new entry of the audit trail, milliseconds.",
  ),
  auditLostTrail: setting(
    oneOf("refuse", "begin"),
    "refuse",
    "What a start does where the data folder lacks the audit trail that the store remembers: a new one begins knowingly.",
  ),
  auditSecurityDays: setting(
    integer(1, 36_500),
    365,
    "Days for which the audit trail keeps entries of the class security.",
  ),
  auditActivityDays: setting(
    integer(1, 36_500),
    90,
    "Days for which the audit trail keeps entries of the class activity.",
  ),
  auditAddresses: setting(
    oneOf("pseudonym", "plain"),
    "pseudonym",
    "How client addresses stand in the audit trail.",
  ),
  auditSubjects: setting(
    oneOf("plain", "pseudonym"),
    "plain",
    "How subjects stand in the audit trail, where a request brings them there.",
  ),
  auditPayloads: setting(
    payloadPolicyList,
    [],
    "Of which inferences the audit trail keeps, sealed, what was asked and answered.",
  ),
  auditSinks: setting(
    auditSinkList,
    [],
    "Where copies of the audit trail go. The trail in the data folder is always written, and first.",
  ),
  logLevel: setting(oneOf("debug", "info", "warn", "error"), "info", "Least grave level that is logged."),
  adminPassword: secret(
    text("12 to 256 characters", /^.{12,256}$/su),
    "Password of the first user, admin. Used at the first start only.",
  ),
  masterKey: secret(
    text(
      "32 random bytes in base64url (43 characters); several are separated by white space",
      /^[A-Za-z0-9_-]{43}(?:\s+[A-Za-z0-9_-]{43}){0,9}\s*$/,
    ),
    "Key over all keys at rest. Of several, the first wraps and all open: docs/vault.md says how one is replaced.",
  ),
  keyServiceUrl: setting(
    origin,
    undefined,
    "Key service (HashiCorp Vault, OpenBao) that has the master key, in the place of masterKey.",
  ),
  keyServiceMount: setting(
    text("a path of letters, digits, - and _", /^[A-Za-z0-9_-]{1,64}(?:\/[A-Za-z0-9_-]{1,64}){0,7}$/),
    "transit",
    "Where the transit engine of the key service is mounted.",
  ),
  keyServiceKey: setting(
    text("1 to 128 letters, digits, - and _", /^[A-Za-z0-9_-]{1,128}$/),
    "portcullis",
    "Name of the master key in the key service.",
  ),
  keyServiceToken: secret(
    text("1 to 4096 printable characters without spaces", /^[\x21-\x7e]{1,4096}$/),
    "Token that the key service lets in. From a file, it is read again when the service refuses it.",
  ),
  keyServiceNamespace: setting(
    text("a path of letters, digits, - and _", /^[A-Za-z0-9_-]{1,64}(?:\/[A-Za-z0-9_-]{1,64}){0,7}\/?$/),
    undefined,
    "Namespace of the key service, where it has such.",
  ),
  keyServiceCaFile: setting(
    path,
    undefined,
    "Certificates of the authorities that calls to the key service trust besides those of the runtime, PEM.",
  ),
  signingKey: secret(
    text(
      "an Ed25519 private key as PKCS #8 PEM",
      /^-----BEGIN PRIVATE KEY-----\s[A-Za-z0-9+/=\s]{40,120}-----END PRIVATE KEY-----\s*$/,
    ),
    "Key that signs access tokens.",
  ),
} as const satisfies Record<
  string,
  | Setting<never>
  | Setting<string>
  | Setting<number>
  | Setting<readonly string[]>
  | Setting<UpstreamSetting[]>
  | Setting<UpstreamModelSetting[]>
  | Setting<RoleCapsSetting>
  | Setting<IssuerSetting[]>
  | Setting<SinkSetting[]>
  | Setting<LimitPolicySetting[]>
  | Setting<PayloadPolicySetting[]>
  | Setting<BanSetting>
>;

/** A setting's name. */
export type SettingName = keyof typeof SETTINGS;

/** The environment variable of a setting: `dataDir` → `PORTCULLIS_DATA_DIR`. */
export function variableOf(name: SettingName): string {
  return `PORTCULLIS_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}
