// Tests of the record store in memory: the contract.
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { testRecordStoreContract } from "./record_store_contract.ts";

testRecordStoreContract("memory store", (clock) => ({
  store: openMemoryRecordStore(clock),
  dispose: () => undefined,
}));
