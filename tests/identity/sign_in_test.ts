// Tests of sign-in: the right password alone opens, guessing slows down, and whatever is wrong costs and says the same.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { hashPassword, needsRehash, verifyPassword } from "../../src/identity/password_hash.ts";
import { openSignIn, type SignInAttempt } from "../../src/identity/sign_in.ts";
import { openLockout } from "../../src/limits/lockout.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { holdHashes } from "./held_hashes.ts";
import { isFault } from "./is_fault.ts";
import { openWatchedParts } from "./open_identity.ts";

const PASSWORD = "violet kettle 31";
const RIGHT: SignInAttempt = { username: "ada", password: PASSWORD, network: "192.0.2.0/24" };
const WRONG: SignInAttempt = { ...RIGHT, password: "violet kettle 32" };
const CHEAP = { memoryKib: 8, passes: 1 };
const DAY_MS = 86_400_000;

/** Sign-in with an account whose hash is cheap, so that attempts at it are. */
async function openSignInParts(account: { readonly cost?: typeof CHEAP } = {}) {
  const parts = await openWatchedParts();
  const created = await parts.users.create({
    username: "ada",
    password: PASSWORD,
    roles: ["user"],
    team: "default",
  });
  const found = await parts.users.read(created.id);
  ok(found);
  if (account.cost !== undefined) {
    const passwordHash = await hashPassword(PASSWORD, account.cost);
    strictEqual(await parts.users.replace(found, { ...created, passwordHash }), true);
  }
  const ada = (await parts.users.read(created.id))?.value;
  ok(ada);
  // Over a store of its own: what tests count are the writes of the sign-in itself.
  const lockout = openLockout({ store: openMemoryRecordStore(parts.clock), clock: parts.clock });
  return { ...parts, ada, lockout, signIn: await openSignIn({ ...parts, lockout }) };
}

/** Takes all the turns that strangers have at the hash, running and waiting. */
async function fillQueue(phc: string): Promise<void> {
  await Promise.all(Array.from({ length: 52 }, () => verifyPassword("x", phc, { isKnown: false })));
}

Deno.test("sign-in gives the account to its name and password, and a private reason to all else", async () => {
  const { signIn, ada } = await openSignInParts();
  deepStrictEqual(await signIn(RIGHT), { ok: true, value: ada });
  for (const password of ["Violet kettle 31", "", PASSWORD.slice(0, -1)]) {
    deepStrictEqual(await signIn({ ...RIGHT, password }), { ok: false, reason: "wrong_password" });
  }
  for (const username of ["Ada", "", "ada ", "a\u0000", "x".repeat(1000), ada.id]) {
    deepStrictEqual(await signIn({ ...RIGHT, username }), { ok: false, reason: "unknown_user" });
  }
});

Deno.test("ASVS V7.4.2: a disabled user is refused with the right password, and told apart only by the trail", async () => {
  const { signIn, users, ada } = await openSignInParts();
  const found = await users.read(ada.id);
  ok(found);
  await users.replace(found, { ...ada, disabled: true });
  deepStrictEqual(await signIn(RIGHT), { ok: false, reason: "disabled" });
  deepStrictEqual(await signIn(WRONG), { ok: false, reason: "wrong_password" });
});

Deno.test("ASVS V6.3.8: an unknown name and a disabled user take a turn at the password hash as all others do", async () => {
  const { signIn, users, ada } = await openSignInParts({ cost: CHEAP });
  const found = await users.read(ada.id);
  ok(found);
  await users.replace(found, { ...ada, disabled: true });
  for (const username of ["nobody", "ada"]) {
    // All turns are taken for as long as it takes: who needs one is refused, and who needs none would be answered.
    using held = holdHashes();
    const pending = fillQueue(ada.passwordHash);
    await rejects(signIn({ ...RIGHT, username }), isFault("overloaded"));
    held.release();
    await pending;
  }
});

Deno.test("strangers who fill the queue for the hash crowd nobody out who signs in from a known network, or changes the password there", async () => {
  const { signIn, ada } = await openSignInParts({ cost: CHEAP });
  strictEqual((await signIn(RIGHT)).ok, true);
  using held = holdHashes();
  const pending = fillQueue(ada.passwordHash);
  const owner = signIn(RIGHT);
  for (const other of [{ network: "203.0.113.0/24" }, { username: "eve" }]) {
    await rejects(signIn({ ...RIGHT, ...other }), isFault("overloaded"));
  }
  held.release();
  strictEqual((await owner).ok, true);
  await pending;
});

Deno.test("ASVS V6.3.8: known, unknown and disabled names are locked out alike, attempt for attempt and second for second", async () => {
  const { signIn, users, ada, clock } = await openSignInParts({ cost: CHEAP });
  const found = await users.read(ada.id);
  ok(found);
  await users.replace(found, { ...ada, disabled: true });
  await users.create({ username: "eve", password: PASSWORD, roles: [], team: "default" });
  const answers = async (username: string, password: string): Promise<(number | boolean | undefined)[]> => {
    const seen = [];
    for (let attempt = 0; attempt < 6; attempt++) {
      seen.push(
        await signIn({ username, password, network: "198.51.100.0/24" }).then(
          (outcome) => outcome.ok,
          (thrown) => thrown instanceof Fault ? thrown.details.retryAfterSeconds : undefined,
        ),
      );
      if (attempt === 4) clock.advance(1000);
    }
    return seen;
  };
  const expected = [false, false, false, false, 1, false];
  deepStrictEqual(await answers("nobody", PASSWORD), expected);
  deepStrictEqual(await answers("eve", "wrong password"), expected);
  deepStrictEqual(await answers("ada", PASSWORD), expected);
});

Deno.test("ASVS V6.3.1: the lockout refuses with the seconds to wait, also the right password, and a success starts fresh", async () => {
  const { signIn, clock } = await openSignInParts({ cost: CHEAP });
  for (let attempt = 0; attempt < 5; attempt++) {
    strictEqual((await signIn(WRONG)).ok, false);
    if (attempt === 3) clock.advance(1000);
  }
  await rejects(signIn(RIGHT), (thrown) => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "rate_limited");
    strictEqual(thrown.details.retryAfterSeconds, 2);
    strictEqual(thrown.details.detail, "Too many attempts to sign in failed. Try again later.");
    return true;
  });
  clock.advance(2000);
  strictEqual((await signIn(RIGHT)).ok, true);
  for (let attempt = 0; attempt < 4; attempt++) strictEqual((await signIn(WRONG)).ok, false);
  await rejects(signIn(WRONG), isFault("rate_limited"));
});

Deno.test("ASVS V6.3.1: attempts in parallel do not slip through: four of thirty are judged", async () => {
  const { signIn } = await openSignInParts({ cost: CHEAP });
  const results = await Promise.allSettled(Array.from({ length: 30 }, () => signIn(WRONG)));
  strictEqual(results.filter(({ status }) => status === "fulfilled").length, 4);
  for (const result of results) if (result.status === "rejected") isFault("rate_limited")(result.reason);
});

Deno.test("strangers who use up an account's ceiling lock its owner out of no network where that one signed in before", async () => {
  const { signIn, clock, lockout, keyRing } = await openSignInParts({ cost: CHEAP });
  strictEqual((await signIn(RIGHT)).ok, true);
  for (let stranger = 0; stranger < 100; stranger++) {
    await lockout.take(keyRing.pseudonym("account", "ada"), `stranger ${stranger}`, false);
  }
  await rejects(signIn({ ...RIGHT, network: "203.0.113.0/24" }), isFault("rate_limited"));
  strictEqual((await signIn(RIGHT)).ok, true);
  clock.advance(90 * DAY_MS - 1);
  strictEqual((await signIn(RIGHT)).ok, true);
  clock.advance(90 * DAY_MS); // from the last success on
  for (let stranger = 0; stranger < 100; stranger++) {
    await lockout.take(keyRing.pseudonym("account", "ada"), `stranger ${stranger}`, false);
  }
  await rejects(signIn(RIGHT), isFault("rate_limited"));
});

Deno.test("a network is known for the account that signed in from it, and by a success only", async () => {
  const { signIn, users, lockout, keyRing, store } = await openSignInParts({ cost: CHEAP });
  await users.create({ username: "eve", password: PASSWORD, roles: [], team: "default" });
  await signIn(WRONG);
  await signIn({ ...RIGHT, username: "nobody" });
  deepStrictEqual(await store.list("known_networks", { limit: 10 }), []);
  await signIn(RIGHT);
  strictEqual((await store.list("known_networks", { limit: 10 })).length, 1);
  for (let stranger = 0; stranger < 100; stranger++) {
    await lockout.take(keyRing.pseudonym("account", "eve"), `stranger ${stranger}`, false);
  }
  await rejects(signIn({ ...RIGHT, username: "eve" }), isFault("rate_limited"));
});

Deno.test("an unlocked account can be tried at once, and no other", async () => {
  const { signIn } = await openSignInParts({ cost: CHEAP });
  for (const username of ["ada", "eve"]) {
    for (let attempt = 0; attempt < 4; attempt++) await signIn({ ...WRONG, username });
  }
  await rejects(signIn(RIGHT), isFault("rate_limited"));
  strictEqual(await signIn.unlock("ada"), true);
  strictEqual(await signIn.unlock("ada"), false);
  strictEqual((await signIn(RIGHT)).ok, true);
  await rejects(signIn({ ...WRONG, username: "eve" }), isFault("rate_limited"));
});

Deno.test("a hash that would cost more by now is made anew at the sign-in, once", async () => {
  const { signIn, users, ada } = await openSignInParts({ cost: CHEAP });
  strictEqual((await signIn(WRONG)).ok, false);
  deepStrictEqual((await users.read(ada.id))?.value, ada);
  const outcome = await signIn(RIGHT);
  const rehashed = (await users.read(ada.id))?.value;
  ok(rehashed);
  deepStrictEqual(outcome, { ok: true, value: rehashed });
  strictEqual(needsRehash(rehashed.passwordHash), false);
  strictEqual(await verifyPassword(PASSWORD, rehashed.passwordHash), true);
  deepStrictEqual({ ...rehashed, passwordHash: ada.passwordHash }, ada);
  deepStrictEqual(await signIn(RIGHT), outcome);
});

Deno.test("a hash made anew never brings back a password that was changed meanwhile", async () => {
  const { signIn, users, ada, store } = await openSignInParts({ cost: CHEAP });
  const change = async (): Promise<void> => {
    const found = await users.read(ada.id);
    ok(found);
    strictEqual(await users.setPassword(found, "harvest lantern 8"), true);
  };
  // The first write of a sign-in is the known network: before the account is read again.
  store.beforeNextWrite(change);
  strictEqual((await signIn(RIGHT)).ok, true);
  const changed = (await users.read(ada.id))?.value;
  strictEqual(await verifyPassword("harvest lantern 8", changed?.passwordHash ?? ""), true);
});

Deno.test("a hash made anew is not written over a change that came while it was made", async () => {
  const { signIn, users, ada, store } = await openSignInParts({ cost: CHEAP });
  store.beforeNextWrite(() => Promise.resolve());
  store.beforeNextWrite(async () => {
    const found = await users.read(ada.id);
    ok(found);
    strictEqual(await users.replace(found, { ...ada, roles: [] }), true);
  });
  deepStrictEqual(await signIn(RIGHT), { ok: true, value: ada });
  deepStrictEqual((await users.read(ada.id))?.value, { ...ada, roles: [] });
});

Deno.test("nobody is kept out because the hash cannot be made anew", async () => {
  const { signIn, users, ada, store } = await openSignInParts({ cost: CHEAP });
  store.dieAfter(1);
  deepStrictEqual(await signIn(RIGHT), { ok: true, value: ada });
  deepStrictEqual((await users.read(ada.id))?.value, ada);
});

Deno.test("a store that fails is a fault, not an unknown user, and the attempt stays counted", async () => {
  const { signIn, store, ada } = await openSignInParts({ cost: CHEAP });
  const record = await store.get("users", ada.id);
  ok(record);
  await store.put("users", ada.id, Uint8Array.of(1, 2, 3));
  for (let attempt = 0; attempt < 4; attempt++) await rejects(signIn(RIGHT), isFault("unavailable"));
  await store.put("users", ada.id, record);
  await rejects(signIn(RIGHT), isFault("rate_limited"));
});

Deno.test("ASVS V14.2.6: no password or network was ever readable in the store", async () => {
  const parts = await openSignInParts({ cost: CHEAP });
  const { store } = parts;
  const signIn = await openSignIn({ ...parts, lockout: openLockout(parts) });
  await signIn(WRONG);
  await signIn(RIGHT);
  const text = store.everWritten();
  for (const table of ["known_networks", "lockout_pairs", "lockout_ceilings"]) {
    ok(text.includes(table), table);
  }
  for (const word of [PASSWORD, WRONG.password, RIGHT.network, "192.0.2"]) ok(!text.includes(word), word);
});
