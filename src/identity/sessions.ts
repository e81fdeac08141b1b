// Sessions: what a sign-in opens. Refresh tokens that work once keep it going (RFC 9700 §4.14.2), and it ends as a whole.
import { encodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import { no, ok } from "../faults/outcome.ts";
import type { RecordChange, RecordLifetime, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import type { SealedTable } from "../vault/sealed_store.ts";
import { LIFETIME_SECONDS_MAX } from "./access_token.ts";
import type { Kept } from "./kept.ts";
import type { Revocations } from "./revocation.ts";

/** Somebody who signed in somewhere. */
export interface Session {
  /** `ses_…`: the `sid` of its access tokens. */
  readonly id: string;
  readonly userId: string;
  /** Milliseconds since 1970, as all times here. */
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  /** Fixed when it is opened: no use makes a session longer. */
  readonly expiresAtMs: number;
  /** Text of the client's network at the last use. */
  readonly network: string;
  /** RFC 9449 §5: thumbprint of the key that every refresh has to prove; null: none. */
  readonly boundTo: string | null;
}

/** A session and the one refresh token that continues it. */
export interface ContinuedSession {
  readonly session: Session;
  /** Secret, told this once. */
  readonly refreshToken: string;
}

/** A session that was just opened. */
export interface OpenedSession extends ContinuedSession {
  /** Ids of those that it pushed out: they are over. */
  readonly displaced: readonly string[];
}

/** What became of a refresh token. All refusals look the same to the caller. */
export type Refreshed =
  | { readonly ok: true; readonly value: ContinuedSession }
  | { readonly ok: false; readonly reason: "unknown" | "ended" | "key_wrong" }
  /** It had been used before: two have it, and one of them stole it. The session is over. */
  | { readonly ok: false; readonly reason: "reused"; readonly session: Session };

/** The sessions of users. */
export interface Sessions {
  /** Of more than 100 sessions of one user the oldest are ended. */
  open(order: Pick<Session, "userId" | "network" | "boundTo">): Promise<OpenedSession>;
  /**
   * Trades a refresh token for the next one. Of two that come with one token at the same time, one gets the next, and the
   * other ends the session for both: nobody knows which of them the thief is.
   *
   * @param use.proved thumbprint of the key that the caller has proved; one that is not the session's own changes nothing
   */
  refresh(
    refreshToken: string,
    use: { readonly network: string; readonly proved: string | null },
  ): Promise<Refreshed>;
  /** The session that a refresh token would continue; changes nothing. */
  inspect(refreshToken: string): Promise<Session | undefined>;
  /** The oldest first. */
  list(userId: string): Promise<readonly Session[]>;
  read(sessionId: string): Promise<Session | undefined>;
  /**
   * When the promise resolves, neither its refresh tokens nor its access tokens work any more. Where it throws Fault
   * `unavailable`, they may, and the session can be ended again.
   */
  end(session: Session): Promise<void>;
  /** How many there were. */
  endAll(userId: string): Promise<number>;
}

const SESSIONS_MAX = 100;
const PAGE = 2 * SESSIONS_MAX;
const ID = /^ses_[0-9a-z]{26}$/;
const REFRESH_TOKEN = /^prt_[A-Za-z0-9_-]{43}$/;
const TOKEN_BYTES = 32;
/** Longer than any access token lives, also one that was being issued while its session ended. */
const REVOKED_FOR_MS = (LIFETIME_SECONDS_MAX + 60) * 1000;

/** A refresh token's record with what it belongs to. */
interface KnownToken {
  readonly key: string;
  readonly version: Uint8Array<ArrayBuffer>;
  readonly isUsed: boolean;
  /** undefined: it is over. */
  readonly session: Kept<Session> | undefined;
}

/** @param options.ttlSeconds life of a session, from its opening */
export function openSessions(options: {
  readonly store: RecordStore;
  readonly sealed: (table: string) => SealedTable;
  readonly keyRing: KeyRing;
  readonly clock: Clock;
  readonly revocations: Revocations;
  readonly ttlSeconds: number;
}): Sessions {
  const { store, sealed, keyRing, clock, revocations, ttlSeconds } = options;
  const sessions = sealed("sessions");
  const tokens = sealed("refresh_tokens");
  const byUser = sealed("user_sessions");

  // Of 256 random bits a keyed hash suffices: there is nothing to guess, and the store alone cannot even be searched.
  const tokenKey = (text: string): string => encodeBase64url(keyRing.keyedHash("refresh_token", text));

  function changeSession(session: Session, expects: RecordChange["expects"]): Promise<RecordChange> {
    return sessions.changeOf(session.id, { ...session }, { expects, lifetime: lifeOf(session) });
  }

  function changeToken(
    key: string,
    session: Session,
    isUsed: boolean,
    expects: RecordChange["expects"],
  ): Promise<RecordChange> {
    const record = { sessionId: session.id, used: isUsed };
    return tokens.changeOf(key, record, { expects, lifetime: lifeOf(session) });
  }

  async function read(id: string): Promise<Kept<Session> | undefined> {
    const record = ID.test(id) ? await sessions.read(id) : undefined;
    return record === undefined ? undefined : { value: parseSession(record.value), version: record.version };
  }

  async function findToken(text: string): Promise<KnownToken | undefined> {
    if (!REFRESH_TOKEN.test(text)) return undefined;
    const key = tokenKey(text);
    const record = await tokens.read(key);
    if (record === undefined) return undefined;
    const { sessionId, used } = parseToken(record.value);
    return { key, version: record.version, isUsed: used, session: await read(sessionId) };
  }

  /** At most a page, the oldest first. */
  async function idsOf(userId: string): Promise<string[]> {
    const prefix = `${userId}.`;
    const page = await byUser.list({ after: prefix, limit: PAGE });
    return page.filter(({ key }) => key.startsWith(prefix)).map(({ key }) => key.slice(prefix.length));
  }

  /** One write: it ends for refresh tokens and for access tokens, or for neither. */
  async function end({ id, userId }: Pick<Session, "id" | "userId">): Promise<void> {
    await revocations.revoke(id, clock.now() + REVOKED_FOR_MS, [
      await sessions.changeOf(id, undefined),
      await byUser.changeOf(`${userId}.${id}`, undefined),
    ]);
  }

  return {
    async open({ userId, network, boundTo }) {
      const nowMs = clock.now();
      const id = newId("ses", nowMs);
      const expiresAtMs = nowMs + ttlSeconds * 1000;
      const session = { id, userId, createdAtMs: nowMs, lastUsedAtMs: nowMs, expiresAtMs, network, boundTo };
      const refreshToken = newRefreshToken();
      await store.write([
        await changeSession(session, undefined),
        await changeToken(tokenKey(refreshToken), session, false, undefined),
        await byUser.changeOf(`${userId}.${id}`, {}, { lifetime: lifeOf(session) }),
      ]);
      // After the opening, so that of many at once the last one sees them all.
      const ids = await idsOf(userId);
      const others = ids.filter((other) => other !== id);
      const displaced = others.slice(0, Math.max(0, ids.length - SESSIONS_MAX));
      for (const old of displaced) await end({ id: old, userId });
      return { session, refreshToken, displaced };
    },

    async refresh(refreshToken, { network, proved }) {
      for (;;) {
        const token = await findToken(refreshToken);
        if (token === undefined) return no("unknown");
        if (token.session === undefined) return no("ended");
        const session = token.session.value;
        // Before its use is judged: no refresh without the key ends anything. To revoke a token, and so its session, no key is
        // asked for (http/oauth/revoke_route.ts).
        if (session.boundTo !== proved) return no("key_wrong");
        if (token.isUsed) {
          await end(session);
          return { ok: false, reason: "reused", session };
        }
        const used = { ...session, lastUsedAtMs: clock.now(), network };
        const next = newRefreshToken();
        const made = await store.write([
          await changeToken(token.key, session, true, token.version),
          await changeToken(tokenKey(next), session, false, "nothing"),
          await changeSession(used, token.session.version),
        ]);
        if (made) return ok({ session: used, refreshToken: next });
        // Another came between: the next look finds the token used or the session over.
      }
    },

    async inspect(refreshToken) {
      const token = await findToken(refreshToken);
      return token === undefined || token.isUsed ? undefined : token.session?.value;
    },

    async list(userId) {
      const found = await Promise.all((await idsOf(userId)).map(read));
      return found.flatMap((kept) => kept === undefined ? [] : [kept.value]);
    },

    read: async (sessionId) => (await read(sessionId))?.value,
    end,

    async endAll(userId) {
      for (let count = 0;;) {
        const ids = await idsOf(userId);
        if (ids.length === 0) return count;
        for (const id of ids) await end({ id, userId });
        count += ids.length;
      }
    },
  };
}

function newRefreshToken(): string {
  return `prt_${encodeBase64url(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)))}`;
}

/** Whatever belongs to a session is gone when it expires. */
function lifeOf({ expiresAtMs }: Session): RecordLifetime {
  return { expiresAtMs };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
function parseSession(value: JsonValue): Session {
  const { id, userId, createdAtMs, lastUsedAtMs, expiresAtMs, network, boundTo } = (value ?? {}) as Record<
    string,
    JsonValue
  >;
  if (
    typeof id !== "string" || typeof userId !== "string" || typeof createdAtMs !== "number" ||
    typeof lastUsedAtMs !== "number" || typeof expiresAtMs !== "number" || typeof network !== "string" ||
    (boundTo !== null && typeof boundTo !== "string")
  ) throw new Fault("unavailable", "Cannot read a session: the record has no known form");
  return { id, userId, createdAtMs, lastUsedAtMs, expiresAtMs, network, boundTo };
}

function parseToken(value: JsonValue): { readonly sessionId: string; readonly used: boolean } {
  const { sessionId, used } = (value ?? {}) as Record<string, JsonValue>;
  if (typeof sessionId !== "string" || typeof used !== "boolean") {
    throw new Fault("unavailable", "Cannot read a refresh token: the record has no known form");
  }
  return { sessionId, used };
}
