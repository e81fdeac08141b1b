// Connect probe: whether a server takes connections. `fetch` has no time-out for that, and does not tell what it waits for.
import type { Clock } from "../../time/clock.ts";

/** Asks one server. */
export interface ConnectProbe {
  /** Whether a connection comes to stand in time. Calls that ask together share one; a fresh yes is not asked again. */
  reachable(): Promise<boolean>;
  /** Ends a probe that is under way. */
  close(): void;
}

/**
 * Makes a probe.
 *
 * @param url an http or https address
 * @param timeoutMs for the connection to stand; a yes stays fresh for as long
 */
export function createConnectProbe(
  options: { readonly url: URL; readonly timeoutMs: number; readonly clock: Clock },
): ConnectProbe {
  const { url, timeoutMs, clock } = options;
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
  // URLs write IPv6 addresses in brackets (RFC 3986 §3.2.2).
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  let underWay: Promise<boolean> | undefined;
  let controller: AbortController | undefined;
  let reachedAtMs = -Infinity;

  async function connect(): Promise<boolean> {
    const own = controller = new AbortController();
    const timer = setTimeout(() => own.abort(), timeoutMs);
    try {
      const connection = await Deno.connect({ hostname, port, signal: own.signal });
      connection.close();
      reachedAtMs = clock.monotonic();
      return true;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
      underWay = controller = undefined;
    }
  }

  return {
    reachable() {
      if (clock.monotonic() - reachedAtMs < timeoutMs) return Promise.resolve(true);
      return underWay ??= connect();
    },
    close: () => controller?.abort(),
  };
}
