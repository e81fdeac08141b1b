// IP addresses: strict parsing, one canonical form, CIDR ranges (RFC 4291, RFC 4632, RFC 5952).
import { no, ok, type Outcome } from "../faults/outcome.ts";

/** An address as bytes: 4 for IPv4, 16 for IPv6. IPv4-mapped IPv6 (::ffff:0:0/96) is IPv4, so that one host has one form. */
export type AddressBytes = readonly number[];

/** A range of addresses. */
export interface AddressRange {
  readonly bytes: AddressBytes;
  /** Leading bits that count. */
  readonly prefixBits: number;
}

/** Text to address bytes. No zone, no port, no leading zeros, no white space. */
export function parseAddress(text: string): Outcome<AddressBytes, "not_an_address"> {
  if (text.length > 45) return no("not_an_address");
  const bytes = text.includes(":") ? parseIpv6(text) : parseIpv4(text);
  if (bytes === undefined) return no("not_an_address");
  const mapped = bytes.length === 16 && bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 255 &&
    bytes[11] === 255;
  return ok(mapped ? bytes.slice(12) : bytes);
}

/**
 * `address/bits`, or an address alone for exactly that one. The bits of an IPv4-mapped range count from the start of its
 * IPv6 form, as they are written: `::ffff:10.0.0.0/104` is `10.0.0.0/8`; one wider than /96 is refused.
 */
export function parseAddressRange(text: string): Outcome<AddressRange, "not_a_range"> {
  const match = /^([0-9a-fA-F.:]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text);
  const written = match?.[1] ?? "";
  const address = parseAddress(written);
  if (!address.ok) return no("not_a_range");
  const bitsMax = address.value.length * 8;
  const mappedBits = written.includes(":") && bitsMax === 32 ? 96 : 0;
  const prefixBits = match?.[2] === undefined ? bitsMax : Number(match[2]) - mappedBits;
  return prefixBits >= 0 && prefixBits <= bitsMax
    ? ok({ bytes: address.value, prefixBits })
    : no("not_a_range");
}

/** Whether a range holds an address. */
export function rangeHolds(range: AddressRange, address: AddressBytes): boolean {
  if (range.bytes.length !== address.length) return false;
  for (let index = 0, bits = range.prefixBits; bits > 0; index++, bits -= 8) {
    const mask = bits >= 8 ? 255 : (255 << (8 - bits)) & 255;
    if (((range.bytes[index] ?? 0) & mask) !== ((address[index] ?? 0) & mask)) return false;
  }
  return true;
}

/** The canonical text: dotted decimal, or eight groups of IPv6 without compression (a key, not prose). */
export function formatAddress(address: AddressBytes): string {
  return address.length === 4 ? address.join(".") : groups(address).join(":");
}

/** What a limit counts as one client: the IPv4 address, or the /64 of an IPv6 one (one customer's whole network). */
export function clientNetwork(address: AddressBytes): string {
  // RFC 6052 §2.1: behind this prefix is all of IPv4, which is not one client.
  if (address.length === 16 && NAT64_PREFIX.every((byte, index) => address[index] === byte)) {
    return address.slice(12).join(".");
  }
  return address.length === 4 ? address.join(".") : `${groups(address).slice(0, 4).join(":")}::/64`;
}

const NAT64_PREFIX = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

function groups(address: AddressBytes): string[] {
  return Array.from(
    { length: 8 },
    (_, index) => (((address[2 * index] ?? 0) << 8) | (address[2 * index + 1] ?? 0)).toString(16),
  );
}

function parseIpv4(text: string): AddressBytes | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  const parts = match.slice(1);
  // A leading zero reads as octal elsewhere: two readers, two hosts.
  if (parts.some((part) => Number(part) > 255 || (part.length > 1 && part.startsWith("0")))) return undefined;
  return parts.map(Number);
}

function parseIpv6(text: string): AddressBytes | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0] ?? "", halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? "", true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return undefined;
  return [...head, ...Array.from({ length: missing }, () => 0), ...tail];
}

/** Groups of one half; an IPv4 tail counts only where the half ends the address. */
function parseGroups(text: string, endsAddress: boolean): number[] | undefined {
  if (text === "") return [];
  const parts = text.split(":");
  const bytes: number[] = [];
  for (const [index, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      const group = parseInt(part, 16);
      bytes.push(group >> 8, group & 255);
    } else if (endsAddress && index === parts.length - 1) {
      const tail = parseIpv4(part);
      if (tail === undefined) return undefined;
      bytes.push(...tail);
    } else return undefined;
  }
  return bytes;
}
