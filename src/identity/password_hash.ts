// Password hash: Argon2id (RFC 9106) by the platform, kept in PHC string form.
import { decodeBase64url } from "../encoding/base64url.ts";
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";

/** What a hash costs. */
export interface Argon2idCost {
  readonly memoryKib: number;
  readonly passes: number;
}

/** OWASP's password storage recommendation: 19 MiB, two passes, one lane. */
export const ARGON2ID_COST: Argon2idCost = { memoryKib: 19_456, passes: 2 };

const SALT_BYTES = 16;
const HASH_BYTES = 32;
// RFC 9106 §3.1: at least 8 KiB a lane and one pass.
const PHC =
  /^\$argon2id\$v=19\$m=([89]|[1-9]\d{1,6}),t=([1-9]\d{0,2}),p=1\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{43})$/;

/** Runs at once; each holds a core for about 40 ms and 19 MiB. */
const RUNNING_MAX = 2;
/** More than this waiting in a line is an attack or a stampede: they get 503 rather than a queue of seconds. */
const WAITING_MAX = 50;

type WaitingLine = (() => void)[];

let running = 0;
/** A line of its own, served first: strangers, however many, cost those who are known no more than the runs under way. */
const known: WaitingLine = [];
const strangers: WaitingLine = [];

/**
 * Hashes a password: all of its bytes, neither cut nor folded (ASVS V6.2.8). Who sets one is known. Throws Fault
 * `overloaded` when too many wait.
 */
export async function hashPassword(password: string, cost: Argon2idCost = ARGON2ID_COST): Promise<string> {
  const salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  const hash = await argon2id(password, salt, cost, known);
  return `$argon2id$v=19$m=${cost.memoryKib},t=${cost.passes},p=1$${phcBase64(salt)}$${phcBase64(hash)}`;
}

/**
 * Whether a password is the one behind a hash.
 *
 * @param phc what `hashPassword` returned
 * @param from.isKnown false: it may be anybody who asks, and waits behind all who are known
 * @throws Fault `overloaded` when too many of either kind wait · `unavailable` when the stored hash is malformed
 */
export async function verifyPassword(
  password: string,
  phc: string,
  { isKnown }: { readonly isKnown: boolean } = { isKnown: true },
): Promise<boolean> {
  const [, memory, passes, saltText, hashText] = PHC.exec(phc) ?? [];
  const salt = decodeBase64url(toBase64url(saltText ?? ""));
  const expected = decodeBase64url(toBase64url(hashText ?? ""));
  if (!salt.ok || !expected.ok || expected.value.length !== HASH_BYTES) {
    throw new Fault("unavailable", "Cannot verify a password: the stored hash is malformed");
  }
  const cost = { memoryKib: Number(memory), passes: Number(passes) };
  const actual = await argon2id(password, salt.value, cost, isKnown ? known : strangers);
  return constantTimeEqual(actual, expected.value);
}

/**
 * Whether a stored hash cost less than a new one would, or has another form: then the password is hashed anew when it was
 * right at the next sign-in.
 */
export function needsRehash(phc: string, cost: Argon2idCost = ARGON2ID_COST): boolean {
  const [, memory, passes] = PHC.exec(phc) ?? [];
  // What is missing is not a number, and no number is at least as much.
  return !(Number(memory) >= cost.memoryKib && Number(passes) >= cost.passes);
}

async function argon2id(
  password: string,
  salt: Uint8Array<ArrayBuffer>,
  cost: Argon2idCost,
  line: WaitingLine,
): Promise<Uint8Array<ArrayBuffer>> {
  await takeTurn(line);
  try {
    // The platform's types do not know Argon2id yet (WICG "Modern Algorithms in the Web Cryptography API").
    const key = await crypto.subtle.importKey(
      "raw-secret" as "raw",
      encodeUtf8(password),
      "Argon2id",
      false,
      ["deriveBits"],
    );
    const parameters = {
      name: "Argon2id",
      nonce: salt,
      memory: cost.memoryKib,
      passes: cost.passes,
      parallelism: 1,
    };
    return new Uint8Array(await crypto.subtle.deriveBits(parameters, key, HASH_BYTES * 8));
  } finally {
    // The turn goes straight to the one who waits longest: nobody can arrive in between and make three run.
    const next = known.shift() ?? strangers.shift();
    if (next === undefined) running--;
    else next();
  }
}

async function takeTurn(line: WaitingLine): Promise<void> {
  if (running < RUNNING_MAX) {
    running++;
    return;
  }
  if (line.length >= WAITING_MAX) {
    throw new Fault("overloaded", "Cannot hash a password: too many wait", { retryAfterSeconds: 2 });
  }
  await new Promise<void>((resolve) => line.push(resolve));
}

/** PHC strings use the standard alphabet without padding. */
function phcBase64(bytes: Uint8Array): string {
  return bytes.toBase64({ omitPadding: true });
}

function toBase64url(text: string): string {
  return text.replaceAll("+", "-").replaceAll("/", "_");
}
