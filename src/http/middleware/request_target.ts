// Request target: the first step. Deno.serve glues the Host header into the URL that the router reads, so a hostile Host
// could choose the route (RFC 9112 §3.2). Nothing is routed before Host and target have passed.
import { Fault } from "../../faults/fault.ts";

/** A host as RFC 3986 §3.2.2 writes it, narrowed to what is served: name, IPv4 or bracketed IPv6, and a port. */
const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::[1-9]\d{0,4})?$/;
/** RFC 3986 path (each % with its two digits, §2.1, else the router would repair it) and query, over-long ones and raw backslashes excluded. */
const TARGET =
  /^\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?[\]]*)?$/;
const TARGET_CHARACTERS_MAX = 2048;
/** Methods whose semantics we do not implement for any resource (RFC 9110 §15.6.2). */
const REFUSED_METHODS: readonly string[] = ["TRACE", "CONNECT"];

/**
 * Checks method, Host and target.
 *
 * @param allowedHosts lower case, with the port where it is not the scheme's own
 * @throws Fault `target_invalid` · `method_not_implemented`
 */
export function requireSafeTarget(request: Request, allowedHosts: ReadonlySet<string>): void {
  if (REFUSED_METHODS.includes(request.method)) {
    throw new Fault("method_not_implemented", "Cannot serve a request: its method is refused everywhere");
  }
  const host = request.headers.get("host")?.toLowerCase();
  if (host === undefined || !HOST.test(host)) throw refused("the Host header is absent or malformed", true);
  if (!allowedHosts.has(host)) throw refused("the Host header is not on the allow-list", true);
  // Absolute-form targets (RFC 9112 §3.2.2) replace the host of the URL: they must name the same one.
  const prefix = `http://${host}`;
  const url = request.url;
  if (url.slice(0, prefix.length).toLowerCase() !== prefix) {
    throw refused("the target names another host than the Host header");
  }
  const target = url.slice(prefix.length);
  if (target.length > TARGET_CHARACTERS_MAX || !TARGET.test(target)) {
    throw refused("the target is malformed or too long");
  }
}

/** @param isHostRefused a check of our health by number, or somebody's name that leads here: the sender may know no better */
function refused(state: string, isHostRefused = false): Fault {
  return new Fault("target_invalid", `Cannot route a request: ${state}`, { isHostRefused });
}
