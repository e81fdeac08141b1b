// Client address: the socket's peer, or what a configured proxy says of it. Nothing else a client sends is believed.
import { type AddressBytes, type AddressRange, parseAddress, rangeHolds } from "../../encoding/ip_address.ts";

/** Hops read of an X-Forwarded-For; the rightmost ones, which our own proxies wrote. */
const HOPS_MAX = 16;
const UNKNOWN: AddressBytes = [0, 0, 0, 0];

/**
 * The address of the client: from the right of `X-Forwarded-For`, the first hop that is no trusted proxy (ASVS V15.3.4).
 * A hop that is no address ends the walk at the last proxy that was named.
 *
 * @param peer the socket's address, as text
 * @param forwardedFor the header, null where there is none
 */
export function clientAddress(
  peer: string,
  forwardedFor: string | null,
  trustedProxies: readonly AddressRange[],
): AddressBytes {
  const parsed = parseAddress(peer);
  let address = parsed.ok ? parsed.value : UNKNOWN;
  if (forwardedFor === null || trustedProxies.length === 0) return address;
  const hops = forwardedFor.split(",").slice(-HOPS_MAX);
  for (
    let index = hops.length - 1;
    index >= 0 && trustedProxies.some((range) => rangeHolds(range, address));
    index--
  ) {
    const hop = parseAddress((hops[index] ?? "").trim());
    if (!hop.ok) break;
    address = hop.value;
  }
  return address;
}
