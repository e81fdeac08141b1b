// Ban watch: keeps banned addresses out, and counts what leads to a ban.
import type { AuditTrail } from "../../audit/audit_trail.ts";
import { Fault, type FaultKind, toFault } from "../../faults/fault.ts";
import { isProbe } from "../../limits/attack_signatures.ts";
import type { Ban, BanList, BanTrigger } from "../../limits/ban_list.ts";
import type { Strikes } from "../../limits/strikes.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Clock } from "../../time/clock.ts";

/** The gate's part in bans. */
export interface BanWatch {
  /** Throws Fault `banned` for a network that is banned at this moment. */
  require(network: string): void;
  /**
   * Counts what a refused request says of its sender, and bans the network when that was the last straw: the ban is in the
   * trail before it holds, and holds before this resolves. Never throws: where strikes cannot be counted or a ban not be
   * made, the log says so, once a minute.
   *
   * @param url as it was sent
   * @param address the client's, as text
   */
  note(fault: Fault, url: string, network: string, address: string, requestId: string): Promise<void>;
}

const FAILURE_LOGGED_EVERY_MS = 60_000;

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
/**
 * Refusals of targets that nothing serves. A model that is not there is none of them: models are called as people like. Bodies are
 * never looked at: a prompt may be about SQL.
 */
const UNSERVED: ReadonlySet<FaultKind> = new Set(["not_found", "target_invalid", "query_unknown"] as const);

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

  return {
    require(network) {
      const ban = bans.find(network);
      if (ban !== undefined) throw bannedFault(ban, clock.now());
    },
    async note(fault, url, network, address, request) {
      const trigger = triggerOf(fault, url);
      if (trigger === undefined || bans.isExempt(network)) return;
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
export function triggerOf({ kind, details }: Fault, url: string): BanTrigger | undefined {
  if (UNSERVED.has(kind) && isProbe(...targetIn(url))) return "probes";
  if (VALIDATION.has(kind)) return "validation";
  const isCredential = kind === "sign_in_refused" ||
    ((kind === "unauthenticated" || kind === "client_refused") && details.isGuess === true);
  return isCredential ? "credentials" : undefined;
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
