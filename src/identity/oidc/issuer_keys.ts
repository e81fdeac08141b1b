// Issuer keys: the public keys of one issuer, kept for a while and asked for again on demand.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { Fault, toFault } from "../../faults/fault.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Clock } from "../../time/clock.ts";
import { importPublicKey, type SignatureAlgorithm } from "../public_key.ts";
import { isIdText, type UntrustedObject } from "../strict_jws.ts";
import { type KeySetPlace, openKeySetSource } from "./key_set_source.ts";

/** A key and the one algorithm that it is for (RFC 8725 §3.1). */
export interface IssuerKey {
  readonly algorithm: SignatureAlgorithm;
  readonly key: CryptoKey;
}

/** What is known of an issuer's keys. */
export interface IssuerKeys {
  /** The key of this `kid`, if it can be trusted without asking the issuer first. It stays the same object while the issuer lists it. */
  current(keyId: string): IssuerKey | undefined;
  /**
   * The key of this `kid`, asking the issuer where it must; undefined when the issuer has none.
   *
   * @throws Fault `unavailable` with `retryAfterSeconds` while the issuer does not tell · `stopping` after `close`
   */
  find(keyId: string): Promise<IssuerKey | undefined>;
  /** Ends what is under way. */
  close(): Promise<void>;
}

/** Keys of this age are asked for again in the background, so that nobody waits. */
const REFRESH_AFTER_MS = 5 * 60_000;
/** Older ones are used only while the issuer does not tell: one that it took back is trusted no longer than this. */
const FRESH_MS_MAX = 10 * 60_000;
/** Used no longer, whether or not the issuer tells. */
const AGE_MS_MAX = 24 * 3_600_000;
/** Unknown key ids come from anybody: so often do they make us ask. */
const COOL_DOWN_MS = 30_000;
const COOL_DOWN_FAILED_MS = 5000;

/** Opens the keys of an issuer. Nothing is asked for before the first use. */
export function openIssuerKeys(
  place: KeySetPlace,
  algorithms: readonly SignatureAlgorithm[],
  clock: Clock,
  log: Log,
): IssuerKeys {
  const { issuer } = place;
  const source = openKeySetSource(place);
  let kept: ReadonlyMap<string, KeptKey> = new Map();
  let readAtMs = -Infinity;
  let triedAtMs = -Infinity;
  let failure: Fault | undefined;
  let told = "";
  let underWay: Promise<void> | undefined;
  let closed = false;

  async function read(): Promise<void> {
    try {
      const members = await source.read();
      const next = await importKeys(members, algorithms, kept);
      const refused = members.length - next.size;
      const state = `${[...next.keys()].join(" ")} ${refused}`;
      if (failure !== undefined || state !== told) {
        const level = next.size === 0 ? "warn" : "info";
        log.write(level, "issuer.keys_read", { issuer, usable: next.size, refused });
      }
      told = state;
      kept = next;
      readAtMs = clock.monotonic();
      failure = undefined;
    } catch (thrown) {
      const fault = toFault(thrown);
      if (fault.message !== failure?.message && !closed) {
        log.write("warn", "issuer.keys_unavailable", { issuer, reason: fault.message });
      }
      failure = fault;
    }
    triedAtMs = clock.monotonic();
    underWay = undefined;
  }

  function mayRead(): boolean {
    const coolDownMs = failure === undefined ? COOL_DOWN_MS : COOL_DOWN_FAILED_MS;
    return !closed && underWay === undefined && clock.monotonic() - triedAtMs >= coolDownMs;
  }

  const ageMs = (): number => clock.monotonic() - readAtMs;
  const keyOf = (keyId: string): IssuerKey | undefined => ageMs() < AGE_MS_MAX ? kept.get(keyId) : undefined;

  function current(keyId: string): IssuerKey | undefined {
    if (ageMs() >= FRESH_MS_MAX && failure === undefined) return undefined;
    if (ageMs() >= REFRESH_AFTER_MS && mayRead()) underWay = read();
    return keyOf(keyId);
  }

  return {
    current,
    async find(keyId) {
      const known = current(keyId);
      if (known !== undefined) return known;
      if (mayRead()) underWay = read();
      await underWay;
      const found = keyOf(keyId);
      if (found !== undefined) return found;
      if (closed) throw new Fault("stopping", `Cannot ask for the keys of ${issuer}: the server stops`);
      if (failure === undefined) return undefined;
      const waitMs = triedAtMs + COOL_DOWN_FAILED_MS - clock.monotonic();
      throw new Fault("unavailable", failure.message, {
        retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
      });
    },
    async close() {
      if (!closed) source.close();
      closed = true;
      await underWay;
    },
  };
}

interface KeptKey extends IssuerKey {
  /** The JWK as the issuer wrote it. */
  readonly text: string;
}

/** The keys that can be used. Those that stood there before in the same words are kept, for importing costs and others hold on to them. */
async function importKeys(
  members: readonly JsonValue[],
  algorithms: readonly SignatureAlgorithm[],
  before: ReadonlyMap<string, KeptKey>,
): Promise<ReadonlyMap<string, KeptKey>> {
  const keys = new Map<string, KeptKey>();
  const seen = new Set<string>();
  for (const member of members) {
    const keyId = idOf(member);
    if (keyId === undefined) continue;
    // Two keys of one name: a token says not which is meant, and neither do we.
    if (seen.has(keyId)) keys.delete(keyId);
    else {
      const text = JSON.stringify(member);
      const known = before.get(keyId);
      const key = known?.text === text ? known : await importKey(member as UntrustedObject, text, algorithms);
      if (key !== undefined) keys.set(keyId, key);
    }
    seen.add(keyId);
  }
  return keys;
}

function idOf(member: JsonValue): string | undefined {
  if (typeof member !== "object" || member === null || Array.isArray(member)) return undefined;
  const { kid } = member as UntrustedObject;
  return isIdText(kid) ? kid : undefined;
}

/** A JWK is for its own `alg`; one without gets the first algorithm of the settings that it fits: that is no token's choice either. */
async function importKey(
  jwk: UntrustedObject,
  text: string,
  algorithms: readonly SignatureAlgorithm[],
): Promise<KeptKey | undefined> {
  for (const algorithm of algorithms) {
    const key = await importPublicKey(jwk, algorithm);
    if (key.ok) return { text, algorithm, key: key.value };
  }
  return undefined;
}
