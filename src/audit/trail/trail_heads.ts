// Trail heads: the newest signed checkpoint of each trail, in the store: whoever can write the trail's folders alone cannot take it back.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { Fault } from "../../faults/fault.ts";
import type { RecordStore } from "../../store/record_store.ts";
import type { Clock } from "../../time/clock.ts";
import type { KeyRing } from "../../vault/key_ring.ts";
import { everyRecord, sealedTable } from "../../vault/sealed_store.ts";
import { isSha256Hex } from "./merkle_tree.ts";
import type { TreeHead } from "./tree_head.ts";

/** The heads that a store keeps. */
export interface TrailHeads {
  /**
   * The head that the trail of this installation must have reached. Where instances share the store, each has a trail of its own: then it
   * is the head of that origin.
   *
   * @param origin of the trail in the data folder; undefined: there is none
   * @throws Fault `unavailable` when the store fails, or the record has no known form
   */
  of(origin: string | undefined): Promise<TreeHead | undefined>;
  /** Keeps a head that is durable in the trail. Best effort: what fails is kept with the next one. */
  keep(head: TreeHead): void;
  /** Waits until what was given is kept, or has failed. */
  close(): Promise<void>;
}

/** The table. */
export const TRAIL_HEADS_TABLE = "audit_heads";

/** Instances come and go: what a shared store remembers of them must not grow for ever. */
const SHARED_LIFETIME_MS = 400 * 86_400_000;

/**
 * The heads in a store.
 *
 * @param options.isShared whether other instances have their trails' heads in it as well
 * @param options.onFault told when a head could not be kept
 */
export function trailHeads(options: {
  readonly store: RecordStore;
  readonly keyRing: KeyRing;
  readonly clock: Clock;
  readonly isShared: boolean;
  readonly onFault: (thrown: unknown) => void;
}): TrailHeads {
  const { store, keyRing, clock, isShared, onFault } = options;
  const table = sealedTable(store, keyRing, TRAIL_HEADS_TABLE);
  let next: TreeHead | undefined;
  let writing: Promise<void> | undefined;

  async function all(): Promise<readonly TreeHead[]> {
    const heads: TreeHead[] = [];
    for await (const { key, value } of everyRecord(table)) heads.push(parseHead(key, value));
    return heads;
  }

  async function write({ origin, size, root }: TreeHead): Promise<void> {
    if (isShared) {
      const expiresAtMs = clock.now() + SHARED_LIFETIME_MS;
      return await table.put(origin, { size, root }, { expiresAtMs });
    }
    // There is one trail: one that was begun anew takes the place of the one before.
    const others = (await all()).filter((other) => other.origin !== origin);
    const gone = others.map((other) => table.changeOf(other.origin, undefined));
    await store.write(await Promise.all([table.changeOf(origin, { size, root }), ...gone]));
  }

  async function writeAll(): Promise<void> {
    for (let head = next; head !== undefined; head = next) {
      next = undefined;
      try {
        await write(head);
      } catch (thrown) {
        onFault(thrown);
      }
    }
    writing = undefined;
  }

  return {
    async of(origin) {
      if (!isShared) {
        const heads = await all();
        return heads.find((head) => head.origin === origin) ?? heads[0];
      }
      const value = origin === undefined ? undefined : await table.get(origin);
      return origin === undefined || value === undefined ? undefined : parseHead(origin, value);
    },
    keep(head) {
      next = head;
      writing ??= writeAll();
    },
    close: () => writing ?? Promise.resolve(),
  };
}

function parseHead(origin: string, value: JsonValue): TreeHead {
  const { size, root } = Object(value) as { readonly size?: unknown; readonly root?: unknown };
  if (!Number.isSafeInteger(size) || !isSha256Hex(root)) {
    throw new Fault("unavailable", `Cannot read the head of trail ${origin}: its record has no known form`);
  }
  return { origin, size: Number(size), root };
}
