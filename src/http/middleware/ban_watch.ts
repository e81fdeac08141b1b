// Ban watch: keeps banned addresses out, and counts what leads to a ban.
import { createHmac } from "node:crypto";
import type { AuditTrail } from "../../audit/audit_trail.ts";
import { Fault, type FaultKind, toFault } from "../../faults/fault.ts";
import { isProbe } from "../../limits/attack_signatures.ts";
import type { Ban, BanList, BanTrigger } from "../../limits/ban_list.ts";
import { RecentMap } from "../../limits/recent_map.ts";
import type { Strikes } from "../../limits/strikes.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Clock } from "../../time/clock.ts";

/** What of a request is looked at. */
export interface SentRequest {
  /** As it was sent. */
  readonly url: string;
  readonly headers: Pick<Headers, "get">;
}

/** The gate's part in bans. */
export interface BanWatch {
  /** Throws Fault `banned` for a network that is banned at this moment. */
  require(network: string): void;
  /**
   * Counts what a refused request says of its sender, and bans the network when that was the last straw: the ban is in the
   * trail before it holds, and holds before this resolves. Never throws: where strikes cannot be counted or a ban not be
   * made, the log says so, once a minute.
   *
   * The same credential from the same network is counted once a day on each instance.
   *
   * @param address the client's, as text
   */
  note(
    fault: Fault,
    sent: SentRequest,
    network: string,
    address: string,
    requestId: string,
  ): Promise<void>;
}

const FAILURE_LOGGED_EVERY_MS = 60_000;
/** The longest window that the settings allow. */
const GUESS_COUNTED_EVERY_MS = 86_400_000;
/** About 15 MB. What is forgotten counts again. */
const GUESSES_MAX = 100_000;

const VALIDATION: ReadonlySet<FaultKind> = new Set(
  [
    "request_invalid",
    "fields_invalid",
    "query_unknown",
    "target_invalid",
    "media_type_unsupported",
    "body_too_large",
  ] as const,
);
const CREDENTIALS: ReadonlySet<FaultKind> = new Set(
  ["sign_in_refused", "unauthenticated", "client_refused"] as const,
);
/**
 * Refusals of targets that nothing serves. A model that is not there is none of them: models are called as people like. Bodies are
 * never looked at: a prompt may be about SQL.
 */
const UNSERVED: ReadonlySet<FaultKind> = new Set(["not_found", "target_invalid", "query_unknown"] as const);

/**
 * What browsers say where a page of another origin had them send a request (Fetch Metadata, Sec-Fetch-Site): three images in any page
 * would otherwise have its readers banned. Whoever else says so evades the ban, not the rates.
 */
const FOREIGN_PAGES: readonly (string | null)[] = ["cross-site", "same-site"];

/**
 * Opens the watch.
 *
 * @param options.strikes undefined: the server bans nobody by itself; what admins ban is refused all the same
 * @param options.labelAddress how an address stands in the audit trail
 */
export function openBanWatch(options: {
  readonly bans: BanList;
  readonly strikes: Strikes | undefined;
  readonly trail: AuditTrail;
  readonly labelAddress: (address: string) => string;
  readonly log: Log;
  readonly clock: Clock;
}): BanWatch {
  const { bans, strikes, trail, labelAddress, log, clock } = options;
  let failureLoggedMs = -Infinity;
  // Guesses by network, and when they were counted. Keyed, for a wrong password is often nearly the right one.
  const guessKey = crypto.getRandomValues(new Uint8Array(32));
  const guesses = new RecentMap<number>(GUESSES_MAX);
  function isRepeated(guess: string, network: string): boolean {
    const key = createHmac("sha256", guessKey).update(`${network} ${guess}`).digest("base64");
    const nowMs = clock.monotonic();
    if (nowMs - (guesses.get(key) ?? -Infinity) < GUESS_COUNTED_EVERY_MS) return true;
    guesses.set(key, nowMs);
    return false;
  }

  return {
    require(network) {
      const ban = bans.find(network);
      if (ban !== undefined) throw bannedFault(ban, clock.now());
    },
    async note(fault, sent, network, address, request) {
      const trigger = triggerOf(fault, sent);
      if (trigger === undefined || bans.isExempt(network)) return;
      const { guess } = fault.details;
      if (guess !== undefined && isRepeated(guess, network)) return;
      // For tools that ban by logs; they need no eyes for what is a probe.
      log.write("info", "address.strike", { request, trigger, address });
      if (strikes === undefined) return;
      try {
        const counted = strikes.add(trigger, network);
        if (!(counted instanceof Promise ? await counted : counted)) return;
        const made = await bans.strike(network, trigger, (ban) =>
          trail.record({
            type: "address.banned",
            ban: ban.id,
            address: labelAddress(address),
            trigger,
            request,
            untilSeconds: ban.untilMs === null ? null : Math.floor(ban.untilMs / 1000),
          }));
        if (made === undefined) return;
        const { id: ban, count, untilMs } = made;
        const until = untilMs === null ? null : new Date(untilMs).toISOString();
        log.write("warn", "address.banned", { request, trigger, address, ban, count, until });
      } catch (thrown) {
        if (clock.monotonic() - failureLoggedMs < FAILURE_LOGGED_EVERY_MS) return;
        failureLoggedMs = clock.monotonic();
        log.write("error", "address.strike_not_counted", { reason: toFault(thrown).message });
      }
    },
  };
}

/** What a refusal counts as; undefined: as nothing. */
export function triggerOf({ kind, details }: Fault, { url, headers }: SentRequest): BanTrigger | undefined {
  if (details.isHostRefused === true) return undefined;
  const isForeign = FOREIGN_PAGES.includes(headers.get("sec-fetch-site"));
  if (CREDENTIALS.has(kind) && details.guess !== undefined) {
    // A foreign page can have a form sent with a secret of its choice; JSON and tokens need a preflight (Fetch, CORS).
    return isForeign && kind === "client_refused" ? undefined : "credentials";
  }
  if (isForeign) return undefined;
  if (UNSERVED.has(kind) && isProbe(...targetIn(url))) return "probes";
  return VALIDATION.has(kind) ? "validation" : undefined;
}

/** Path and query, cut out and not parsed: a URL that nothing can parse is looked at too. */
function targetIn(url: string): [path: string, query: string] {
  const start = url.startsWith("http://") ? url.indexOf("/", 7) : 0;
  const target = start === -1 ? "" : url.slice(start);
  const mark = target.indexOf("?");
  return mark === -1 ? [target, ""] : [target.slice(0, mark), target.slice(mark + 1)];
}

function bannedFault({ id, untilMs }: Ban, nowMs: number): Fault {
  const reason = `Cannot pass a request: its address is banned (${id})`;
  if (untilMs === null) return new Fault("banned", reason, { detail: "This address is banned for good." });
  // Whole seconds, as HTTP has times; the last of them is over when the ban is.
  const until = new Date(Math.ceil(untilMs / 1000) * 1000).toISOString().replace(".000Z", "Z");
  return new Fault("banned", reason, {
    detail: `This address is banned until ${until}.`,
    retryAfterSeconds: Math.ceil((untilMs - nowMs) / 1000),
  });
}
