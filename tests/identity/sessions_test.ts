// Tests of sessions: one refresh token works, once; whatever else comes gets nothing; and what has ended stays so.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import fc from "fast-check";
import { LIFETIME_SECONDS_MAX, openAccessTokens } from "../../src/identity/access_token.ts";
import type { ContinuedSession, OpenedSession } from "../../src/identity/sessions.ts";
import { parseJws } from "../../src/identity/strict_jws.ts";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import { isFault } from "./is_fault.ts";
import {
  makeSigningKeys,
  openIdentityParts,
  openWatchedParts,
  SESSION_TTL_SECONDS,
} from "./open_identity.ts";

const HOME = "192.0.2.0/24";
const ORDER = { userId: "usr_1", network: HOME, boundTo: null };
const USE = { network: HOME, proved: null };
const TTL_MS = SESSION_TTL_SECONDS * 1000;

/** A refresh that must work. */
async function refreshed(
  { sessions }: Pick<Awaited<ReturnType<typeof openIdentityParts>>, "sessions">,
  refreshToken: string,
): Promise<ContinuedSession> {
  const outcome = await sessions.refresh(refreshToken, USE);
  ok(outcome.ok, JSON.stringify(outcome));
  return outcome.value;
}

Deno.test("an opened session is read, listed, and inspected by its refresh token of 256 random bits", async () => {
  const { sessions, clock } = await openIdentityParts();
  const { session, refreshToken } = await sessions.open({ ...ORDER, boundTo: "thumb" });
  const nowMs = clock.now();
  const { id, ...rest } = session;
  match(id, /^ses_[0-9a-z]{26}$/);
  match(refreshToken, /^prt_[A-Za-z0-9_-]{43}$/);
  deepStrictEqual(rest, {
    userId: "usr_1",
    createdAtMs: nowMs,
    lastUsedAtMs: nowMs,
    expiresAtMs: nowMs + TTL_MS,
    network: HOME,
    boundTo: "thumb",
  });
  deepStrictEqual(await sessions.read(id), session);
  deepStrictEqual(await sessions.list("usr_1"), [session]);
  deepStrictEqual(await sessions.list("usr_"), []);
  deepStrictEqual(await sessions.inspect(refreshToken), session);
  for (const other of ["", "ses_", `${id}\u0000`, id.toUpperCase(), "ses_0".padEnd(30, "0")]) {
    strictEqual(await sessions.read(other), undefined, JSON.stringify(other));
  }
});

Deno.test("a refresh gives another token, notes when and where, and makes no session longer", async () => {
  const parts = await openIdentityParts();
  const { sessions, clock } = parts;
  const { session, refreshToken } = await sessions.open(ORDER);
  clock.advance(5000);
  const outcome = await sessions.refresh(refreshToken, { network: "198.51.100.0/24", proved: null });
  ok(outcome.ok);
  const continued = { ...session, lastUsedAtMs: clock.now(), network: "198.51.100.0/24" };
  deepStrictEqual(outcome.value.session, continued);
  notStrictEqual(outcome.value.refreshToken, refreshToken);
  match(outcome.value.refreshToken, /^prt_[A-Za-z0-9_-]{43}$/);
  deepStrictEqual(await sessions.read(session.id), continued);
  deepStrictEqual(await sessions.inspect(outcome.value.refreshToken), continued);
  strictEqual(await sessions.inspect(refreshToken), undefined);
});

Deno.test("what is no refresh token of ours is unknown, and changes nothing", async () => {
  const { sessions } = await openIdentityParts();
  const { session, refreshToken } = await sessions.open(ORDER);
  const secret = refreshToken.slice(4);
  for (
    const text of [
      "",
      "prt_",
      secret,
      `${refreshToken} `,
      ` ${refreshToken}`,
      `${refreshToken}\n`,
      `${refreshToken}\u0000`,
      `${refreshToken}=`,
      refreshToken.slice(0, -1),
      `PRT_${secret}`,
      `pck_${secret}`,
      `prt_${secret.toLowerCase()}x`.slice(0, 47),
      `prt_${"A".repeat(43)}`,
      "prt_".padEnd(100_000, "A"),
      session.id,
    ]
  ) {
    deepStrictEqual(
      await sessions.refresh(text, USE),
      { ok: false, reason: "unknown" },
      JSON.stringify(text),
    );
    strictEqual(await sessions.inspect(text), undefined);
  }
  deepStrictEqual(await sessions.inspect(refreshToken), session);
});

Deno.test("RFC 9700 §4.14.2: a used token that comes again ends the session, however many generations later", async () => {
  for (const generations of [1, 2, 40]) {
    const parts = await openIdentityParts();
    const { sessions, revocations } = parts;
    const other = await sessions.open(ORDER);
    const first = await sessions.open(ORDER);
    let last: ContinuedSession = first;
    for (let generation = 0; generation < generations; generation++) {
      last = await refreshed(parts, last.refreshToken);
    }
    deepStrictEqual(await sessions.refresh(first.refreshToken, USE), {
      ok: false,
      reason: "reused",
      session: last.session,
    });
    strictEqual(revocations.isRevoked(first.session.id), true);
    strictEqual(await sessions.inspect(last.refreshToken), undefined);
    for (const { refreshToken } of [last, first]) {
      deepStrictEqual(await sessions.refresh(refreshToken, USE), { ok: false, reason: "ended" });
    }
    deepStrictEqual(await sessions.list("usr_1"), [other.session]);
    await refreshed(parts, other.refreshToken);
  }
});

Deno.test("ASVS V15.4.2: of many refreshes with one token at once exactly one gets the next, and the session is over", async () => {
  for (const parallel of [2, 12]) {
    const { sessions, revocations } = await openIdentityParts();
    const { session, refreshToken } = await sessions.open(ORDER);
    const outcomes = await Promise.all(
      Array.from({ length: parallel }, () => sessions.refresh(refreshToken, USE)),
    );
    const made = outcomes.filter((outcome) => outcome.ok);
    strictEqual(made.length, 1);
    ok(outcomes.some((outcome) => !outcome.ok && outcome.reason === "reused"));
    ok(outcomes.every((outcome) => outcome.ok || outcome.reason === "reused" || outcome.reason === "ended"));
    strictEqual(revocations.isRevoked(session.id), true);
    strictEqual(await sessions.read(session.id), undefined);
    deepStrictEqual(await sessions.refresh(made[0]?.value.refreshToken ?? "", USE), {
      ok: false,
      reason: "ended",
    });
  }
});

Deno.test("a refresh that another one overtakes at its write gives nothing and ends the session", async () => {
  const parts = await openWatchedParts();
  const { sessions, store } = parts;
  const { session, refreshToken } = await sessions.open(ORDER);
  let overtaking: ContinuedSession | undefined;
  store.beforeNextWrite(async () => void (overtaking = await refreshed(parts, refreshToken)));
  const outcome = await sessions.refresh(refreshToken, USE);
  deepStrictEqual(outcome, { ok: false, reason: "reused", session: overtaking?.session });
  strictEqual(await sessions.read(session.id), undefined);
});

Deno.test("a refresh that the session's end overtakes at its write gives nothing", async () => {
  const { sessions, store } = await openWatchedParts();
  const { session, refreshToken } = await sessions.open(ORDER);
  store.beforeNextWrite(() => sessions.end(session));
  deepStrictEqual(await sessions.refresh(refreshToken, USE), { ok: false, reason: "ended" });
  strictEqual(await sessions.read(session.id), undefined);
});

Deno.test("RFC 9449 §5: a bound session is continued with its own key only, and no other key uses a token up or ends it", async () => {
  const { sessions } = await openIdentityParts();
  const bound = await sessions.open({ ...ORDER, boundTo: "thumb" });
  const free = await sessions.open(ORDER);
  const wrong = { ok: false, reason: "key_wrong" };
  const refresh = (token: string, proved: string | null) =>
    sessions.refresh(token, { network: HOME, proved });
  for (const proved of [null, "", "other", "thum", "Thumb"]) {
    deepStrictEqual(await refresh(bound.refreshToken, proved), wrong);
  }
  deepStrictEqual(await refresh(free.refreshToken, "thumb"), wrong);
  deepStrictEqual(await sessions.inspect(bound.refreshToken), bound.session);
  const next = await refresh(bound.refreshToken, "thumb");
  ok(next.ok);
  deepStrictEqual(await refresh(bound.refreshToken, null), wrong, "used, and the key is not proved");
  deepStrictEqual(await sessions.inspect(next.value.refreshToken), next.value.session);
  strictEqual((await refresh(free.refreshToken, null)).ok, true);
});

Deno.test("a session lives to the millisecond, whatever is done in it", async () => {
  const parts = await openIdentityParts();
  const { sessions, clock } = parts;
  const opened = await sessions.open(ORDER);
  clock.advance(TTL_MS - 1);
  const last = await refreshed(parts, opened.refreshToken);
  clock.advance(1);
  deepStrictEqual(await sessions.refresh(last.refreshToken, USE), { ok: false, reason: "unknown" });
  deepStrictEqual(await sessions.refresh(opened.refreshToken, USE), { ok: false, reason: "unknown" });
  strictEqual(await sessions.inspect(last.refreshToken), undefined);
  strictEqual(await sessions.read(opened.session.id), undefined);
  deepStrictEqual(await sessions.list("usr_1"), []);
  strictEqual(await sessions.endAll("usr_1"), 0);
});

Deno.test("nothing of a session is left in the store when it has expired", async () => {
  const parts = await openIdentityParts();
  const { sessions, store, clock } = parts;
  const opened = await sessions.open(ORDER);
  await refreshed(parts, opened.refreshToken);
  clock.advance(TTL_MS);
  for (const table of ["sessions", "refresh_tokens", "user_sessions"]) {
    deepStrictEqual(await store.list(table, { limit: 10 }), [], table);
  }
});

Deno.test("ASVS V7.4.1: when a session has ended, neither its refresh token nor its access tokens work, also later and elsewhere", async () => {
  const before = await openIdentityParts();
  const { sessions, clock, revocations } = before;
  const { keys } = await makeSigningKeys();
  const open = (parts: typeof before) =>
    openAccessTokens({
      issuer: "https://ai.example.com",
      ttlSeconds: LIFETIME_SECONDS_MAX,
      keys,
      revocations: parts.revocations,
      clock,
    });
  const accessTokens = open(before);
  const { session, refreshToken } = await sessions.open(ORDER);
  const issue = async () =>
    (await accessTokens.issue({ subject: "usr_1", session: session.id, scope: null, boundTo: null })).token;
  const verify = async (token: string, tokens = accessTokens) => {
    const jws = parseJws(token);
    ok(jws.ok);
    const outcome = await tokens.verify(jws.value, hash("sha256", token, "base64"));
    return outcome.ok || outcome.reason;
  };
  const token = await issue();
  strictEqual(await verify(token), true);
  await sessions.end(session);
  strictEqual(await verify(token), "revoked");
  deepStrictEqual(await sessions.refresh(refreshToken, USE), { ok: false, reason: "ended" });
  strictEqual(await sessions.inspect(refreshToken), undefined);
  strictEqual(await sessions.read(session.id), undefined);
  // One that was being issued at that moment is as dead, to its last second, and after a restart.
  clock.advance(2000);
  const late = await issue();
  clock.advance(LIFETIME_SECONDS_MAX * 1000 - 1);
  strictEqual(revocations.isRevoked(session.id), true);
  strictEqual(await verify(late), "revoked");
  const again = await openIdentityParts(before);
  strictEqual(await verify(late, open(again)), "revoked");
  await sessions.end(session); // ending twice is ending once
});

Deno.test("ASVS V7.4.5: all sessions of one user end, of nobody else, and their number is told", async () => {
  const parts = await openIdentityParts();
  const { sessions, revocations } = parts;
  // Of ids that begin alike, too.
  const others = [
    await sessions.open({ ...ORDER, userId: "usr_10" }),
    await sessions.open({ ...ORDER, userId: "usr_0" }),
  ];
  const own = [];
  for (let index = 0; index < 5; index++) own.push(await sessions.open(ORDER));
  strictEqual(await sessions.endAll("usr_1"), 5);
  strictEqual(await sessions.endAll("usr_1"), 0);
  for (const { session, refreshToken } of own) {
    strictEqual(revocations.isRevoked(session.id), true);
    deepStrictEqual(await sessions.refresh(refreshToken, USE), { ok: false, reason: "ended" });
  }
  for (const { refreshToken } of others) await refreshed(parts, refreshToken);
});

Deno.test("a user has at most 100 sessions: the oldest end, also when many open at once", async () => {
  const { sessions, clock, revocations } = await openIdentityParts();
  const opened: OpenedSession[] = [];
  for (let index = 0; index < 100; index++) {
    opened.push(await sessions.open(ORDER));
    clock.advance(1);
  }
  const other = await sessions.open({ ...ORDER, userId: "usr_2" });
  deepStrictEqual(await sessions.list("usr_1"), opened.map(({ session }) => session));
  const newest = await sessions.open(ORDER);
  deepStrictEqual([opened.flatMap(({ displaced }) => displaced), other.displaced, newest.displaced], [
    [],
    [],
    [opened[0]?.session.id],
  ]);
  deepStrictEqual(
    (await sessions.list("usr_1")).map(({ id }) => id),
    [...opened.slice(1), newest].map(({ session }) => session.id),
  );
  deepStrictEqual(await sessions.refresh(opened[0]?.refreshToken ?? "", USE), { ok: false, reason: "ended" });
  strictEqual(revocations.isRevoked(opened[0]?.session.id ?? ""), true);
  clock.advance(1);
  const many = await Promise.all(Array.from({ length: 10 }, () => sessions.open(ORDER)));
  const ids = (await sessions.list("usr_1")).map(({ id }) => id);
  strictEqual(ids.length, 100);
  ok(many.every(({ session }) => ids.includes(session.id)));
  deepStrictEqual(await sessions.list("usr_2"), [other.session]);
});

Deno.test("a session that opens while the clock was set back is not the oldest that ends", async () => {
  const parts = await openIdentityParts();
  for (let index = 0; index < 100; index++) await parts.sessions.open(ORDER);
  parts.clock.jumpWall(-1000);
  const { refreshToken } = await parts.sessions.open(ORDER);
  strictEqual((await parts.sessions.list("usr_1")).length, 100);
  await refreshed(parts, refreshToken);
});

Deno.test("ASVS V16.5.3: wherever the process dies, a session whose end was told is over after the restart", async () => {
  let told = 0;
  for (let writes = 0; writes <= 3; writes++) {
    const before = await openWatchedParts();
    const { session, refreshToken } = await before.sessions.open(ORDER);
    before.store.dieAfter(writes);
    const isTold = await before.sessions.end(session).then(
      () => true,
      (thrown) => !isFault("unavailable")(thrown),
    );
    before.store.dieAfter(Infinity);
    const { sessions, revocations } = await openIdentityParts(before);
    const outcome = await sessions.refresh(refreshToken, USE);
    strictEqual(outcome.ok, !isTold, `after ${writes} writes`);
    // Whole or not at all: never dead for one kind of token and alive for the other.
    strictEqual(revocations.isRevoked(session.id), isTold, `after ${writes} writes`);
    if (isTold) told++;
  }
  strictEqual(told, 3);
});

Deno.test("ASVS V16.5.3: a session whose end could not be written goes on, and is over everywhere when it is ended again", async () => {
  const parts = await openWatchedParts();
  const { sessions, revocations, store } = parts;
  const { session, refreshToken } = await sessions.open(ORDER);
  store.dieAfter(0);
  await rejects(sessions.end(session), isFault("unavailable"));
  store.dieAfter(Infinity);
  strictEqual(revocations.isRevoked(session.id), false);
  deepStrictEqual(await sessions.inspect(refreshToken), session);
  deepStrictEqual(await sessions.read(session.id), session);
  strictEqual(await sessions.endAll("usr_1"), 1);
  for (const instance of [parts, await openIdentityParts(parts)]) {
    strictEqual(instance.revocations.isRevoked(session.id), true);
    deepStrictEqual(await instance.sessions.refresh(refreshToken, USE), { ok: false, reason: "ended" });
    strictEqual(await instance.sessions.inspect(refreshToken), undefined);
    strictEqual(await instance.sessions.read(session.id), undefined);
  }
});

Deno.test("ASVS V16.5.3: a refresh that cannot be written gives nothing, and the token goes on", async () => {
  const parts = await openWatchedParts();
  const { refreshToken } = await parts.sessions.open(ORDER);
  parts.store.dieAfter(0);
  await rejects(parts.sessions.refresh(refreshToken, USE), isFault("unavailable"));
  parts.store.dieAfter(Infinity);
  await refreshed(parts, refreshToken);
});

Deno.test("sessions, users, teams and what has ended survive a restart of the store's file", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "sessions-" });
  try {
    const clock = manualClock();
    const store = openSqliteRecordStore(`${folder}/x.db`, clock);
    const before = await openIdentityParts({ clock, store });
    const team = { id: "red", description: "", createdAtMs: 1 };
    await before.teams.create(team);
    const ada = await before.users.create({
      username: "ada",
      password: "violet kettle 31",
      roles: ["user"],
      team: "red",
    });
    const first = await before.sessions.open({ ...ORDER, userId: ada.id });
    const next = await refreshed(before, first.refreshToken);
    const ended = await before.sessions.open({ ...ORDER, userId: ada.id });
    await before.sessions.end(ended.session);
    await store.close();

    const reopened = openSqliteRecordStore(`${folder}/x.db`, clock);
    const after = await openIdentityParts({ ...before, store: reopened });
    deepStrictEqual((await after.teams.read("red"))?.value, team);
    deepStrictEqual(await after.users.findByName("ada"), ada);
    strictEqual((await after.standings.load(ada.id))?.team, "red");
    deepStrictEqual(await after.sessions.list(ada.id), [next.session]);
    strictEqual(after.revocations.isRevoked(ended.session.id), true);
    deepStrictEqual(await after.sessions.refresh(ended.refreshToken, USE), { ok: false, reason: "ended" });
    const last = await refreshed(after, next.refreshToken);
    const reused = await after.sessions.refresh(first.refreshToken, USE);
    strictEqual(!reused.ok && reused.reason, "reused", "what was used before the restart is used after it");
    deepStrictEqual(await after.sessions.refresh(last.refreshToken, USE), { ok: false, reason: "ended" });
    await reopened.close();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("ASVS V14.2.6: no refresh token, neither its text nor its bytes nor its plain hash, was ever in the store", async () => {
  const parts = await openWatchedParts();
  const { sessions, store } = parts;
  const seen: ContinuedSession[] = [await sessions.open({ ...ORDER, boundTo: "some-thumbprint" })];
  seen.push(await sessions.open(ORDER));
  for (let generation = 0; generation < 3; generation++) {
    seen.push(await refreshed(parts, seen.at(-1)?.refreshToken ?? ""));
  }
  await sessions.refresh(seen[1]?.refreshToken ?? "", USE);
  const text = store.everWritten();
  ok(text.includes("refresh_tokens"));
  for (const { refreshToken } of seen) {
    const secret = refreshToken.slice(4);
    for (
      const word of [
        secret,
        new TextDecoder("latin1").decode(Uint8Array.fromBase64(secret, { alphabet: "base64url" })),
        hash("sha256", refreshToken, "base64url"),
        hash("sha256", refreshToken, "hex"),
        hash("sha256", secret, "base64url"),
      ]
    ) ok(!text.includes(word), word);
  }
  for (const word of [HOME, "192.0.2", "some-thumbprint"]) ok(!text.includes(word), word);
});

Deno.test("sealed records that have no form of a session or a refresh token are faults", async () => {
  const { sessions, sealed, store } = await openIdentityParts();
  const { session, refreshToken } = await sessions.open(ORDER);
  const { userId: _, ...withoutUser } = session;
  for (
    const record of [null, "text", withoutUser, { ...session, boundTo: 1 }, { ...session, network: null }, {
      ...session,
      expiresAtMs: "never",
    }]
  ) {
    await sealed("sessions").put(session.id, record);
    await rejects(sessions.refresh(refreshToken, USE), isFault("unavailable"), JSON.stringify(record));
    await rejects(sessions.read(session.id), isFault("unavailable"));
  }
  const key = (await store.list("refresh_tokens", { limit: 1 }))[0]?.key ?? "";
  for (const record of [null, {}, { sessionId: session.id, used: "no" }, { used: false }]) {
    await sealed("refresh_tokens").put(key, record);
    await rejects(sessions.refresh(refreshToken, USE), isFault("unavailable"), JSON.stringify(record));
  }
});

/** What a session is supposed to be, for the property below. */
interface Model {
  readonly opened: ContinuedSession;
  readonly tokens: string[];
  isOver: boolean;
}

Deno.test("property: at most one refresh token a session works, its newest, and none after an end or a reuse", async () => {
  const pick = fc.nat({ max: 1000 });
  const step = fc.oneof(
    fc.record({ act: fc.constant("open" as const), user: fc.nat({ max: 1 }) }),
    fc.record({ act: fc.constant("refresh" as const), session: pick }),
    fc.record({ act: fc.constant("refresh" as const), session: pick }),
    fc.record({ act: fc.constant("present" as const), session: pick, token: pick }),
    fc.record({ act: fc.constant("race" as const), session: pick, token: pick }),
    fc.record({ act: fc.constant("end" as const), session: pick }),
    fc.record({ act: fc.constant("endAll" as const), user: fc.nat({ max: 1 }) }),
    fc.record({ act: fc.constant("restart" as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      let parts = await openIdentityParts();
      const models: Model[] = [];
      const modelAt = (index: number): Model | undefined => models[index % Math.max(1, models.length)];

      const present = async (model: Model, token: string): Promise<void> => {
        const isNewest = token === model.tokens.at(-1);
        const outcome = await parts.sessions.refresh(token, USE);
        const expected = model.isOver ? "ended" : isNewest ? "ok" : "reused";
        strictEqual(outcome.ok ? "ok" : outcome.reason, expected);
        if (outcome.ok) model.tokens.push(outcome.value.refreshToken);
        else model.isOver = true;
      };

      for (const one of steps) {
        if (one.act === "open") {
          const opened = await parts.sessions.open({ ...ORDER, userId: `usr_${one.user}` });
          models.push({ opened, tokens: [opened.refreshToken], isOver: false });
        } else if (one.act === "restart") {
          parts = await openIdentityParts(parts);
        } else if (one.act === "endAll") {
          const live = models.filter(({ opened, isOver }) =>
            !isOver && opened.session.userId === `usr_${one.user}`
          );
          strictEqual(await parts.sessions.endAll(`usr_${one.user}`), live.length);
          for (const model of live) model.isOver = true;
        } else {
          const model = modelAt(one.session);
          if (model === undefined) continue;
          if (one.act === "end") {
            await parts.sessions.end(model.opened.session);
            model.isOver = true;
          } else if (one.act === "refresh") await present(model, model.tokens.at(-1) ?? "");
          else {
            const token = model.tokens[one.token % model.tokens.length] ?? "";
            if (one.act === "present") await present(model, token);
            else {
              const works = !model.isOver && token === model.tokens.at(-1);
              const outcomes = await Promise.all([1, 2, 3].map(() => parts.sessions.refresh(token, USE)));
              strictEqual(outcomes.filter((outcome) => outcome.ok).length, works ? 1 : 0);
              for (const outcome of outcomes) if (outcome.ok) model.tokens.push(outcome.value.refreshToken);
              model.isOver = true;
            }
          }
        }
        for (const { opened, tokens, isOver } of models) {
          strictEqual(parts.revocations.isRevoked(opened.session.id), isOver);
          const working = [];
          for (const token of tokens) {
            if (await parts.sessions.inspect(token) !== undefined) working.push(token);
          }
          deepStrictEqual(working, isOver ? [] : [tokens.at(-1)]);
        }
      }
    }),
    { numRuns: 40 },
  );
});
