// Tests of password hashes: Argon2id as another implementation computes it, of the whole password, in a bounded queue.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import {
  type Argon2idCost,
  hashPassword,
  needsRehash,
  verifyPassword,
} from "../../src/identity/password_hash.ts";
import { holdHashes } from "./held_hashes.ts";

/** Cheap enough for many runs; the lowest that RFC 9106 §3.1 allows. */
const CHEAP: Argon2idCost = { memoryKib: 8, passes: 1 };

/** Made once by the reference implementation: `argon2 SALT -id -t PASSES -k MEMORY -p 1 -l 32 -e` (Debian's package argon2). */
const VECTORS = [
  [
    "correct horse battery staple",
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0MDAwMQ$0VWIdsxMTeqsBIPPnUige09yViwVni7lQLEinvmQO+k",
  ],
  [
    "pässwörd 🔑",
    "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$mRpwjTAX6JXHPJRy9pGDGfRv/7KAw4UfIvc4h2q9f3Q",
  ],
  [
    "0123456789".repeat(12),
    "$argon2id$v=19$m=256,t=3,p=1$MDEyMzQ1Njc4OWFiY2RlZg$IdvQRPIgo1oiS9hq5wXkZDZGBc1JzvHt6jrlJwwwFSs",
  ],
  ["a\nb", "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$lqF67FeuoEG26ScadBkG+UJfinXBpnu8W27V8f9G7Wk"],
] as const;

function isFault(kind: string): (thrown: unknown) => true {
  return (thrown) => {
    ok(thrown instanceof Fault, String(thrown));
    strictEqual(thrown.kind, kind);
    return true;
  };
}

Deno.test("RFC 9106: hashes of the reference implementation are verified, and only with their password", async () => {
  for (const [password, phc] of VECTORS) {
    strictEqual(await verifyPassword(password, phc), true, phc);
    strictEqual(await verifyPassword(`${password} `, phc), false, phc);
  }
});

Deno.test("ASVS V11.4.2: a hash is Argon2id at OWASP's cost unless told otherwise, with a salt of its own", async () => {
  const one = await hashPassword("violet kettle 31");
  match(one, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
  strictEqual(await verifyPassword("violet kettle 31", one), true);
  const cheap = await Promise.all(Array.from({ length: 20 }, () => hashPassword("violet kettle 31", CHEAP)));
  strictEqual(new Set(cheap.map((phc) => phc.split("$")[4])).size, 20);
  strictEqual(new Set(cheap.map((phc) => phc.split("$")[5])).size, 20);
});

Deno.test("ASVS V6.2.8: long passwords count to their last character", async () => {
  const long = "x".repeat(1000);
  const phc = await hashPassword(long, CHEAP);
  strictEqual(await verifyPassword(long, phc), true);
  for (const at of [71, 72, 127, 128, 199, 255, 256, 511, 512, 999]) {
    strictEqual(await verifyPassword(`${long.slice(0, at)}y${long.slice(at + 1)}`, phc), false, `at ${at}`);
  }
  strictEqual(await verifyPassword(long.slice(1), phc), false);
});

Deno.test("ASVS V6.2.8: case, white space, NUL and Unicode form are not folded", async () => {
  for (
    const [password, other] of [
      ["Violet Kettle", "violet kettle"],
      ["é caractère", "e\u0301 caractère"],
      ["Ａwide", "Awide"],
      ["ﬁne", "fine"],
      [" padded ", "padded"],
      ["cut\u0000here", "cut"],
      ["cut\u0000here", "cut\u0000there"],
      ["", " "],
      ["straße", "strasse"],
    ] as const
  ) {
    const phc = await hashPassword(password, CHEAP);
    strictEqual(await verifyPassword(password, phc), true);
    strictEqual(await verifyPassword(other, phc), false, JSON.stringify(other));
  }
});

Deno.test("a stored hash in any other form is a fault, and no password verifies against it", async () => {
  const salt = "A".repeat(22);
  const hash = "A".repeat(43);
  const good = `$argon2id$v=19$m=8,t=1,p=1$${salt}$${hash}`;
  strictEqual(await verifyPassword("x", good), false);
  for (
    const phc of [
      "",
      "x",
      good.slice(0, -1),
      `${good}A`,
      `${good}=`,
      `${good}\n`,
      ` ${good}`,
      good.replace("argon2id", "argon2i"),
      good.replace("argon2id", "argon2d"),
      good.replace("v=19", "v=16"),
      good.replace("$v=19", ""),
      good.replace("p=1", "p=2"),
      good.replace("m=8,t=1", "t=1,m=8"),
      good.replace("m=8", "m=-8"),
      good.replace("m=8", "m=8e3"),
      good.replace("m=8", "m=99999999"),
      good.replace("m=8", "m=0"),
      good.replace("m=8", "m=7"), // RFC 9106 §3.1: at least 8 KiB a lane
      good.replace("m=8", "m=08"),
      good.replace("t=1", "t=0"),
      good.replace("t=1", "t=01"),
      `$argon2id$v=19$m=8,t=1,p=1$${salt.slice(1)}B$${hash}`, // trailing bits that are not zero
      `$argon2id$v=19$m=8,t=1,p=1$${salt}$${hash.slice(1)}B`,
      `$argon2id$v=19$m=8,t=1,p=1$${salt.replace("A", "-")}$${hash}`,
      `$argon2id$v=19$m=8,t=1,p=1$$${hash}`,
      `$argon2id$v=19$m=8,t=1,p=1$${salt}$`,
    ]
  ) await rejects(verifyPassword("x", phc), isFault("unavailable"), phc);
});

Deno.test("a hash needs another when it cost less memory or fewer passes than now, or has another form", async () => {
  strictEqual(needsRehash(await hashPassword("x")), false);
  strictEqual(needsRehash(await hashPassword("x", CHEAP)), true);
  strictEqual(needsRehash(await hashPassword("x", CHEAP), CHEAP), false);
  const phc = (memoryKib: number, passes: number) =>
    `$argon2id$v=19$m=${memoryKib},t=${passes},p=1$${"A".repeat(22)}$${"A".repeat(43)}`;
  strictEqual(needsRehash(phc(19_456, 2)), false);
  strictEqual(needsRehash(phc(19_457, 3)), false);
  strictEqual(needsRehash(phc(19_455, 2)), true);
  strictEqual(needsRehash(phc(65_536, 1)), true); // more memory does not make up for passes
  strictEqual(needsRehash(phc(9_999, 9)), true); // as text it would be more
  for (
    const other of [
      "",
      "x",
      phc(19_456, 2).replace("argon2id", "argon2i"),
      phc(19_456, 2).replace("v=19", "v=16"),
      phc(19_456, 2).replace("p=1", "p=4"),
      `${phc(19_456, 2)}A`,
      "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
    ]
  ) strictEqual(needsRehash(other), true, other);
});

Deno.test("ASVS V15.2.2: 52 may be under way; one more is overloaded, and afterwards there is room again", async () => {
  const phc = await hashPassword("x", CHEAP);
  const pending = Array.from({ length: 52 }, () => hashPassword("x", CHEAP));
  for (const refused of await Promise.allSettled([hashPassword("x", CHEAP), verifyPassword("x", phc)])) {
    ok(refused.status === "rejected" && isFault("overloaded")(refused.reason));
    strictEqual(refused.reason.details.retryAfterSeconds, 2);
  }
  strictEqual(new Set(await Promise.all(pending)).size, 52);
  strictEqual(await verifyPassword("x", phc), true);
});

Deno.test("ASVS V6.3.1: strangers who fill the queue make nobody who is known wait for more than the runs under way", async () => {
  const stranger = await hashPassword("x", CHEAP);
  const owner = await hashPassword("x", { ...CHEAP, memoryKib: 16 });
  using held = holdHashes();
  const ofStrangers = Array.from({ length: 52 }, () => verifyPassword("x", stranger, { isKnown: false }));
  await rejects(verifyPassword("x", stranger, { isKnown: false }), isFault("overloaded"));
  const ofOwners = [
    verifyPassword("x", owner, { isKnown: true }),
    hashPassword("x", { ...CHEAP, memoryKib: 24 }),
    ...Array.from({ length: 48 }, () => verifyPassword("x", owner)),
  ];
  await rejects(verifyPassword("x", owner), isFault("overloaded"));
  held.release();
  ok((await Promise.all([...ofStrangers, ...ofOwners])).every((right) => right !== false));
  const begun = held.begun.slice(2, 52);
  deepStrictEqual(begun.slice(0, 2).sort(), [16, 24]);
  deepStrictEqual(new Set(begun), new Set([16, 24]));
  deepStrictEqual(new Set(held.begun.slice(52)), new Set([8]));
});

Deno.test("a run that fails gives its turn back", async () => {
  for (let round = 0; round < 5; round++) await rejects(hashPassword("x", { memoryKib: 1, passes: 0 }));
  const pending = Array.from({ length: 52 }, () => hashPassword("x", CHEAP));
  await rejects(hashPassword("x", CHEAP), isFault("overloaded"));
  await Promise.all(pending);
});

Deno.test("no more than two run at once, also when one arrives in the moment between a run's end and the next's start", async () => {
  const { subtle } = crypto;
  const platform = subtle.deriveBits;
  let running = 0;
  let most = 0;
  const late: Promise<string>[] = [];
  // Counts what the platform runs; the computing itself is the platform's.
  subtle.deriveBits = async (...parameters: Parameters<typeof platform>) => {
    most = Math.max(most, ++running);
    const bits = await platform.apply(subtle, parameters);
    running--;
    // Two microtasks on: after this run has given back its turn, before the one that waits has taken it.
    queueMicrotask(() =>
      queueMicrotask(() => {
        if (late.length < 10) late.push(hashPassword("late", CHEAP));
      })
    );
    return bits;
  };
  try {
    await Promise.all(Array.from({ length: 20 }, () => hashPassword("x", CHEAP)));
    await Promise.all(late);
  } finally {
    subtle.deriveBits = platform;
  }
  strictEqual(late.length, 10);
  notStrictEqual(most, 0);
  ok(most <= 2, `${most} ran at once`);
});
