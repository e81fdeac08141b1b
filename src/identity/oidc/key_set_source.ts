// Key set source: reads an issuer's JWK set (RFC 7517 §5) from the one place that the settings name, within bounds.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { parseStrictJson } from "../../encoding/strict_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import type { UntrustedObject } from "../strict_jws.ts";

/** Where the keys of an issuer are. */
export interface KeySetPlace {
  /** As it stands in `iss`. */
  readonly issuer: string;
  /** Called as it is; absent: OpenID Connect Discovery at the issuer tells it. */
  readonly jwksUrl?: string | undefined;
  /** PEM certificates to trust besides the runtime's. */
  readonly caCertificates?: string | undefined;
}

/** Reads the set whenever it is asked to. */
export interface KeySetSource {
  /**
   * The members of the set; what they are is not checked.
   *
   * @throws Fault `unavailable`, with private words that hold nothing of what the issuer sent
   */
  read(): Promise<readonly JsonValue[]>;
  /** Ends the reads under way. */
  close(): void;
}

const WHOLE_TIMEOUT_MS = 5000;
const BODY_BYTES_MAX = 256 * 1024;
const KEYS_MAX = 100;
const JSON_DEPTH_MAX = 8;
const JSON_CONTAINERS_MAX = 10_000;
const REASON_CHARACTERS_MAX = 300;

/**
 * Opens the way to the keys; nothing is called before they are asked for.
 *
 * @throws Error when the certificates cannot be read
 */
export function openKeySetSource({ issuer, jwksUrl, caCertificates }: KeySetPlace): KeySetSource {
  const client = Deno.createHttpClient({
    ...(caCertificates === undefined ? {} : { caCerts: [caCertificates] }),
    // The set is read every few minutes: a connection kept so long is closed over there.
    poolMaxIdlePerHost: 0,
  });
  const closing = new AbortController();

  async function readObject(url: string, signal: AbortSignal): Promise<UntrustedObject> {
    const response = await fetch(url, {
      // What unfolds counts unfolded, but need not come folded at all.
      headers: { "accept": "application/json", "accept-encoding": "identity", "user-agent": "portcullis" },
      // A redirect would let the issuer's web server choose whose keys are trusted.
      redirect: "error",
      signal,
      client,
    });
    if (response.status !== 200) throw new Refusal(`it answered with status ${response.status}`);
    const body = new Uint8Array(BODY_BYTES_MAX);
    let length = 0;
    for await (const piece of response.body ?? []) {
      if (length + piece.length > BODY_BYTES_MAX) throw new Refusal("its answer is too long");
      body.set(piece, length);
      length += piece.length;
    }
    const text = decodeUtf8(body.subarray(0, length));
    const json = text.ok ? parseStrictJson(text.value, JSON_DEPTH_MAX, JSON_CONTAINERS_MAX) : text;
    if (!json.ok) throw new Refusal(`its answer is no strict JSON (${json.reason})`);
    if (typeof json.value !== "object" || json.value === null || Array.isArray(json.value)) {
      throw new Refusal("its answer is no JSON object");
    }
    return json.value as UntrustedObject;
  }

  /** OpenID Connect Discovery §4. */
  async function discover(signal: AbortSignal): Promise<string> {
    const document = await readObject(
      `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`,
      signal,
    );
    // §4.3: else any host could speak for this issuer.
    if (document.issuer !== issuer) throw new Refusal("its discovery document names another issuer");
    const found = typeof document.jwks_uri === "string" && URL.canParse(document.jwks_uri)
      ? new URL(document.jwks_uri)
      : undefined;
    if (found?.origin !== new URL(issuer).origin || found.username !== "" || found.password !== "") {
      throw new Refusal("its discovery document names keys at another origin; set jwksUrl");
    }
    return found.href;
  }

  async function readKeys(signal: AbortSignal): Promise<readonly JsonValue[]> {
    const { keys } = await readObject(jwksUrl ?? await discover(signal), signal);
    if (!Array.isArray(keys)) throw new Refusal("its answer is no JWK set");
    if (keys.length > KEYS_MAX) throw new Refusal(`its set has more than ${KEYS_MAX} keys`);
    return keys;
  }

  return {
    async read() {
      const ending = new AbortController();
      const timer = setTimeout(
        () => ending.abort(new Refusal("it took too long")),
        WHOLE_TIMEOUT_MS,
      );
      const signal = AbortSignal.any([ending.signal, closing.signal]);
      try {
        return await readKeys(signal);
      } catch (thrown) {
        throw new Fault("unavailable", `Cannot read the keys of ${issuer}: ${reasonOf(signal, thrown)}`);
      } finally {
        clearTimeout(timer);
        // Also ends a body that nobody read.
        ending.abort();
      }
    },
    close() {
      closing.abort(new Refusal("this server stops"));
      client.close();
    },
  };
}

/** What is wrong with an answer, in our own words. */
class Refusal extends Error {}

function reasonOf(signal: AbortSignal, thrown: unknown): string {
  const error: unknown = signal.aborted ? signal.reason : thrown;
  if (error instanceof Refusal) return error.message;
  // The runtime's words: they name the address and what failed, and quote nothing of an answer.
  const words = error instanceof Error ? error.message : "unknown";
  return `it could not be reached (${words.slice(0, REASON_CHARACTERS_MAX)})`;
}
