// Ban list: the networks that are refused. At hand in memory, for it is asked at every request; kept in the store that instances share.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { type AddressRange, parseAddressRange, rangeHolds } from "../encoding/ip_address.ts";
import { Fault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordChange, RecordLifetime, RecordStore } from "../store/record_store.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";

/** What an address can be banned for by the server itself. */
export const BAN_TRIGGERS = ["credentials", "validation", "probes"] as const;
/** One of them. */
export type BanTrigger = typeof BAN_TRIGGERS[number];

/** One network that is refused. */
export interface Ban {
  readonly id: string;
  /** As `clientNetwork` has it: an IPv4 address, or the /64 of an IPv6 one. */
  readonly network: string;
  readonly reason: BanTrigger | "manual";
  readonly note: string;
  readonly createdAtMs: number;
  /** Milliseconds since 1970; null: for good. */
  readonly untilMs: number | null;
  /** How many-th ban of this network it is, counted from 1. */
  readonly count: number;
  /** Who banned it; null: the server itself. */
  readonly actor: string | null;
}

/** What an admin bans. */
export interface BanOrder {
  readonly network: string;
  readonly note: string;
  readonly actor: string;
  /** null: for good. */
  readonly seconds: number | null;
}

/** The bans. Every method that returns a promise throws Fault `unavailable` when the store fails. */
export interface BanList {
  /** The ban of a network that holds at this moment. One look into a map. */
  find(network: string): Ban | undefined;
  /** The ban of an id that holds at this moment. */
  read(id: string): Ban | undefined;
  /** Bans that hold at this moment, by id, which is by age. */
  list(page: { readonly after?: string; readonly limit: number }): readonly Ban[];
  /** Whether a network may never be banned. */
  isExempt(network: string): boolean;
  /**
   * Bans a network by itself: longer each time, the third time for good. Of several instances that do so at once, one does.
   *
   * @param record makes the ban durable in the trail before it holds; where it throws, there is no ban. Of instances that do
   * so at the same moment each may record, and the ban that then holds has one of these ids
   * @returns undefined where the network is banned already, or exempt
   */
  strike(
    network: string,
    reason: BanTrigger,
    record: (ban: Ban) => Promise<void>,
  ): Promise<Ban | undefined>;
  /** Bans a network. Throws Fault `conflict` when it is banned already, or exempt. */
  ban(order: BanOrder): Promise<Ban>;
  /**
   * Ends a ban. The next one of its network is counted on from it, unless all is forgotten.
   *
   * @returns false where it is over already, or another one now
   */
  lift(ban: Ban, options: { readonly forget: boolean }): Promise<boolean>;
}

/** What the list needs of the sealed table that it is kept in. */
export interface BanTable {
  read(key: string): Promise<KeptBan | undefined>;
  list(page: { readonly after?: string; readonly limit: number }): Promise<readonly KeptBan[]>;
  changeOf(
    key: string,
    value: JsonValue | undefined,
    options?: { readonly expects?: RecordChange["expects"]; readonly lifetime?: RecordLifetime },
  ): Promise<RecordChange>;
}

interface KeptBan {
  readonly key: string;
  readonly value: JsonValue;
  readonly version: Uint8Array<ArrayBuffer>;
}

/** A ban at hand, with the key of its record. */
interface Held {
  readonly key: string;
  readonly ban: Ban;
}

/** What is known of a network. `ban` is the last one; null: it was lifted. */
interface Past {
  readonly network: string;
  readonly count: number;
  readonly ban: Ban | null;
}

/** The table's name in the store and in the change feed. */
export const BAN_TABLE = "bans";

const FORGOTTEN_AFTER_MS = 366 * 86_400_000;
/** About 50 MB. */
const BANS_MAX = 100_000;
const PAGE = 1000;
const WRITES_MAX = 8;
/** The gate's name for an address that it does not know: to ban it would ban everybody who has none. */
const UNKNOWN = "0.0.0.0";

/**
 * Opens the list and reads all bans that hold.
 *
 * More than `bansMax` bans are not held: those go first that would end soonest. Their records stay, so that the next ban of such
 * a network counts on.
 *
 * @param options.exempt ranges that are never banned, and whose older bans do not hold; a /64 that holds one of them is exempt
 * @param options.labelNetwork a keyed pseudonym: the key of a network's record
 * @throws Fault `unavailable` when the store fails
 */
export async function openBanList(options: {
  readonly store: Pick<RecordStore, "write">;
  readonly table: BanTable;
  readonly feed: ChangeFeed;
  readonly clock: Clock;
  readonly log: Log;
  readonly exempt: readonly AddressRange[];
  readonly firstSeconds: number;
  readonly secondSeconds: number;
  readonly labelNetwork: (network: string) => string;
  readonly bansMax?: number;
}): Promise<BanList> {
  const { store, table, feed, clock, log, exempt, labelNetwork, bansMax = BANS_MAX } = options;
  let held = new Map<string, Held>();
  let sorted: readonly Ban[] | undefined;

  // Bans that the server is making: whoever else strikes the same network waits for what becomes of it.
  const making = new Map<string, Promise<Past | undefined>>();
  // The store is read by one at a time, and what is at hand comes from such readings alone: it never goes back.
  let lastReading: Promise<void> = Promise.resolve();
  function inTurn(read: () => Promise<void>): Promise<void> {
    const reading = lastReading.then(read);
    lastReading = reading.catch(() => {});
    return reading;
  }

  function holds({ untilMs }: Ban): boolean {
    return untilMs === null || untilMs > clock.now();
  }
  function keep(bans: Map<string, Held>, key: string, { network, ban }: Past): void {
    sorted = undefined;
    bans.delete(network);
    if (ban === null || !holds(ban) || isExempt(network)) return;
    bans.set(network, { key, ban });
    if (bans.size > bansMax) makeRoom(bans);
  }
  function makeRoom(bans: Map<string, Held>): void {
    for (const [network, { ban }] of bans) if (!holds(ban)) bans.delete(network);
    // A tenth at once: to look for one at each new ban would cost a look at all of them.
    const room = bans.size - Math.floor(bansMax * 0.9);
    if (bans.size <= bansMax) return;
    const soonest = Array.from(bans.values(), ({ ban }) => ban).sort((one, other) =>
      (one.untilMs ?? Infinity) - (other.untilMs ?? Infinity) || one.createdAtMs - other.createdAtMs
    );
    for (const { network } of soonest.slice(0, room)) bans.delete(network);
    log.write("error", "bans.too_many", { dropped: room, held: bans.size });
  }
  function isExempt(network: string): boolean {
    const range = parseAddressRange(network);
    return network === UNKNOWN || !range.ok || exempt.some((each) => overlaps(each, range.value));
  }

  async function readAll(): Promise<void> {
    const bans = new Map<string, Held>();
    let page = await table.list({ limit: PAGE });
    for (;;) {
      for (const { key, value } of page) keep(bans, key, parsePast(value));
      const after = page.at(-1)?.key;
      if (after === undefined || page.length < PAGE) break;
      page = await table.list({ after, limit: PAGE });
    }
    held = bans;
    sorted = undefined;
  }
  async function readOne(key: string): Promise<void> {
    const kept = await table.read(key);
    if (kept !== undefined) return keep(held, key, parsePast(kept.value));
    // All of it was forgotten: nothing but its key is known any more.
    for (const [network, ban] of held) {
      if (ban.key === key) keep(held, key, { network, count: 0, ban: null });
    }
  }

  /**
   * Writes what becomes of a network, by what is known of it: again where another was quicker. What then stands is at hand.
   *
   * @param next undefined: nothing is to be written; of count 0: all is forgotten
   */
  async function change(
    network: string,
    next: (past: Past) => Past | undefined | Promise<Past | undefined>,
  ): Promise<Past | undefined> {
    const key = labelNetwork(network);
    for (let writes = 0; writes < WRITES_MAX; writes++) {
      const kept = await table.read(key);
      const past = kept === undefined ? { network, count: 0, ban: null } : parsePast(kept.value);
      const wanted = await next(past);
      const made = wanted === undefined || await store.write([
        await table.changeOf(key, wanted.count === 0 ? undefined : pastRecord(wanted), {
          expects: kept?.version ?? "nothing",
          ...lifetimeOf(wanted, clock.now()),
        }),
      ]);
      if (!made) continue;
      await inTurn(() => readOne(key));
      return wanted;
    }
    throw new Fault("unavailable", "Cannot write a ban: others kept changing it");
  }
  const isBanned = ({ ban }: Past): boolean => ban !== null && holds(ban);

  function newBan(past: Past, order: Pick<Ban, "reason" | "note" | "actor">, seconds: number | null): Ban {
    const createdAtMs = clock.now();
    return {
      ...order,
      id: newId("ban", createdAtMs),
      network: past.network,
      createdAtMs,
      untilMs: seconds === null ? null : createdAtMs + seconds * 1000,
      count: past.count + 1,
    };
  }
  function secondsOf(count: number): number | null {
    return count === 1 ? options.firstSeconds : count === 2 ? options.secondSeconds : null;
  }

  feed.follow(BAN_TABLE, (key) => inTurn(() => key === undefined ? readAll() : readOne(key)));
  await inTurn(readAll);

  return {
    find(network) {
      const ban = held.get(network)?.ban;
      if (ban === undefined || holds(ban)) return ban;
      held.delete(network);
      sorted = undefined;
      return undefined;
    },
    read(id) {
      for (const { ban } of held.values()) if (ban.id === id && holds(ban)) return ban;
      return undefined;
    },
    list({ after = "", limit }) {
      sorted ??= Array.from(held.values(), ({ ban }) => ban).sort((one, other) => one.id < other.id ? -1 : 1);
      const page: Ban[] = [];
      for (const ban of sorted) {
        if (page.length === limit) break;
        if (ban.id > after && holds(ban)) page.push(ban);
      }
      return page;
    },
    isExempt,
    async strike(network, reason, record) {
      if (isExempt(network)) return undefined;
      const underWay = making.get(network);
      if (underWay !== undefined) {
        await underWay.catch(() => {});
        return undefined;
      }
      const made = change(network, async (past) => {
        if (isBanned(past)) return undefined;
        const ban = newBan(past, { reason, note: "", actor: null }, secondsOf(past.count + 1));
        await record(ban);
        return { network, count: ban.count, ban };
      });
      making.set(network, made);
      try {
        return (await made)?.ban ?? undefined;
      } finally {
        making.delete(network);
      }
    },
    async ban({ network, seconds, ...order }) {
      if (isExempt(network)) throw conflict("it is exempt", "This address is one that is never banned.");
      const made = await change(network, (past) => {
        if (isBanned(past)) return undefined;
        const ban = newBan(past, { ...order, reason: "manual" }, seconds);
        return { network, count: ban.count, ban };
      });
      if (!made?.ban) throw conflict("it is banned already", "This address is banned already.");
      return made.ban;
    },
    async lift({ network, id }, { forget }) {
      const lifted = await change(
        network,
        (past) =>
          past.ban?.id === id && isBanned(past)
            ? { network, count: forget ? 0 : past.count, ban: null }
            : undefined,
      );
      return lifted !== undefined;
    },
  };
}

/** Whether two ranges have an address in common: one of them holds the other. */
function overlaps(one: AddressRange, other: AddressRange): boolean {
  const prefixBits = Math.min(one.prefixBits, other.prefixBits);
  return rangeHolds({ bytes: one.bytes, prefixBits }, other.bytes);
}

/** A ban for good is kept for good; what else is known of a network, for a year after it last was banned. */
function lifetimeOf({ ban }: Past, nowMs: number): { readonly lifetime?: RecordLifetime } {
  const endMs = ban === null ? nowMs : ban.untilMs;
  return endMs === null ? {} : { lifetime: { expiresAtMs: endMs + FORGOTTEN_AFTER_MS } };
}

function conflict(state: string, detail: string): Fault {
  return new Fault("conflict", `Cannot ban a network: ${state}`, { detail });
}

function pastRecord({ network, count, ban }: Past): JsonValue {
  return { network, count, ban: ban === null ? null : { ...ban } };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
function parsePast(value: JsonValue): Past {
  const { network, count, ban } = fieldsOf(value);
  if (typeof network !== "string" || typeof count !== "number" || ban === undefined) throw unreadable();
  return { network, count, ban: ban === null ? null : parseBan(fieldsOf(ban), network, count) };
}

function parseBan(fields: Readonly<Record<string, JsonValue>>, network: string, count: number): Ban {
  const { id, note, createdAtMs, untilMs = 0, actor = "" } = fields;
  const reason = [...BAN_TRIGGERS, "manual" as const].find((each) => each === fields.reason);
  if (
    typeof id !== "string" || reason === undefined || typeof note !== "string" ||
    typeof createdAtMs !== "number" || (untilMs !== null && typeof untilMs !== "number") ||
    (actor !== null && typeof actor !== "string")
  ) throw unreadable();
  return { id, network, reason, note, createdAtMs, untilMs, count, actor };
}

function fieldsOf(value: JsonValue): Readonly<Record<string, JsonValue>> {
  return (value ?? {}) as Readonly<Record<string, JsonValue>>;
}

function unreadable(): Fault {
  return new Fault("unavailable", "Cannot read a ban: the record has no known form");
}
