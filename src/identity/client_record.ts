// Client record: what rests of a client, and the rules of its public keys.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { Fault, type FieldMistake } from "../faults/fault.ts";
import { type KeptSecret, parseSecret, secretRecord } from "./kept_secret.ts";
import { importPublicKey, isSignatureAlgorithm } from "./public_key.ts";
import { isIdText, type UntrustedObject } from "./strict_jws.ts";

/** A public JWK: of what somebody sent, the members of RFC 7517 that count here, and no other. */
export type PublicJwkObject = Readonly<Record<string, string>>;

/** A program with an account. */
export interface ClientAccount {
  /** `cli_…`: the subject of its tokens; never given again. */
  readonly id: string;
  readonly name: string;
  readonly team: string;
  readonly roles: readonly string[];
  /** How it proves itself: `client_secret_basic` or `_post` (RFC 6749 §2.3.1), or `private_key_jwt` (RFC 7523 §2.2). */
  readonly authentication: "secret" | "private_key_jwt";
  /** For `private_key_jwt`. */
  readonly keys: readonly PublicJwkObject[];
  readonly disabled: boolean;
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
  /**
   * Access tokens issued in this second or before are over: since then it was disabled, or what proves it was taken from it.
   * null: none. Whole seconds since 1970.
   */
  readonly tokensNotBeforeSeconds: number | null;
}

/** A client as it rests. */
export interface ClientRecord extends ClientAccount {
  /** null for `private_key_jwt`. */
  readonly secret: KeptSecret | null;
}

const KEYS_MAX = 8;
const PUBLIC_MEMBERS = ["kty", "crv", "x", "y", "n", "e", "alg", "kid", "use"];

/**
 * The public keys of a client, each checked for the algorithm that it names: one key, one algorithm (RFC 8725 §3.1).
 *
 * @throws Fault `fields_invalid`
 */
export async function checkClientKeys(
  authentication: ClientAccount["authentication"],
  keys: readonly UntrustedObject[],
): Promise<readonly PublicJwkObject[]> {
  const [least, most] = authentication === "secret" ? [0, 0] : [1, KEYS_MAX];
  if (keys.length < least || keys.length > most) {
    const message = most === 0 ? "a client with a secret has no keys" : `has not 1 to ${KEYS_MAX} keys`;
    throw refused([{ path: "/keys", message }]);
  }
  const mistakes: FieldMistake[] = [];
  for (const [index, jwk] of keys.entries()) {
    const { alg, kid } = jwk;
    // A `kid` that no assertion can carry would make the key worthless.
    const isSound = isSignatureAlgorithm(alg) && (kid === undefined || isIdText(kid)) &&
      (await importPublicKey(jwk, alg)).ok;
    if (!isSound) {
      mistakes.push({ path: `/keys/${index}`, message: "is no public JWK for a signature with its `alg`" });
    }
  }
  if (mistakes.length > 0) throw refused(mistakes);
  return keys.map(publicMembersOf);
}

function publicMembersOf(jwk: UntrustedObject): PublicJwkObject {
  const members = PUBLIC_MEMBERS.map((name) => [name, jwk[name]] as const);
  return Object.fromEntries(
    members.filter((member): member is readonly [string, string] => typeof member[1] === "string"),
  );
}

function refused(fields: readonly FieldMistake[]): Fault {
  return new Fault("fields_invalid", "Cannot write a client: its keys are refused", { fields });
}

/** The record's JSON; its key is the id. */
export function clientRecord(record: ClientRecord): JsonValue {
  const { name, team, roles, authentication, keys, disabled, createdAtMs, secret } = record;
  const { tokensNotBeforeSeconds } = record;
  const account = { name, team, roles, authentication, keys, disabled, createdAtMs, tokensNotBeforeSeconds };
  return { ...account, secret: secret === null ? null : secretRecord(secret) };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
export function parseClientRecord(id: string, value: JsonValue): ClientRecord {
  const { name, team, roles, authentication, keys, disabled, createdAtMs, ...rest } = (value ?? {}) as Record<
    string,
    JsonValue
  >;
  // Not in records of before there was such a thing.
  const { tokensNotBeforeSeconds = null } = rest;
  const secret = authentication === "secret" ? parseSecret(rest.secret) : null;
  if (
    typeof name !== "string" || typeof team !== "string" || typeof disabled !== "boolean" ||
    (authentication !== "secret" && authentication !== "private_key_jwt") ||
    !Array.isArray(roles) || !roles.every((role) => typeof role === "string") ||
    !Array.isArray(keys) || !keys.every(isPublicJwk) || typeof createdAtMs !== "number" ||
    (tokensNotBeforeSeconds !== null && typeof tokensNotBeforeSeconds !== "number") ||
    secret === undefined
  ) throw new Fault("unavailable", "Cannot read a client: the record has no known form");
  return {
    id,
    name,
    team,
    roles,
    authentication,
    keys,
    disabled,
    createdAtMs,
    tokensNotBeforeSeconds,
    secret,
  };
}

function isPublicJwk(value: JsonValue): value is PublicJwkObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((member) => typeof member === "string");
}
