// Model records: what the store remembers of models: the keys of sealed files, the highest serial ever accepted, and what an admin
// has enabled or disabled.
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { everyRecord, sealedTable } from "../vault/sealed_store.ts";

/** The table of what is enabled, for whoever follows its changes. */
export const MODEL_STATES = "model_states";

/** The keys of a sealed model's files by their names. */
export type FileKeys = ReadonlyMap<string, Uint8Array<ArrayBuffer>>;

/** What an admin has said of a model. */
export interface ModelState {
  readonly enabled: boolean;
  /** Names this saying: no two have the same. */
  readonly version: string;
}

/** What a model's serial record says. */
export interface ModelSerial {
  readonly id: string;
  /** 0: none was ever accepted. */
  readonly serial: number;
  /** The command has removed the model, and no server has recorded it yet. */
  readonly isRemovalUnrecorded: boolean;
}

/** The records. Every method throws Fault `unavailable` when the store fails. */
export interface ModelRecords {
  /** Keys of the version of a model whose manifest has this digest. */
  fileKeys(id: string, manifestSha256: string): Promise<FileKeys | undefined>;
  keepFileKeys(id: string, manifestSha256: string, serial: number, keys: FileKeys): Promise<void>;
  /** Destroys the keys of versions with a serial below this one; all of them by default. What they sealed is unreadable from then on. */
  destroyFileKeys(id: string, below?: number): Promise<number>;
  /** The highest serial that was ever accepted; 0: none. */
  highestSerial(id: string): Promise<number>;
  raiseSerial(id: string, serial: number): Promise<void>;
  noteRemoval(id: string): Promise<void>;
  serials(): Promise<readonly ModelSerial[]>;
  clearRemoval(id: string): Promise<void>;
  /** undefined: nobody has said anything, so it is enabled. */
  state(id: string): Promise<ModelState | undefined>;
  /** A saying for `setState`, which stands only when that has resolved. */
  newState(enabled: boolean): ModelState;
  setState(id: string, state: ModelState): Promise<void>;
  /** Ids of which somebody has said something. */
  idsWithState(): Promise<readonly string[]>;
}

/** Opens the records of a store. */
export function openModelRecords(store: RecordStore, keyRing: KeyRing): ModelRecords {
  const keysTable = sealedTable(store, keyRing, "model_keys");
  const serialsTable = sealedTable(store, keyRing, "model_serials");
  const statesTable = sealedTable(store, keyRing, MODEL_STATES);

  /** Changes a serial record as it stands, whoever else does. */
  async function changeSerial(id: string, change: (standing: ModelSerial) => ModelSerial): Promise<void> {
    for (;;) {
      const read = await serialsTable.read(id);
      const { serial, isRemovalUnrecorded: removed } = change(serialIn(id, read?.value));
      const made = await serialsTable.changeOf(id, { serial, removed }, {
        expects: read?.version ?? "nothing",
      });
      if (await store.write([made])) return;
    }
  }

  return {
    async fileKeys(id, manifestSha256) {
      const record = await keysTable.get(`${id}/${manifestSha256}`);
      if (record === undefined) return undefined;
      const { files = {} } = record as { readonly files?: Readonly<Record<string, string>> };
      return new Map(Object.entries(files).map(([file, text]) => [file, keyOf(text)]));
    },
    async keepFileKeys(id, manifestSha256, serial, keys) {
      const files = Object.fromEntries([...keys].map(([file, key]) => [file, encodeBase64url(key)]));
      await keysTable.put(`${id}/${manifestSha256}`, { serial, files });
    },
    async destroyFileKeys(id, below = Infinity) {
      let destroyed = 0;
      for await (const { key, value } of everyRecord(keysTable)) {
        const { serial } = value as { readonly serial?: unknown };
        if (!key.startsWith(`${id}/`) || Number(serial) >= below) continue;
        if (await store.delete("model_keys", key)) destroyed++;
      }
      return destroyed;
    },
    highestSerial: async (id) => serialIn(id, await serialsTable.get(id)).serial,
    raiseSerial: (id, serial) =>
      changeSerial(id, (standing) => ({ ...standing, serial: Math.max(standing.serial, serial) })),
    noteRemoval: (id) => changeSerial(id, (standing) => ({ ...standing, isRemovalUnrecorded: true })),
    clearRemoval: (id) => changeSerial(id, (standing) => ({ ...standing, isRemovalUnrecorded: false })),
    async serials() {
      const all: ModelSerial[] = [];
      for await (const { key, value } of everyRecord(serialsTable)) all.push(serialIn(key, value));
      return all;
    },
    async state(id) {
      const record = await statesTable.get(id);
      if (record === undefined) return undefined;
      const { enabled, version } = record as { readonly enabled?: unknown; readonly version?: unknown };
      return { enabled: enabled === true, version: String(version) };
    },
    newState: (enabled) => ({
      enabled,
      version: encodeBase64url(crypto.getRandomValues(new Uint8Array(16))),
    }),
    setState: async (id, { enabled, version }) => await statesTable.put(id, { enabled, version }),
    async idsWithState() {
      const ids: string[] = [];
      for await (const { key } of everyRecord(statesTable)) ids.push(key);
      return ids;
    },
  };
}

function serialIn(id: string, value: unknown): ModelSerial {
  const { serial, removed } = (value ?? {}) as { readonly serial?: unknown; readonly removed?: unknown };
  return { id, serial: typeof serial === "number" ? serial : 0, isRemovalUnrecorded: removed === true };
}

function keyOf(text: string): Uint8Array<ArrayBuffer> {
  const bytes = decodeBase64url(text);
  if (!bytes.ok) {
    throw new Fault("unavailable", "Cannot read the key of a model's file: it has no known form");
  }
  return bytes.value;
}
