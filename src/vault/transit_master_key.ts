// Transit master key: one that never leaves a key service; it is used through the transit API of HashiCorp Vault and OpenBao.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import { MASTER_KEY_BYTES, type MasterKey } from "./master_key.ts";

/** Where the key is, and what shows that this server may use it. */
export interface TransitSettings {
  /** Scheme, host and port, nothing behind. */
  readonly url: string;
  /** Path of the secrets engine, such as "transit". */
  readonly mount: string;
  /** Name of the key there. */
  readonly key: string;
  readonly namespace?: string | undefined;
  /** PEM certificates to trust besides the runtime's. */
  readonly caCertificates?: string | undefined;
  /** The token as it stands now: whoever renews it may write another one into its file. */
  readonly readToken: () => string;
}

/** A master key in a service. */
export interface TransitMasterKey extends MasterKey {
  /** Ends the calls under way. */
  close(): void;
}

const CALL_TIMEOUT_MS = 5000;
const ANSWER_BYTES_MAX = 64 * 1024;
const JSON_DEPTH_MAX = 8;
/** At a start, a service that is out of reach or sealed is asked so many times, twice as long apart each time: 8 s in all. */
const START_TRIES = 6;
const START_WAIT_FIRST_MS = 250;
/** What the service answers; N is the version of its key. */
const CIPHERTEXT = /^vault:v([1-9]\d{0,8}):[A-Za-z0-9+/]{16,4096}={0,2}$/;
const PROBE_PLACE = "probe";
const TOKEN = /^[\x21-\x7e]{1,4096}$/;

/**
 * Reaches the service and tries both acts, so that a start does not succeed with a token that may do one of them only.
 *
 * @throws Fault `unavailable` in words that say what to do, at once or, where waiting may help, after several tries
 */
export async function openTransitMasterKey(settings: TransitSettings): Promise<TransitMasterKey> {
  const service = openService(settings);
  let newest = 0;

  async function wrap(place: string, raw: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const data = await service.call("encrypt", {
      plaintext: raw.toBase64(),
      associated_data: associatedDataOf(place),
    });
    const ciphertext = typeof data.ciphertext === "string" ? data.ciphertext : "";
    // Never stored unless it can be told what it is: it would be a key that nobody can unwrap.
    const version = versionOf(ciphertext);
    if (version === undefined) throw failure("its answer holds no ciphertext");
    newest = Math.max(newest, version);
    return encodeUtf8(ciphertext);
  }

  async function unwrap(
    place: string,
    wrapped: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const ciphertext = textOf(wrapped);
    if (versionOf(ciphertext) === undefined) {
      throw new Fault(
        "unavailable",
        "Cannot unwrap a key: no key service wrapped it; this store was made under a PORTCULLIS_MASTER_KEY",
      );
    }
    const data = await service.call("decrypt", { ciphertext, associated_data: associatedDataOf(place) });
    const raw = typeof data.plaintext === "string" ? bytesOf(data.plaintext) : undefined;
    if (raw === undefined) throw failure("its answer holds no plaintext");
    return raw;
  }

  async function probe(): Promise<void> {
    const raw = crypto.getRandomValues(new Uint8Array(MASTER_KEY_BYTES));
    const back = await unwrap(PROBE_PLACE, await wrap(PROBE_PLACE, raw));
    if (back.toHex() !== raw.toHex()) throw failure("it does not decrypt to what it encrypted");
  }

  try {
    await withPatience(probe);
  } catch (thrown) {
    service.close();
    throw thrown;
  }
  return {
    get id() {
      return `${settings.mount}/${settings.key}:v${newest}`;
    },
    wrap,
    unwrap,
    isCurrent: (wrapped) => Promise.resolve(versionOf(textOf(wrapped)) === newest),
    // Learns of a newer version.
    renew: probe,
    settle: () => Promise.resolve(),
    close: () => service.close(),
  };
}

interface Service {
  /** The `data` of the answer. */
  call(act: "encrypt" | "decrypt", body: JsonObject): Promise<JsonObject>;
  close(): void;
}

type JsonObject = Readonly<Record<string, JsonValue>>;

function openService({ url, mount, key, namespace, caCertificates, readToken }: TransitSettings): Service {
  let token = tokenOf(readToken());
  const client = Deno.createHttpClient({
    ...(caCertificates === undefined ? {} : { caCerts: [caCertificates] }),
    // It is called a few times a year: a connection kept so long is closed over there.
    poolMaxIdlePerHost: 0,
  });
  const closing = new AbortController();

  async function post(act: string, body: JsonObject): Promise<Answer> {
    const ending = new AbortController();
    const timer = setTimeout(() => ending.abort(new Refusal("it took too long", true)), CALL_TIMEOUT_MS);
    const signal = AbortSignal.any([ending.signal, closing.signal]);
    try {
      const response = await fetch(`${url}/v1/${mount}/${act}/${key}`, {
        method: "POST",
        headers: {
          "accept": "application/json",
          "accept-encoding": "identity",
          "content-type": "application/json",
          "user-agent": "portcullis",
          "x-vault-request": "true",
          "x-vault-token": token,
          ...(namespace === undefined ? {} : { "x-vault-namespace": namespace }),
        },
        body: JSON.stringify(body),
        // A standby redirects to an address of its own choice: token and keys go only where the settings say.
        redirect: "manual",
        signal,
        client,
      });
      return { status: response.status, text: await readText(response) };
    } catch (thrown) {
      throw signal.aborted ? signal.reason : thrown;
    } finally {
      clearTimeout(timer);
      // Also ends a body that nobody read to its end.
      ending.abort();
    }
  }

  async function call(act: "encrypt" | "decrypt", body: JsonObject): Promise<JsonObject> {
    try {
      let answer = await post(act, body);
      const renewed = answer.status === 403 ? tokenOf(readToken()) : token;
      if (renewed !== token) {
        token = renewed;
        answer = await post(act, body);
      }
      if (answer.status !== 200) throw refusalOf(answer, act, `${mount}/${act}/${key}`);
      const data = objectOf(objectOf(parsed(answer.text))?.data);
      if (data === undefined) throw new Refusal("its answer is no JSON object with data", false);
      return data;
    } catch (thrown) {
      throw faultOf(thrown);
    }
  }

  return {
    call,
    close() {
      closing.abort(new Refusal("this server stops", false));
      client.close();
    },
  };
}

/** As the settings demand it; the runtime's words about a header that cannot be sent would repeat it. */
function tokenOf(text: string): string {
  if (TOKEN.test(text)) return text;
  throw failure("its token is malformed; allowed: 1 to 4096 printable characters without spaces");
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

async function readText(response: Response): Promise<string> {
  const body = new Uint8Array(ANSWER_BYTES_MAX);
  let length = 0;
  for await (const piece of response.body ?? []) {
    if (length + piece.length > body.length) throw new Refusal("its answer is too long", false);
    body.set(piece, length);
    length += piece.length;
  }
  return textOf(body.subarray(0, length));
}

/** What the service or the way there refused, in our own words. */
class Refusal extends Error {
  constructor(words: string, readonly mayPass: boolean) {
    super(words);
  }
}

function refusalOf({ status, text }: Answer, act: string, path: string): Refusal {
  const told = errorsOf(text);
  // Nothing of what was sent stands in these: they name paths, policies and states.
  const words = told === "" ? `status ${status}` : `status ${status}: ${told}`;
  if (status === 400 && act === "decrypt") {
    return new Refusal(
      `it does not decrypt (${words}): the wrapped key was altered or moved, the key there is another one or was deleted, or its ` +
        "min_decryption_version is above the version that wrapped",
      false,
    );
  }
  if (status === 400) {
    return new Refusal(
      `it refused the call (${words}): the key must be there, of type aes256-gcm96 (vault write -f ${
        path.replace("/encrypt/", "/keys/")
      } type=aes256-gcm96)`,
      false,
    );
  }
  if (status === 403) {
    return new Refusal(
      `it does not let this token in (${words}): the token has expired, or its policy lacks "update" on ${path}`,
      false,
    );
  }
  if (status === 404) {
    return new Refusal(`it knows no ${path} (${words}): check mount, key and namespace`, false);
  }
  if (status === 429) return new Refusal(`it is asked too often (${words}): raise its quota`, true);
  if (status === 503) return new Refusal(`it is sealed or under maintenance (${words}): unseal it`, true);
  if (status >= 300 && status <= 399 || status === 472 || status === 473) {
    return new Refusal(
      `it is a standby (status ${status}): name the active node, or the balancer in front`,
      true,
    );
  }
  return new Refusal(`it failed (${words})`, status >= 500);
}

const ERRORS_CHARACTERS_MAX = 300;

/** The words of `errors`, printable and short. */
function errorsOf(text: string): string {
  const errors = objectOf(parsed(text))?.errors;
  const words = Array.isArray(errors) ? errors.filter((each) => typeof each === "string").join("; ") : "";
  return words.replace(/[^\x20-\x7e]+/g, " ").trim().slice(0, ERRORS_CHARACTERS_MAX);
}

/** A Fault, and whether a later try may go better. */
class ServiceFault extends Fault {
  constructor(reason: string, readonly mayPass: boolean, cause: unknown) {
    super("unavailable", `Cannot use the key service: ${reason}`, { cause });
  }
}

function faultOf(thrown: unknown): ServiceFault {
  if (thrown instanceof ServiceFault) return thrown;
  if (thrown instanceof Refusal) return new ServiceFault(thrown.message, thrown.mayPass, thrown);
  // The runtime's words: they name the address and what failed.
  const words = thrown instanceof Error ? thrown.message : "unknown";
  return new ServiceFault(`it cannot be reached (${words.slice(0, ERRORS_CHARACTERS_MAX)})`, true, thrown);
}

function failure(reason: string): ServiceFault {
  return new ServiceFault(reason, false, undefined);
}

/** Service and server may start at the same moment. While it serves, nobody waits for a service that is away. */
async function withPatience(act: () => Promise<void>): Promise<void> {
  for (let tries = 1, waitMs = START_WAIT_FIRST_MS;; tries++, waitMs *= 2) {
    try {
      return await act();
    } catch (thrown) {
      if (!(thrown instanceof ServiceFault) || !thrown.mayPass || tries >= START_TRIES) throw thrown;
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

/** What is bound to a wrapped key, so that it unwraps in its own place only. */
function associatedDataOf(place: string): string {
  return encodeUtf8(`portcullis\0${place}`).toBase64();
}

function versionOf(ciphertext: string): number | undefined {
  const version = CIPHERTEXT.exec(ciphertext)?.[1];
  return version === undefined ? undefined : Number(version);
}

function textOf(bytes: Uint8Array<ArrayBuffer>): string {
  const text = decodeUtf8(bytes);
  return text.ok ? text.value : "";
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.fromBase64(base64, { lastChunkHandling: "strict" });
  } catch {
    return undefined;
  }
}

function parsed(text: string): JsonValue | undefined {
  const json = parseStrictJson(text, JSON_DEPTH_MAX);
  return json.ok ? json.value : undefined;
}

function objectOf(value: JsonValue | undefined): JsonObject | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? value as JsonObject
    : undefined;
}
