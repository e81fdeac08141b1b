// Assemble: the composition root. Builds every part once, the lowest ring first; close() undoes it in reverse.
import { hash } from "node:crypto";
import type { ModelRole } from "./access/model_role.ts";
import { capsOf, DEFAULT_CAPS, type RequestCaps, type RoleCaps } from "./access/request_caps.ts";
import {
  closeUpstreams,
  type Engines,
  openEngines,
  openUpstreams,
  servedModelOfSetting,
  whenWarm,
} from "./assembly/engines.ts";
import { type Identity, openIdentity } from "./assembly/identity.ts";
import { addressRanges, openLimits } from "./assembly/limits.ts";
import { type Opened, type OpenedTrust, openTrust } from "./assembly/trust.ts";
import { type AuditArchive, openAuditArchive } from "./audit/archive/audit_archive.ts";
import { auditFolders, type openAuditTrail } from "./audit/audit_trail.ts";
import { openPayloadKeys } from "./audit/payload/payload_keys.ts";
import { keptParts } from "./audit/payload/payload_policy.ts";
import { PLAIN_SUBJECTS, pseudonymousSubjects } from "./audit/subject_labels.ts";
import { hasServed, START_FAILED } from "./audit/trail/has_served.ts";
import type { Config } from "./config/config.ts";
import { type SettingName, SETTINGS } from "./config/schema.ts";
import { encodeBase64url } from "./encoding/base64url.ts";
import { canonicalJson } from "./encoding/canonical_json.ts";
import type { EngineTable } from "./engines/engine_table.ts";
import type { Upstream } from "./engines/upstream/upstream.ts";
import { Fault, toFault } from "./faults/fault.ts";
import { type App, type AppParts, createApp, routeTable } from "./http/app.ts";
import { challenges } from "./http/challenge.ts";
import { openInferenceDoor } from "./http/inference_door.ts";
import { openBanWatch } from "./http/middleware/ban_watch.ts";
import { rateTiers } from "./http/middleware/rate_tiers.ts";
import { standardHeaders } from "./http/middleware/standard_headers.ts";
import { openTensorDescriptions } from "./http/oip/tensor_descriptions.ts";
import { newGenerationId } from "./http/openai/generation_parts.ts";
import type { AnyRoute } from "./http/route.ts";
import { checkPassword, PASSWORD_WORDS } from "./identity/password_rules.ts";
import { DEFAULT_TEAM } from "./identity/teams.ts";
import type { Users } from "./identity/users.ts";
import { openAdmission } from "./inference/admission.ts";
import { openRunInference } from "./inference/run_inference.ts";
import { openPressure } from "./limits/pressure.ts";
import { type Catalog, openCatalog } from "./registry/catalog.ts";
import { openModelRecords } from "./registry/model_records.ts";
import { openModelSigners } from "./registry/model_signers.ts";
import { type Log, openLog, standardOutput } from "./telemetry/log.ts";
import { type Clock, systemClock } from "./time/clock.ts";
import type { KeyRing } from "./vault/key_ring.ts";
import { makePrivateFolder } from "./vault/private_file.ts";
import type { VaultRotation } from "./vault/rotation.ts";

/** Version of the server; for the trail and for authenticated callers. */
export const VERSION = "0.1.0";
/** The first user. */
export const FIRST_USER = "admin";

/** A server whose parts are open. */
export interface Portcullis {
  readonly app: App;
  readonly routes: readonly AnyRoute[];
  readonly catalog: Catalog;
  readonly identity: Identity;
  readonly rotation: VaultRotation;
  readonly log: Log;
  /** The first user's password where this start made it up; shown once, kept nowhere. */
  readonly generatedPassword: string | undefined;
  readonly isReady: () => boolean;
  /** Resolves when no engine warms up any more; how many cannot be served. */
  whenWarm(): Promise<number>;
  /** Says "not ready" from now on, so that no new work is sent here. */
  drain(): void;
  /** Ends what is still under way, streams with an event that says so; each is recorded. */
  stopInferences(): void;
  /** Ends all parts, the last opened first. What runs has ended before. */
  close(reason: string): Promise<void>;
}

/** What may be replaced: by the bench and by tests, never by settings. */
export interface Replacements {
  readonly clock?: Clock;
  /** Instead of standard output. */
  readonly log?: Log;
  /** Instead of the trail on disk. */
  readonly openTrail?: typeof openAuditTrail;
  /** Instead of engines for the catalog's models. */
  readonly engines?: EngineTable;
}

/**
 * Opens all parts of a server.
 *
 * @throws Fault `unavailable` with the part that could not be opened and why; parts opened before it are closed
 */
export async function assemble(config: Config, replacements: Replacements = {}): Promise<Portcullis> {
  const opened: Opened = [];
  const closeAll = async (): Promise<void> => {
    let failed: unknown;
    while (opened.length > 0) {
      try {
        await opened.pop()?.();
      } catch (thrown) {
        // The others are closed all the same, the trail and the log above all.
        failed ??= thrown;
      }
    }
    if (failed !== undefined) throw failed;
  };
  try {
    return await openParts(config, replacements, opened, closeAll);
  } catch (thrown) {
    // What failed first says why; what fails on the way out does not.
    await closeAll().catch(() => {});
    throw thrown;
  }
}

async function openParts(
  config: Config,
  replacements: Replacements,
  opened: Opened,
  closeAll: () => Promise<void>,
): Promise<Portcullis> {
  const clock = replacements.clock ?? systemClock;
  const log = replacements.log ?? openLog({ level: config.logLevel, clock, sink: standardOutput });
  opened.push(() => log.flush());

  // Matter and trust: store, keys, trail.
  let stopReason = START_FAILED;
  const trust = await openTrust(config, clock, log, opened, {
    ...(replacements.openTrail === undefined ? {} : { openTrail: replacements.openTrail }),
    // Best effort: a trail that fails now has said so at each request before.
    beforeTrailCloses: (trail) =>
      trail.record({ type: "server.stopped", reason: stopReason }).catch((fault) =>
        log.write("error", "audit.stop_not_recorded", { reason: toFault(fault).message })
      ),
  });
  const { keyRing, trail, feed } = trust;
  await trail.record({
    type: "server.started",
    version: VERSION,
    mode: config.mode,
    settingsSha256: settingsDigest(config),
  });

  // Rooms: engines, models, identity.
  const upstreams = replacements.engines === undefined
    ? openUpstreams(config, clock, log)
    : new Map<string, Upstream>();
  opened.push(() => closeUpstreams(upstreams));
  let underWayOn = (_modelId: string): number => 0;
  const engines: EngineTable & Partial<Engines> = replacements.engines ??
    openEngines(upstreams, config, clock, log, (modelId) => underWayOn(modelId));
  opened.push(() => engines.close());
  // The server is not ready before they are; what is enabled later warms up beside the others.
  const firstModels = new Set<string>();
  let isStarting = true;
  const catalog = await openCatalog({
    modelsDirectory: config.modelsDir,
    trail,
    log,
    judge: {
      records: openModelRecords(trust.store, keyRing),
      signers: openModelSigners(trust.store, keyRing, config.modelSigners),
      plain: config.modelsPlain,
    },
    feed,
    upstreamModels: config.upstreamModels.map(servedModelOfSetting),
    accept(card, artefacts) {
      if (isStarting) firstModels.add(card.id);
      engines.start?.(card, artefacts);
    },
    drop(id) {
      firstModels.delete(id);
      engines.stop?.(id);
    },
  });
  isStarting = false;

  const identity = await trust.alone(() => openIdentity(trust, config, clock, log, opened));
  const { users, signingKeys } = identity;

  // The act and its doors.
  let draining = false;
  const isModelReady = (id: string): boolean => engines.get(id)?.state() === "ready";
  const roleCaps = roleCapsOf(config);
  const isReady = (): boolean =>
    !draining && trail.healthy() && feed.isCurrent() && [...firstModels].every(isModelReady);
  const limits = await openLimits(trust, config, clock, log, opened);
  const tiers = rateTiers(config);
  const payloadKeys = openPayloadKeys({ ...trust, clock, log });
  opened.push(() => payloadKeys.close());
  const runInference = openRunInference({
    catalog,
    engines,
    admission: openAdmission({
      ...limits,
      userRate: tiers.user.rate,
      placesPerUser: config.requestsAtOncePerUser,
      clock,
    }),
    capsOf: (principal) => capsOf(principal, roleCaps),
    payloads: config.auditPayloads.length === 0 ? undefined : {
      partsOf: (model, { roles }) => keptParts(config.auditPayloads, model, roles),
      keyOf: payloadKeys.keyOf,
    },
    log,
    clock,
  });
  underWayOn = (modelId) => runInference.underWayOn(modelId);
  const labelAddress = config.auditAddresses === "plain"
    ? (address: string) => address
    : addressPseudonyms(keyRing);
  const subjects = config.auditSubjects === "plain"
    ? PLAIN_SUBJECTS
    : pseudonymousSubjects((text) => keyRing.pseudonym("subject", text), config.publicUrl);
  const archive = openArchive(config.dataDir, trust, log);
  opened.push(() => archive.close());
  const pressure = openPressure({
    lagMsMax: config.loopLagMsMax,
    atOnceMax: config.inferencesAtOnceMax,
    lowPriorityRoles: config.lowPriorityRoles,
    underWay: () => runInference.underWay(),
    // The event loop lags by the machine's clock, whatever time it is for everything else.
    clock: systemClock,
    log,
  });
  opened.push(() => pressure.close());
  const parts: AppParts = {
    clock,
    log,
    trail,
    ...identity,
    vault: trust.rotation,
    issuer: config.publicUrl,
    externalIssuers: config.issuers.map(({ issuer }) => issuer),
    challenge: challenges(config.publicUrl),
    jwks: () => signingKeys.jwks(),
    labelAccount: (username) => keyRing.pseudonym("account", username),
    labelAddress,
    subjects,
    archive,
    payloadKeys,
    ...limits,
    rateTiers: tiers,
    pressure,
    banWatch: openBanWatch({ ...limits, trail, labelAddress, log, clock }),
    standardHeaders: standardHeaders(config.publicUrl, config.corsOrigins),
    bodyBounds: config,
    bodiesBytesMax: config.bodiesBytesMax,
    allowedHosts: allowedHosts(config),
    trustedProxies: addressRanges(config.trustedProxies),
    catalog,
    models: catalog,
    door: openInferenceDoor({
      catalog,
      runInference,
      requestTimeoutMs: config.requestTimeoutMs,
      generationTimeoutMs: config.generationTimeoutMs,
    }),
    newId: newGenerationId,
    nowSeconds: () => Math.floor(clock.now() / 1000),
    imageHosts: new Set(config.imageHosts),
    mediaBodyBytesMax: config.mediaBodyBytesMax,
    uploadBytesMax: config.uploadBytesMax,
    uploadTimeoutMs: config.generationTimeoutMs,
    describeTensors: openTensorDescriptions({ engines, clock }),
    isReady,
    isModelReady,
    modelCounts() {
      const served = catalog.list().filter(({ accepted }) => accepted);
      return { ready: served.filter(({ id }) => isModelReady(id)).length, total: served.length };
    },
    version: VERSION,
  };
  const routes = routeTable(parts);
  // Last, so that nothing can fail between the making of a password and the showing of it.
  const generatedPassword = await trust.alone(() => ensureFirstUser(users, trust, log, config));
  return {
    app: createApp(parts, routes),
    routes,
    catalog,
    identity,
    rotation: trust.rotation,
    log,
    generatedPassword,
    isReady,
    whenWarm: () => whenWarm(engines),
    drain() {
      draining = true;
    },
    stopInferences: () => runInference.stop(),
    async close(reason) {
      stopReason = reason;
      await closeAll();
    },
  };
}

function roleCapsOf({ roleCaps }: Config): RoleCaps {
  const of = (role: ModelRole): RequestCaps => {
    const { outputTokensMax = DEFAULT_CAPS.outputTokensMax, ...others } = roleCaps[role] ?? {};
    const set = Object.fromEntries(Object.entries(others).filter(([, value]) => value !== undefined));
    return { ...DEFAULT_CAPS, ...set, outputTokensMax };
  };
  return { admin: of("admin"), operator: of("operator"), auditor: of("auditor"), user: of("user") };
}

/** In an empty store, makes the first user; returns its password where it was made up here. */
async function ensureFirstUser(
  users: Users,
  { trail, trailKeys }: Pick<OpenedTrust, "trail" | "trailKeys">,
  log: Log,
  { adminPassword: configured, dataDir, mode }: Config,
): Promise<string | undefined> {
  if (!await users.isEmpty()) {
    if (configured !== undefined) {
      log.write("warn", "settings.admin_password_not_used", { reason: "the user exists already" });
    }
    return undefined;
  }
  // Or whoever loses the store gets the first password back, whatever became of it since.
  if (mode === "production" && hasServed(auditFolders(dataDir).directory, trailKeys.sealingKeys())) {
    throw new Fault(
      "unavailable",
      "Cannot make the first user: the store has no user, but this data folder has served before: restore the store, or start with " +
        "an empty data folder",
    );
  }
  if (configured === undefined && mode === "production") {
    throw new Fault(
      "unavailable",
      "Cannot make the first user: PORTCULLIS_ADMIN_PASSWORD is missing, and the store has no user yet",
    );
  }
  const checked = configured === undefined ? undefined : await checkPassword(configured, FIRST_USER);
  if (checked?.ok === false) {
    const words = PASSWORD_WORDS[checked.reason];
    throw new Fault("unavailable", `Cannot make the first user with PORTCULLIS_ADMIN_PASSWORD: ${words}`);
  }
  const password = configured ?? encodeBase64url(crypto.getRandomValues(new Uint8Array(18)));
  const user = await users.create({ username: FIRST_USER, password, roles: ["admin"], team: DEFAULT_TEAM });
  await trail.record({ type: "user.created", subject: user.id, roles: user.roles, actor: "first start" });
  return configured === undefined ? password : undefined;
}

/** The public host, loopback under our port (probes and local clients), and what the settings add. */
function allowedHosts(config: Config): ReadonlySet<string> {
  const loopback = ["localhost", "127.0.0.1", "[::1]"].map((host) =>
    config.port === 80 ? host : `${host}:${config.port}`
  );
  return new Set([new URL(config.publicUrl).host, ...loopback, ...config.allowedHosts]);
}

/** What auditors search with. Its index is derived from the trail, and made anew where it is missing. */
function openArchive(dataDir: string, { keyRing, trailKeys }: OpenedTrust, log: Log): AuditArchive {
  const indexDirectory = `${dataDir}/audit-index`;
  makePrivateFolder(indexDirectory);
  return openAuditArchive({
    folders: { ...auditFolders(dataDir), indexDirectory },
    key: keyRing.keyedHash("audit_index", "words"),
    keys: trailKeys,
    log,
  });
}

/** Pseudonyms with a bounded memory: the same few addresses come at every request. */
function addressPseudonyms(keyRing: KeyRing): (address: string) => string {
  const known = new Map<string, string>();
  const knownMax = 10_000;
  return (address) => {
    let pseudonym = known.get(address);
    if (pseudonym === undefined) {
      if (known.size >= knownMax) known.clear();
      pseudonym = keyRing.pseudonym("address", address);
      known.set(address, pseudonym);
    }
    return pseudonym;
  };
}

/** SHA-256 over the settings without the secrets, so that an auditor sees when they changed. */
function settingsDigest(config: Config): string {
  const open = (Object.keys(SETTINGS) as SettingName[]).filter((name) => !SETTINGS[name].secret);
  // Through JSON text, which leaves out what is not set.
  const text = JSON.stringify(Object.fromEntries(open.map((name) => [name, config[name]])));
  return hash("sha256", canonicalJson(JSON.parse(text)), "hex");
}
