// Bans under test: ban lists of instances that share a store, as far as tests let them hear of each other.
import { parseAddressRange } from "../../src/encoding/ip_address.ts";
import { BAN_TABLE, type BanList, openBanList } from "../../src/limits/ban_list.ts";
import type { ChangeFeed, Follower } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { manualClock } from "../support/manual_clock.ts";

export const DAY_SECONDS = 86_400;
export const WEEK_SECONDS = 7 * DAY_SECONDS;

/** One instance. */
export interface BansUnderTest {
  readonly bans: BanList;
  /** It is told of a changed record; undefined: of the whole table. */
  hears(key: string | undefined): Promise<void>;
}

export type BanWorld = Awaited<ReturnType<typeof openBanWorld>>;

/** A store, and instances over it. */
export async function openBanWorld() {
  const clock = manualClock();
  const memory = openMemoryRecordStore(clock);
  /** What tests put in the way of the store. */
  const store: RecordStore = { ...memory };
  const keyRing = await openKeyRing(memory, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  const labelNetwork = (network: string): string => keyRing.pseudonym("address", network);
  const lines: Record<string, unknown>[] = [];
  const log = openLog({
    level: "debug",
    clock,
    sink(bytes) {
      lines.push(
        ...new TextDecoder().decode(bytes).split("\n").filter((line) => line !== "").map((line) =>
          JSON.parse(line)
        ),
      );
      return Promise.resolve(bytes.length);
    },
  });
  return {
    clock,
    memory,
    store,
    keyRing,
    labelNetwork,
    log,
    lines,
    /** Starts an instance. */
    async open(
      { exempt = [], bansMax = 1000 }: { readonly exempt?: readonly string[]; readonly bansMax?: number } =
        {},
    ): Promise<BansUnderTest> {
      const followers: Follower[] = [];
      const feed: ChangeFeed = {
        follow(table, follower) {
          if (table === BAN_TABLE) followers.push(follower);
        },
        isCurrent: () => true,
        catchUp: () => Promise.resolve(),
        close: () => Promise.resolve(),
      };
      const bans = await openBanList({
        store,
        table: sealedTable(store, keyRing, BAN_TABLE),
        feed,
        clock,
        log,
        exempt: exempt.map(parseAddressRange).flatMap((range) => range.ok ? [range.value] : []),
        firstSeconds: DAY_SECONDS,
        secondSeconds: WEEK_SECONDS,
        labelNetwork,
        bansMax,
      });
      return {
        bans,
        async hears(key) {
          for (const follower of followers) await follower(key);
        },
      };
    },
  };
}
