// API key record: what rests of an API key, the rules of what may, and what the gate is told of it.
import { type Grant, GRANT_GRAMMAR, grantsIn, parseGrant } from "../access/grant.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { type AddressRange, parseAddressRange } from "../encoding/ip_address.ts";
import { Fault, type FieldMistake } from "../faults/fault.ts";
import { isThumbprint } from "./confirmation.ts";
import { type KeptSecret, parseSecret, secretRecord } from "./kept_secret.ts";

/** What a key is for, as whoever makes it says. */
export interface ApiKeyOrder {
  readonly name: string;
  /** A user's or a client's id. */
  readonly ownerId: string;
  /** Grants, as texts. None: the key is good for nothing. */
  readonly scopes: readonly string[];
  /** CIDR ranges that it may come from. None: from anywhere. */
  readonly addresses: readonly string[];
  /** RFC 7638 thumbprint of the key whose possession must be proved with it (RFC 9449); null for a bearer credential. */
  readonly boundTo: string | null;
  /** Whole milliseconds since 1970, as are all times here. */
  readonly expiresAtMs: number;
  /** Whether somebody besides the owner has learned its text: such a key must not come to do more than it did then. */
  readonly seenByOthers: boolean;
}

/** A key as it rests, with the hashes of its secrets. */
export interface ApiKeyRecord extends ApiKeyOrder {
  readonly id: string;
  readonly createdAtMs: number;
  readonly secret: KeptSecret;
}

/** What a genuine key says. Address and proof are the caller's to check. */
export interface VerifiedKey {
  readonly id: string;
  readonly ownerId: string;
  readonly scope: readonly Grant[];
  /** None: from anywhere. */
  readonly addressRanges: readonly AddressRange[];
  readonly boundTo: string | null;
}

/** What a range of another version of the server becomes: no address is in it, and the list that holds it is not empty. */
const NO_ADDRESS: AddressRange = { bytes: [], prefixBits: 0 };

/** Nothing rests that could not be read again. Throws Fault `fields_invalid`. */
export function checkApiKeyOrder({ scopes, addresses, boundTo, expiresAtMs }: ApiKeyOrder): void {
  const fields: FieldMistake[] = [];
  for (const [index, scope] of scopes.entries()) {
    if (!parseGrant(scope).ok) fields.push({ path: `/scopes/${index}`, message: `is not ${GRANT_GRAMMAR}` });
  }
  for (const [index, address] of addresses.entries()) {
    if (!parseAddressRange(address).ok) {
      fields.push({ path: `/addresses/${index}`, message: "is no IP address and no CIDR range" });
    }
  }
  if (boundTo !== null && !isThumbprint(boundTo)) {
    fields.push({ path: "/bound_to", message: "is no SHA-256 thumbprint in base64url (RFC 7638)" });
  }
  if (!Number.isSafeInteger(expiresAtMs)) fields.push({ path: "/expires_at", message: "is no moment" });
  if (fields.length > 0) {
    throw new Fault("fields_invalid", "Cannot create an API key: the order breaks its rules", { fields });
  }
}

/** A scope of another version of the server gives nothing, and a range of one holds nothing: neither widens. */
export function verifiedKeyOf({ id, ownerId, scopes, addresses, boundTo }: ApiKeyRecord): VerifiedKey {
  const scope = grantsIn(scopes);
  const addressRanges = addresses.map(parseAddressRange).map((range) => range.ok ? range.value : NO_ADDRESS);
  return { id, ownerId, scope, addressRanges, boundTo };
}

/** The record's JSON; its key is the id. Members that are none of a key's do not rest, whatever the object carries besides. */
export function apiKeyRecord(record: ApiKeyRecord): JsonValue {
  const { name, ownerId, scopes, addresses, boundTo, createdAtMs, expiresAtMs, seenByOthers, secret } =
    record;
  return {
    name,
    ownerId,
    scopes,
    addresses,
    boundTo,
    createdAtMs,
    expiresAtMs,
    seenByOthers,
    secret: secretRecord(secret),
  };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
export function parseApiKeyRecord(id: string, value: JsonValue): ApiKeyRecord {
  const { name, ownerId, scopes, addresses, boundTo, createdAtMs, expiresAtMs, ...rest } =
    (value ?? {}) as Record<string, JsonValue>;
  const secret = parseSecret(rest.secret);
  // Of keys of before this was noted nobody knows who has seen them.
  const { seenByOthers = true } = rest;
  if (
    typeof name !== "string" || typeof ownerId !== "string" || !areTexts(scopes) || !areTexts(addresses) ||
    (boundTo !== null && typeof boundTo !== "string") || typeof createdAtMs !== "number" ||
    typeof expiresAtMs !== "number" || typeof seenByOthers !== "boolean" || secret === undefined
  ) throw new Fault("unavailable", "Cannot read an API key: the record has no known form");
  return { id, name, ownerId, scopes, addresses, boundTo, createdAtMs, expiresAtMs, seenByOthers, secret };
}

function areTexts(value: JsonValue | undefined): value is readonly string[] {
  return Array.isArray(value) && value.every((each) => typeof each === "string");
}
