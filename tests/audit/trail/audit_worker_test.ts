// Tests of what the audit's worker tells by itself; the rest of it is tested through the trail (audit_trail_test.ts).
import { ok } from "node:assert/strict";
import type {
  AuditWorkerOptions,
  AuditWorkerReply,
  AuditWorkerRequest,
} from "../../../src/audit/trail/audit_worker.ts";
import { TIME_MS, TRAIL_KEYS, TrailFolder, until } from "../trail_folder.ts";

Deno.test("a sealing key that is worn is told of again and again, until there is another", async () => {
  await using folder = new TrailFolder();
  const { directory, checkpointDirectory } = folder;
  const worker = new Worker(new URL("../../../src/audit/trail/audit_worker.ts", import.meta.url), {
    type: "module",
    deno: { permissions: { read: [folder.root], write: [folder.root] } },
  });
  try {
    let worn = 0;
    let done = 0;
    worker.onmessage = ({ data }: MessageEvent<AuditWorkerReply>) => {
      if (data.kind === "sealing_key_worn") worn++;
      if (data.kind === "done") done++;
    };
    const post = (request: AuditWorkerRequest): void => worker.postMessage(request);
    const sealingKeyOf = (id: string) => ({ ...TRAIL_KEYS, sealing: { id, raw: new Uint8Array(32) } });
    const options: AuditWorkerOptions = {
      directory,
      checkpointDirectory,
      segmentBytesMax: 1_000_000,
      keys: sealingKeyOf("akey_a"),
      sealed: true,
      sealingKeys: new Map(),
      checkpointEntriesMax: 1_000_000,
      checkpointMs: 1_000_000,
      sealedEventsMax: 4,
      wornAgainMs: 5,
    };
    const append = (): void =>
      post({
        kind: "append",
        timesMs: [TIME_MS],
        texts: '{"type":"x"}',
        classes: ["security"],
        steps: [],
        asked: [],
      });
    post({ kind: "open", options });
    for (let each = 0; each < 3; each++) append();
    await until(() => worn >= 3);
    post({ kind: "keys", keys: sealingKeyOf("akey_b"), sealingKeys: new Map() });
    append();
    await until(() => done === 4);
    const before = worn;
    await new Promise((resolve) => setTimeout(resolve, 50));
    ok(worn === before);
  } finally {
    worker.terminate();
  }
});
