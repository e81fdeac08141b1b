// Tests of backup and restore: what is copied and how, what is refused, and that a refusal leaves everything as it was.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { assemble } from "../../src/assemble.ts";
import { backUp } from "../../src/cli/backup.ts";
import { auditFolders } from "../../src/audit/audit_trail.ts";
import { encodeCheckpoint } from "../../src/audit/trail/checkpoint.ts";
import { formatVerifierKeys, noteSigner, signNote } from "../../src/audit/trail/signed_note.ts";
import { formatTreeHead } from "../../src/audit/trail/tree_head.ts";
import { verifyChain } from "../../src/audit/verify/verify_chain.ts";
import { CompactRange, leafHash } from "../../src/audit/trail/merkle_tree.ts";
import {
  type BackupManifest,
  digestFile,
  formatManifest,
  parseManifest,
} from "../../src/cli/backup_manifest.ts";
import { restore } from "../../src/cli/restore.ts";
import { canonicalJson } from "../../src/encoding/canonical_json.ts";
import { Fault, type FaultKind } from "../../src/faults/fault.ts";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import { systemClock } from "../../src/time/clock.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey } from "../../src/vault/master_key.ts";
import { openOwnMasterKey } from "../../src/vault/own_master_key.ts";
import {
  type AppUnderTest,
  openAppUnderTest,
  PASSWORD,
  postJson,
  readAuditEvents,
} from "../support/app_under_test.ts";

interface Copied {
  readonly app: AppUnderTest;
  /** Of the backup; beside the data folder. */
  readonly folder: string;
  readonly lines: string[];
  readonly print: (line: string) => void;
}

/** A server, and a backup that was made while it ran. */
async function withBackup(
  options: { readonly withMasterKey?: boolean },
  act: (copied: Copied) => Promise<void>,
): Promise<void> {
  const app = await openAppUnderTest();
  const folder = `${app.folder}/backup`;
  const lines: string[] = [];
  const print = (line: string) => void lines.push(line);
  const { withMasterKey = false } = options;
  try {
    await app.tokenFor("user");
    strictEqual(await backUp({ config: app.config, folder, withMasterKey, print }), 0);
    await app.portcullis.close("test ended");
    await act({ app, folder, lines, print });
  } finally {
    await Deno.remove(app.folder, { recursive: true });
  }
}

/** Where the machine is lost: the data folder goes, but for the master key, which was kept elsewhere. */
function loseData({ app }: Copied, { keepMasterKey = true } = {}): void {
  const { dataDir } = app.config;
  const masterKey = Deno.readTextFileSync(`${dataDir}/master.key`);
  Deno.removeSync(dataDir, { recursive: true });
  if (!keepMasterKey) return;
  Deno.mkdirSync(dataDir);
  Deno.writeTextFileSync(`${dataDir}/master.key`, masterKey, { mode: 0o600 });
}

async function refused(act: Promise<unknown>, kind: FaultKind, words: RegExp): Promise<void> {
  await rejects(act, (thrown) => {
    ok(thrown instanceof Fault, String(thrown));
    match(thrown.message, words);
    strictEqual(thrown.kind, kind);
    return true;
  });
}

function namesBelow(folder: string): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
    isDirectory ? namesBelow(`${folder}/${name}`).map((each) => `${name}/${each}`) : [name]
  ).sort();
}

function manifestOf(folder: string): BackupManifest {
  const manifest = parseManifest(Deno.readTextFileSync(`${folder}/backup.json`));
  ok(manifest);
  return manifest;
}

Deno.test("a backup of a running server has the databases, the trail and a manifest, for its owner only, and not the master key", () =>
  withBackup({}, ({ folder, lines }) => {
    const manifest = manifestOf(folder);
    const names = namesBelow(folder);
    deepStrictEqual(names, [...manifest.files.map(({ path }) => path), "backup.json"].sort());
    for (
      const name of [
        "portcullis.db",
        "limits.db",
        "audit/audit-000001.jsonl",
        "audit-checkpoint/checkpoint.json",
      ]
    ) {
      ok(names.includes(name), name);
    }
    ok(!names.includes("master.key"));
    ok(lines.some((line) => /^master key {3}NOT in this backup/.test(line)), lines.join("\n"));
    for (const name of names) {
      strictEqual((Deno.statSync(`${folder}/${name}`).mode ?? 0) & 0o777, 0o600, name);
    }
    for (const name of ["", "/audit", "/audit-checkpoint"]) {
      strictEqual((Deno.statSync(`${folder}${name}`).mode ?? 0) & 0o777, 0o700, name);
    }
    match(manifest.masterKeys.join(), /^master_[\w-]{12}$/);
    return Promise.resolve();
  }));

Deno.test("a restore gives back what was there: the user signs in, and the trail goes on with a record of it", () =>
  withBackup({}, async (copied) => {
    const { app, folder, print, lines } = copied;
    loseData(copied);
    strictEqual(await restore({ config: app.config, folder, print }), 0);
    ok(lines.includes("opened       the master key fits"));
    const events = readAuditEvents(`${app.config.dataDir}/audit`);
    const event = events.find(({ type, command }) => type === "command.changed" && command === "restore");
    deepStrictEqual(event?.after, { madeAt: manifestOf(folder).madeAt, entries: manifestOf(folder).entries });
    const again = await assemble(app.config, { log: app.portcullis.log });
    try {
      const request = new Request("http://127.0.0.1:8000/v1/auth/login", {
        ...postJson({ username: "test-user", password: PASSWORD }),
      });
      request.headers.set("host", "127.0.0.1:8000");
      request.headers.set("content-length", String((await request.clone().text()).length));
      strictEqual((await again.app(request, { remoteAddr: { hostname: "192.0.2.1" } })).status, 200);
    } finally {
      await again.close("test ended");
    }
  }));

Deno.test("with its master key a backup restores onto a bare machine; without it the restore asks for it first", async () => {
  await withBackup({ withMasterKey: true }, async (copied) => {
    const { app, folder, print } = copied;
    loseData(copied, { keepMasterKey: false });
    strictEqual(await restore({ config: app.config, folder, print }), 0);
    strictEqual((Deno.statSync(`${app.config.dataDir}/master.key`).mode ?? 0) & 0o777, 0o600);
  });
  await withBackup({}, async (copied) => {
    const { app, folder, print } = copied;
    loseData(copied, { keepMasterKey: false });
    await refused(
      restore({ config: app.config, folder, print }),
      "not_found",
      /put it into .*\/master\.key/,
    );
    deepStrictEqual(namesBelow(app.config.dataDir), []);
  });
});

Deno.test("a wrong master key is found out, named beside the right one, and leaves the data folder as it was", () =>
  withBackup({}, async (copied) => {
    const { app, folder, print } = copied;
    loseData(copied);
    const wrong = generateMasterKey();
    Deno.writeTextFileSync(`${app.config.dataDir}/master.key`, wrong);
    await refused(restore({ config: app.config, folder, print }), "unavailable", /master key/);
    deepStrictEqual(namesBelow(app.config.dataDir), ["master.key"]);
    strictEqual(Deno.readTextFileSync(`${app.config.dataDir}/master.key`), wrong);
  }));

Deno.test("neither takes a folder that is not empty", () =>
  withBackup({}, async ({ app, folder, print }) => {
    const before = namesBelow(folder);
    await refused(
      backUp({ config: app.config, folder, withMasterKey: false, print }),
      "conflict",
      /backup is not empty/,
    );
    deepStrictEqual(namesBelow(folder), before);
    const data = namesBelow(app.config.dataDir);
    await refused(restore({ config: app.config, folder, print }), "conflict", /data is not empty/);
    deepStrictEqual(namesBelow(app.config.dataDir), data);
  }));

Deno.test("one flipped bit, a cut, a missing file, a manifest that is damaged or absent: nothing is restored", () =>
  withBackup({}, async (copied) => {
    const { app, folder, print } = copied;
    loseData(copied);
    const attempt = () => restore({ config: app.config, folder, print });
    for (const { path } of manifestOf(folder).files) {
      const file = `${folder}/${path}`;
      const bytes = Deno.readFileSync(file);
      if (bytes.length === 0) continue;
      const flipped = bytes.slice();
      const middle = bytes.length >> 1;
      flipped[middle] = (flipped[middle] ?? 0) ^ 1;
      Deno.writeFileSync(file, flipped);
      await refused(attempt(), "unavailable", /is not what was backed up/);
      Deno.writeFileSync(file, bytes.subarray(0, -1));
      await refused(attempt(), "unavailable", /is not what was backed up/);
      Deno.removeSync(file);
      await refused(attempt(), "unavailable", /is missing/);
      Deno.writeFileSync(file, bytes);
      deepStrictEqual(namesBelow(app.config.dataDir), ["master.key"], path);
    }
    const manifest = Deno.readTextFileSync(`${folder}/backup.json`);
    Deno.writeTextFileSync(`${folder}/backup.json`, manifest.slice(0, -5));
    await refused(attempt(), "unavailable", /backup\.json is damaged/);
    Deno.removeSync(`${folder}/backup.json`);
    await refused(attempt(), "not_found", /is no backup/);
    Deno.writeTextFileSync(`${folder}/backup.json`, manifest);
    strictEqual(await attempt(), 0);
  }));

Deno.test("a trail that was altered with its manifest is found out by its chain", () =>
  withBackup({}, async (copied) => {
    const { app, folder, print } = copied;
    loseData(copied);
    const path = "audit/audit-000001.jsonl";
    const text = Deno.readTextFileSync(`${folder}/${path}`).replace(
      '"mode":"development"',
      '"mode":"production!"',
    );
    Deno.writeTextFileSync(`${folder}/${path}`, text);
    const bytes = new TextEncoder().encode(text);
    const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
    const manifest = manifestOf(folder);
    const files = manifest.files.map((file) =>
      file.path === path ? { path, bytes: bytes.length, sha256 } : file
    );
    Deno.writeTextFileSync(`${folder}/backup.json`, formatManifest({ ...manifest, files }));
    await refused(
      restore({ config: app.config, folder, print }),
      "unavailable",
      /audit trail is not intact/,
    );
    deepStrictEqual(namesBelow(app.config.dataDir), ["master.key"]);
  }));

/** What anybody can do who can write the backup and has no key: all entries anew, and no checkpoint of before, or one that a key of their own has signed. */
function forgeTrail(folder: string, signs: boolean): void {
  const path = "audit/audit-000001.jsonl";
  const [header = "", ...lines] = Deno.readTextFileSync(`${folder}/${path}`).trimEnd().split("\n");
  const range = new CompactRange();
  let head = { seq: 0, hash: JSON.parse(lines[0] ?? "").previous as string };
  const forged = lines.map((line) => {
    const { hash: _, ...entry } = JSON.parse(line);
    if (entry.event.type === "user.created") entry.event.actor = "nobody";
    entry.previous = head.hash;
    head = { seq: entry.seq, hash: leafHash(canonicalJson(entry)) };
    range.append(head.hash);
    return canonicalJson({ ...entry, hash: head.hash });
  });
  Deno.writeTextFileSync(`${folder}/${path}`, `${[header, ...forged].join("\n")}\n`);
  Deno.writeFileSync(
    `${folder}/audit-checkpoint/checkpoint.json`,
    encodeCheckpoint({ ...head, segment: "audit-000001.jsonl", root: range.root() }),
  );
  const manifest = manifestOf(folder);
  const { origin } = JSON.parse(header);
  const pkcs8 = generateKeyPairSync("ed25519").privateKey.export({ format: "der", type: "pkcs8" });
  const signer = noteSigner(origin.split("/")[0], new Uint8Array(pkcs8));
  const note = signNote(formatTreeHead({ origin, size: head.seq, root: range.root() }), [signer]);
  const forgedFiles: Record<string, string> = {
    "audit-checkpoint/checkpoints-2026-01.jsonl": `${JSON.stringify(note)}\n`,
    "audit-checkpoint/trail.vkey": formatVerifierKeys([signer]),
  };
  const isSigned = (name: string) => /checkpoints-|trail\.vkey/.test(name);
  const paths = manifest.files.map(({ path }) => path).filter((path) => !isSigned(path));
  if (signs) {
    for (const [path, text] of Object.entries(forgedFiles)) Deno.writeTextFileSync(`${folder}/${path}`, text);
    paths.push(...Object.keys(forgedFiles));
  }
  const files = paths.map((path) => ({ path, ...digestFile(`${folder}/${path}`) }));
  Deno.writeTextFileSync(`${folder}/backup.json`, formatManifest({ ...manifest, files }));
}

Deno.test("ASVS V16.4.2: a trail that was written anew without a key is no intact one, though its chain is whole and no signature speaks against it", () =>
  withBackup({}, async (copied) => {
    const { app, folder, print } = copied;
    loseData(copied);
    for (const signs of [false, true]) {
      forgeTrail(folder, signs);
      await refused(restore({ config: app.config, folder, print }), "unavailable", /is not intact/);
      deepStrictEqual(namesBelow(app.config.dataDir), ["master.key"]);
    }
    // The keys beside it are the forger's: by those it would be intact.
    strictEqual((await verifyChain(auditFolders(folder))).finding, undefined);
  }));

Deno.test("while the master key is replaced, a backup with it holds a key that opens it", async () => {
  const app = await openAppUnderTest();
  const { dataDir } = app.config;
  await app.portcullis.close("test ended");
  // As a rotation does it, at each moment at which it can come between.
  const moments = [/^records /, /^audit /, /^again /];
  const replace = async () => {
    const store = openSqliteRecordStore(`${dataDir}/portcullis.db`, systemClock);
    const master = await openOwnMasterKey(`${dataDir}/master.key`);
    const keyRing = await openKeyRing(store, master, systemClock);
    await master.renew();
    await keyRing.rewrap(() => Promise.resolve());
    await master.settle();
    await store.close();
  };
  try {
    for (const [index, moment] of moments.entries()) {
      const folder = `${app.folder}/backup-${index}`;
      const replacing: Promise<void>[] = [];
      const print = (line: string) => void (moment.test(line) && replacing.push(replace()));
      strictEqual(await backUp({ config: app.config, folder, withMasterKey: true, print }), 0);
      await Promise.all(replacing);
      const lost = { ...app.config, dataDir: `${app.folder}/other-${index}` };
      strictEqual(await restore({ config: lost, folder, print: () => {} }), 0);
    }
  } finally {
    await Deno.remove(app.folder, { recursive: true });
  }
});

Deno.test("a folder without a server's data is no source, and a backup goes where its records were", () =>
  withBackup({}, async (copied) => {
    const { app, folder, print } = copied;
    await refused(
      backUp({
        config: { ...app.config, dataDir: `${app.folder}/none` },
        folder: `${app.folder}/other`,
        withMasterKey: false,
        print,
      }),
      "not_found",
      /no server's data/,
    );
    loseData(copied);
    const shared = { ...app.config, redisUrl: "redis://127.0.0.1:1" };
    await refused(restore({ config: shared, folder, print }), "conflict", /holds the records itself/);
    Deno.writeTextFileSync(
      `${folder}/backup.json`,
      formatManifest({ ...manifestOf(folder), records: "redis" }),
    );
    await refused(restore({ config: app.config, folder, print }), "conflict", /were in Redis/);
  }));

Deno.test("no path of a manifest leads out of its folder, and none stands twice", () => {
  const file = { path: "audit/audit-000001.jsonl", bytes: 1, sha256: "0".repeat(64) };
  const manifest: BackupManifest = {
    madeAt: "2026-01-01T00:00:00.000Z",
    records: "files",
    masterKeys: [],
    entries: 1,
    files: [file],
  };
  deepStrictEqual(parseManifest(formatManifest(manifest)), manifest);
  for (
    const path of [
      "",
      "..",
      "../x",
      "audit/../x",
      "/etc/passwd",
      "audit/../../x",
      "a/b/c",
      "audit//x",
      ".x",
      "audit/.x",
      "audit/x\n",
      "a\\b",
    ]
  ) {
    strictEqual(parseManifest(formatManifest({ ...manifest, files: [{ ...file, path }] })), undefined, path);
  }
  strictEqual(parseManifest(formatManifest({ ...manifest, files: [file, file] })), undefined);
  for (const wrong of [{ bytes: -1 }, { bytes: 0.5 }, { sha256: "0" }]) {
    strictEqual(parseManifest(formatManifest({ ...manifest, files: [{ ...file, ...wrong }] })), undefined);
  }
  strictEqual(parseManifest(formatManifest(manifest).replace('"format":1', '"format":2')), undefined);
  strictEqual(parseManifest("[]"), undefined);
});
