// Rotation: a new data key for everything that is sealed in the store, step by step, while the server works.
import { canonicalJson } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault, toFault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordStore, Replacement, StoredRecord } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import { DATA_KEY_TABLE, dataKeyPlaceOf, type DataKeyState, type KeyRing } from "./key_ring.ts";
import type { MasterKey } from "./master_key.ts";
import { placeOf } from "./sealed_store.ts";

/** How far a rotation is, or how the last one ended. */
export interface RotationState {
  /**
   * `failed`: it did not begin, and there is no new key. `blocked`: values do not open, and so the older keys stay; the next rotation
   * tries again.
   */
  readonly state: "running" | "done" | "blocked" | "failed";
  /**
   * `keys`: the data keys are wrapped under the newest master key, and the new one is made · `reseal`: values are put under it · `settle`:
   * instances that do not know of it yet get their time · `check`: the older keys take nothing new, and nothing may be found under them ·
   * `destroy`: they go.
   */
  readonly phase: "keys" | "reseal" | "settle" | "check" | "destroy";
  /** The new key; null: not made yet. */
  readonly key: string | null;
  /** Milliseconds since 1970. */
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  /** Which table is looked at. */
  readonly table: string | null;
  /** Of all records, how many were looked at. */
  readonly done: number;
  readonly total: number;
  /** How many values are under the new key because of it. */
  readonly resealed: number;
  /** Why it is blocked or failed; of one that is done, what it found to be lost. */
  readonly reason: string | null;
}

/** What becomes of a data key. */
export type DataKeyChange = "made" | "rewrapped" | "destroyed";

/** The rotations of a store: one at a time, whatever instance runs it. */
export interface VaultRotation {
  /**
   * Begins one: when it resolves, the new key seals.
   *
   * @throws Fault `conflict` while one runs · `unavailable` when master key, store or trail cannot be used: nothing has begun then
   */
  start(): Promise<RotationState>;
  /** The one that runs, or the last one; undefined: there never was one. */
  state(): Promise<RotationState | undefined>;
  keys(): Promise<readonly DataKeyState[]>;
  /** Resolves when this process has nothing of a rotation to do. */
  whenIdle(): Promise<void>;
  /** What runs goes on at the next start, or on another instance. */
  close(): Promise<void>;
}

/** What it needs. */
export interface VaultRotationOptions {
  /** As it is, not as rooms see it. */
  readonly store: RecordStore;
  readonly keyRing: KeyRing;
  readonly master: Pick<MasterKey, "renew" | "settle">;
  readonly clock: Clock;
  readonly feed: Pick<ChangeFeed, "follow">;
  /** Whether other instances share the store. */
  readonly isShared: boolean;
  /** After so long every instance seals under the new key, and what was being written under another is written. */
  readonly settleMs: number;
  /** The part of its time that it works, above 0 to 1; the rest is for requests. */
  readonly share: number;
  /** Makes a change of a data key durable in the trail, before it happens. */
  readonly recordKey: (id: string, change: DataKeyChange) => Promise<void>;
  /** Keys that are no data keys and change with them, once a rotation. */
  readonly rotateOthers?: () => Promise<void>;
  /** Told why it waits, what blocks it, or that there are values whose keys are gone: no rotation can do anything about these. */
  readonly onFault: (fault: Fault, is: "waiting" | "blocked" | "lost") => void;
  /** Without a sign of life for so long, by the clock of whoever waits, an instance is dead; 15 seconds by default. */
  readonly deadAfterMs?: number;
}

/** Its one record is plain: there is nothing secret in it. */
const TABLE = "vault_rotations";
const KEY = "last";
/** Records that are read, resealed and written together: a few milliseconds. */
const PAGE = 50;
/** Between two pauses. */
const SLICE_MS = 5;
const PAUSE_MS_MAX = 1000;
/** How often the record says that somebody is at it, and how far. */
const BEAT_MS = 1000;
const DEAD_AFTER_MS = 15_000;
const RETRY_MS = 1000;
const RETRY_MS_MAX = 30_000;
const FAULT_TOLD_EVERY_MS = 60_000;
const TOLD_MAX = 5;
const STATES: readonly string[] = ["running", "done", "blocked", "failed"];
const PHASES: readonly string[] = ["keys", "reseal", "settle", "check", "destroy"];

/** The record. */
interface Standing extends RotationState {
  /** The instance that is at it. */
  readonly owner: string;
  readonly beat: number;
  readonly othersRotated: boolean;
}

/** Somebody else has taken it over, or this process ends. */
class Stopped extends Error {}

/** Values under older keys that do not open: where they stand. */
class Blocked extends Error {}

/**
 * Opens the rotations. What a dead process left running goes on: at once where nobody shares the store, else after 15 seconds without
 * a sign of life.
 *
 * @throws Fault `unavailable` when the store fails
 */
export async function openVaultRotation(options: VaultRotationOptions): Promise<VaultRotation> {
  const { store, keyRing, master, clock, feed, isShared, settleMs, share, recordKey, onFault } = options;
  const { deadAfterMs = DEAD_AFTER_MS } = options;
  const me = newId("ins", clock.now());
  const closing = new AbortController();
  /** The record as it was written or read last, with its bytes at rest; ahead of them while a rotation runs here. */
  let standing: Standing | undefined;
  let bytes: Uint8Array<ArrayBuffer> | undefined;
  let writtenAtMs = -Infinity;
  /** What is done here; resolves, whatever becomes of it. */
  let running: Promise<void> | undefined;
  /** Whether there is something to take over. */
  let looking: Promise<boolean> | undefined;
  let mustLook = false;
  let watching: ReturnType<typeof setTimeout> | undefined;

  async function read(): Promise<Standing | undefined> {
    const found = await store.get(TABLE, KEY);
    [standing, bytes] = [found && parseStanding(found), found];
    return standing;
  }
  /** Whether it was written; it was not where somebody else did. */
  async function write(next: Standing): Promise<boolean> {
    const value = encodeUtf8(canonicalJson({ ...next }));
    if (!await store.write([{ table: TABLE, key: KEY, value, expects: bytes ?? "nothing" }])) return false;
    [standing, bytes] = [next, value];
    writtenAtMs = clock.monotonic();
    return true;
  }
  /** The record of the rotation that runs here. */
  function mine(): Standing {
    if (closing.signal.aborted || standing === undefined) throw new Stopped();
    return standing;
  }
  async function advance(change: Partial<Standing>): Promise<void> {
    const { beat, ...before } = mine();
    if (!await write({ ...before, ...change, owner: me, beat: beat + 1 })) throw new Stopped();
  }
  /** The same for what only shows how far it is: written now and then. */
  async function show(change: Partial<RotationState>): Promise<void> {
    standing = { ...mine(), ...change };
    if (clock.monotonic() - writtenAtMs >= BEAT_MS) await advance({});
  }

  /** Ends early when this process ends. */
  function sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        closing.signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      closing.signal.addEventListener("abort", end);
      if (closing.signal.aborted) end();
    });
  }
  /** Leaves the rest of the time to others; when the next work began. */
  async function pause(sinceMs: number): Promise<number> {
    const workedMs = clock.monotonic() - sinceMs;
    if (workedMs < SLICE_MS) return sinceMs;
    await sleep(Math.min(PAUSE_MS_MAX, workedMs * (1 / share - 1)));
    return clock.monotonic();
  }

  async function makeKeys(): Promise<void> {
    await master.renew();
    await keyRing.rewrap((id) => recordKey(id, "rewrapped"));
    await master.settle();
    // Where a process died behind the making of one, that one is an older key from now on.
    await advance({ key: await keyRing.rotate((id) => recordKey(id, "made")), phase: "reseal" });
  }

  async function everyPage(
    see: (table: string, page: readonly StoredRecord[]) => Promise<void>,
  ): Promise<void> {
    let sinceMs = clock.monotonic();
    for (const table of (await store.tables()).toSorted()) {
      if (table === DATA_KEY_TABLE || table === TABLE) continue;
      let after: string | undefined;
      do {
        const page = await store.list(table, after === undefined ? { limit: PAGE } : { after, limit: PAGE });
        await see(table, page);
        after = page.length < PAGE ? undefined : page.at(-1)?.key;
        sinceMs = await pause(sinceMs);
      } while (after !== undefined);
    }
  }
  async function count(): Promise<number> {
    let total = 0;
    await everyPage(async (table, page) => {
      total += page.length;
      await show({ table });
    });
    return total;
  }
  /**
   * Looks at every record once; how many values were under an older key, and where those are whose key is nowhere. Throws Blocked where
   * some do not open.
   */
  async function pass(): Promise<{ readonly found: number; readonly lost: readonly string[] }> {
    let [found, done] = [0, 0];
    const unopened: string[] = [];
    const lost: string[] = [];
    await everyPage(async (table, page) => {
      const replacements: Replacement[] = [];
      for (const { key, value: before } of page) {
        // Plain values stay as they are.
        if (dataKeyPlaceOf(before) === undefined) continue;
        if (!await keyRing.holdsKeyOf(before)) {
          lost.push(`${table}/${key}`);
          continue;
        }
        const after = await keyRing.reseal(placeOf(table, key), before).catch(() => null);
        if (after === null) unopened.push(`${table}/${key}`);
        else if (after !== undefined) replacements.push({ key, before, after });
      }
      found += replacements.length;
      // Where one is another by now, whoever changed it has sealed it anew.
      const replaced = replacements.length === 0 ? 0 : await store.replace(table, replacements);
      done += page.length;
      const resealed = mine().resealed + replaced;
      await show({ table, done, total: Math.max(mine().total, done), resealed });
    });
    if (unopened.length > 0) {
      throw new Blocked(`${unopened.length} values do not open, the first of them: ${someOf(unopened)}`);
    }
    return { found, lost };
  }
  async function settle(): Promise<void> {
    for (let leftMs = settleMs; leftMs > 0; leftMs -= BEAT_MS) {
      await sleep(Math.min(BEAT_MS, leftMs));
      await show({});
    }
  }

  /** From wherever it was left. */
  async function rotate(): Promise<void> {
    if (mine().phase === "keys") await makeKeys();
    if (!mine().othersRotated) {
      await options.rotateOthers?.();
      await advance({ othersRotated: true });
    }
    const old = (await keyRing.keys()).filter(({ state }) => state === "retired").map(({ id }) => id);
    await advance({ phase: "reseal", done: 0, total: await count() });
    // Again until nothing is found: what was being written when the key changed may have come behind the first look.
    while ((await pass()).found > 0);
    let checked: Awaited<ReturnType<typeof pass>>;
    do {
      await advance({ phase: "settle", table: null });
      await settle();
      await advance({ phase: "check", done: 0 });
      // Before the look: what it does not find, nobody writes behind it.
      for (const id of old) await keyRing.retire(id);
      checked = await pass();
    } while (checked.found > 0);
    await advance({ phase: "destroy", table: null });
    for (const id of old) {
      await recordKey(id, "destroyed");
      await keyRing.destroy(id);
    }
    // Also where a process died between the end of a key and this.
    await store.scrub();
    const { lost } = checked;
    const reason = lost.length === 0
      ? null
      : `${lost.length} values are lost, for their data keys are gone, the first of them: ${someOf(lost)}`;
    await advance({ state: "done", endedAtMs: clock.now(), reason });
    if (reason !== null) onFault(new Fault("unavailable", `Cannot reseal everything: ${reason}`), "lost");
  }

  function begin(): Standing {
    return {
      state: "running",
      phase: "keys",
      key: null,
      startedAtMs: clock.now(),
      endedAtMs: null,
      table: null,
      done: 0,
      total: 0,
      resealed: 0,
      reason: null,
      owner: me,
      beat: 0,
      othersRotated: false,
    };
  }

  /** Until it is done, blocked, or somebody else's. Store, trail and master key may fail for as long as they like. */
  async function run(): Promise<void> {
    let toldAtMs = -Infinity;
    for (let retryMs = RETRY_MS;; retryMs = Math.min(RETRY_MS_MAX, 2 * retryMs)) {
      try {
        return await rotate().catch(async (thrown) => {
          if (!(thrown instanceof Blocked)) throw thrown;
          const reason = thrown.message;
          await advance({ state: "blocked", endedAtMs: clock.now(), table: null, reason });
          onFault(new Fault("unavailable", `Cannot destroy older data keys: ${reason}`), "blocked");
        });
      } catch (thrown) {
        if (thrown instanceof Stopped || closing.signal.aborted) return;
        if (clock.monotonic() - toldAtMs >= FAULT_TOLD_EVERY_MS) {
          toldAtMs = clock.monotonic();
          onFault(toFault(thrown), "waiting");
        }
        await sleep(retryMs);
      }
    }
  }
  /** One thing at a time: what is known of the record is whose turn it is. */
  function runHere(act: () => Promise<void>): void {
    running = act().catch((thrown) => {
      mustLook = true;
      onFault(toFault(thrown), "waiting");
    }).then(() => {
      running = undefined;
      // Another instance is at it, or took this one for dead, or nobody knows whether the last word was written.
      if ((mustLook || standing?.state === "running") && !closing.signal.aborted) watchLater();
    });
  }

  /** Takes over what nobody is at any more. */
  function watch(): void {
    clearTimeout(watching);
    if (running !== undefined || closing.signal.aborted) return;
    const before = standing;
    mustLook = false;
    async function takeOver(): Promise<boolean> {
      const now = await read();
      if (now?.state !== "running" || closing.signal.aborted) return false;
      const isDead = !isShared || now.owner === me ||
        (now.owner === before?.owner && now.beat === before.beat);
      return isDead && await write({ ...now, owner: me, beat: now.beat + 1 });
    }
    runHere(async () => {
      looking = takeOver();
      const isTaken = await looking.finally(() => looking = undefined);
      if (isTaken) await run();
    });
  }
  function watchLater(): void {
    clearTimeout(watching);
    watching = setTimeout(watch, isShared ? deadAfterMs : RETRY_MS);
  }

  if (isShared) {
    // A sign of life of another instance, or its end.
    feed.follow(TABLE, () => {
      if (running !== undefined) return;
      standing = undefined;
      watch();
    });
  }
  // The store must be readable; what is found is taken over in the background.
  await read();
  if (!isShared) watch();
  else if (standing?.state === "running") watchLater();

  return {
    async start() {
      // What a look at the record comes to is known in a moment.
      if (looking !== undefined && !await looking.catch(() => false)) await running;
      if (running !== undefined) throw runsAlready();
      const { promise: hasKeys, resolve, reject } = Promise.withResolvers<void>();
      const before = keyRing.activeKey();
      runHere(async () => {
        try {
          if ((await read())?.state === "running" || !await write(begin())) throw runsAlready();
        } catch (thrown) {
          mustLook = true;
          return reject(thrown);
        }
        try {
          await makeKeys();
        } catch (thrown) {
          // A key that is there already is used: then it goes on.
          if (keyRing.activeKey() === before) {
            const reason = toFault(thrown).message;
            await advance({ state: "failed", endedAtMs: clock.now(), reason }).catch(() => {});
            return reject(thrown);
          }
        }
        resolve();
        await run();
      });
      await hasKeys;
      if (standing === undefined) throw runsAlready();
      return stateOf(standing);
    },
    async state() {
      if (running !== undefined && standing?.owner === me) return stateOf(standing);
      const found = await store.get(TABLE, KEY);
      return found && stateOf(parseStanding(found));
    },
    keys: () => keyRing.keys(),
    async whenIdle() {
      await running;
    },
    async close() {
      closing.abort();
      clearTimeout(watching);
      await running;
    },
  };
}

/** Member by member: what is for instances among themselves is shown to nobody. */
function stateOf(standing: Standing): RotationState {
  const { state, phase, key, startedAtMs, endedAtMs, table, done, total, resealed, reason } = standing;
  return { state, phase, key, startedAtMs, endedAtMs, table, done, total, resealed, reason };
}

function parseStanding(bytes: Uint8Array<ArrayBuffer>): Standing {
  const text = decodeUtf8(bytes);
  const parsed = text.ok ? parseStrictJson(text.value, 1) : text;
  const fields = (parsed.ok ? parsed.value : null) as Standing | null;
  const isKnown = typeof fields?.owner === "string" && typeof fields.beat === "number" &&
    STATES.includes(fields.state) && PHASES.includes(fields.phase);
  if (!isKnown) throw new Fault("unavailable", "Cannot read a vault rotation: the record has no known form");
  return fields;
}

function someOf(places: readonly string[]): string {
  return places.slice(0, TOLD_MAX).join(", ");
}

function runsAlready(): Fault {
  return new Fault("conflict", "Cannot rotate the data keys: a rotation runs already", {
    detail: "A rotation runs already.",
  });
}
