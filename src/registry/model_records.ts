// Model records: what the store remembers of models: the keys of sealed files, the highest serial ever accepted, and what an admin
// has enabled or disabled.
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { type ModelRecord, modelTable, type RecordBroken } from "./model_table.ts";

/** The table of what is enabled, for whoever follows its changes. */
export const MODEL_STATES = "model_states";
const KEYS = "model_keys";

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

/** The records. Every method throws Fault `unavailable` when the store or the master key fails; a record that does not open is none of it. */
export interface ModelRecords {
  /** Keys of the version of a model whose manifest has this digest. */
  fileKeys(id: string, manifestSha256: string): Promise<Outcome<FileKeys | undefined, RecordBroken>>;
  /** Whether keys of any version are kept: then the model has a manifest. */
  hasFileKeys(id: string): Promise<boolean>;
  keepFileKeys(id: string, manifestSha256: string, serial: number, keys: FileKeys): Promise<void>;
  /** Takes them back, for a version that did not come into its place. */
  dropFileKeys(id: string, manifestSha256: string): Promise<void>;
  /**
   * Destroys the keys of versions with a serial below this one; all of them by default, also those that do not open. What they sealed
   * is unreadable from then on.
   */
  destroyFileKeys(id: string, below?: number): Promise<number>;
  /** The highest serial of all versions whose keys are kept and open; 0: none. */
  highestKeptSerial(id: string): Promise<number>;
  /** The highest serial that was ever accepted; 0: none. */
  highestSerial(id: string): Promise<Outcome<number, RecordBroken>>;
  /** Writes over a record that does not open. */
  raiseSerial(id: string, serial: number): Promise<void>;
  /** Before the keys are destroyed: the serials of their versions count as accepted. Writes over a record that does not open. */
  noteRemoval(id: string): Promise<void>;
  /** One that does not open says nothing here. */
  serials(): Promise<readonly ModelSerial[]>;
  clearRemoval(id: string): Promise<void>;
  /** undefined: nobody has said anything, so it is enabled. */
  state(id: string): Promise<Outcome<ModelState | undefined, RecordBroken>>;
  /** A saying for `setState`, which stands only when that has resolved. */
  newState(enabled: boolean): ModelState;
  setState(id: string, state: ModelState): Promise<void>;
  /** Ids of which somebody has said something. */
  idsWithState(): Promise<readonly string[]>;
}

/** Opens the records of a store. */
export function openModelRecords(store: RecordStore, keyRing: KeyRing): ModelRecords {
  const keysTable = modelTable(store, keyRing, KEYS);
  const serialsTable = modelTable(store, keyRing, "model_serials");
  const statesTable = modelTable(store, keyRing, MODEL_STATES);

  const keysOf = (id: string): Promise<readonly string[]> => keysTable.keys(`${id}/`);
  /** Of a version, by the key of its record; undefined where that does not open. */
  async function keptSerial(key: string): Promise<number | undefined> {
    const { serial } = ((await keysTable.read(key))?.value ?? {}) as { readonly serial?: unknown };
    return typeof serial === "number" ? serial : undefined;
  }
  async function highestKeptSerial(id: string): Promise<number> {
    let highest = 0;
    for (const key of await keysOf(id)) highest = Math.max(highest, await keptSerial(key) ?? 0);
    return highest;
  }

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
      const record = await keysTable.read(`${id}/${manifestSha256}`);
      return record === undefined ? ok(undefined) : fileKeysIn(record.value);
    },
    hasFileKeys: async (id) => (await keysOf(id)).length > 0,
    async keepFileKeys(id, manifestSha256, serial, keys) {
      const files = Object.fromEntries([...keys].map(([file, key]) => [file, encodeBase64url(key)]));
      await keysTable.put(`${id}/${manifestSha256}`, { serial, files });
    },
    dropFileKeys: async (id, manifestSha256) => void await store.delete(KEYS, `${id}/${manifestSha256}`),
    async destroyFileKeys(id, below = Infinity) {
      let destroyed = 0;
      for (const key of await keysOf(id)) {
        // Whose serial nobody knows is below no number.
        if (below !== Infinity && (await keptSerial(key) ?? below) >= below) continue;
        if (await store.delete(KEYS, key)) destroyed++;
      }
      return destroyed;
    },
    highestKeptSerial,
    async highestSerial(id) {
      const record = await serialsTable.read(id);
      return isBroken(record) ? BROKEN : ok(serialIn(id, record?.value).serial);
    },
    raiseSerial: (id, serial) =>
      changeSerial(id, (standing) => ({ ...standing, serial: Math.max(standing.serial, serial) })),
    async noteRemoval(id) {
      const kept = await highestKeptSerial(id);
      await changeSerial(id, (standing) => ({
        ...standing,
        serial: Math.max(standing.serial, kept),
        isRemovalUnrecorded: true,
      }));
    },
    clearRemoval: (id) => changeSerial(id, (standing) => ({ ...standing, isRemovalUnrecorded: false })),
    async serials() {
      const all: ModelSerial[] = [];
      for (const id of await serialsTable.keys("")) {
        all.push(serialIn(id, (await serialsTable.read(id))?.value));
      }
      return all;
    },
    async state(id) {
      const record = await statesTable.read(id);
      if (record === undefined) return ok(undefined);
      if (record.value === undefined) return BROKEN;
      const { enabled, version } = record.value as { readonly enabled?: unknown; readonly version?: unknown };
      return ok({ enabled: enabled === true, version: String(version) });
    },
    newState: (enabled) => ({
      enabled,
      version: encodeBase64url(crypto.getRandomValues(new Uint8Array(16))),
    }),
    setState: async (id, { enabled, version }) => await statesTable.put(id, { enabled, version }),
    idsWithState: () => statesTable.keys(""),
  };
}

const BROKEN = no("record_broken");

function isBroken(record: ModelRecord | undefined): boolean {
  return record !== undefined && record.value === undefined;
}

function serialIn(id: string, value: unknown): ModelSerial {
  const { serial, removed } = (value ?? {}) as { readonly serial?: unknown; readonly removed?: unknown };
  return { id, serial: typeof serial === "number" ? serial : 0, isRemovalUnrecorded: removed === true };
}

function fileKeysIn(value: unknown): Outcome<FileKeys, RecordBroken> {
  const { files } = (value ?? {}) as { readonly files?: Readonly<Record<string, string>> };
  if (files === undefined) return BROKEN;
  const keys = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const [file, text] of Object.entries(files)) {
    const bytes = decodeBase64url(text);
    if (!bytes.ok) return BROKEN;
    keys.set(file, bytes.value);
  }
  return ok(keys);
}
