// Audit event: the closed set of what the trail can hold, with every field. No token, password, key or vector is ever in one, and no
// prompt or answer but sealed.
import type { JsonValue } from "../encoding/canonical_json.ts";

/** For how long an event is kept: those about who did what to the server longer than those about its use. */
export type EventClass = "security" | "activity";

/** One field of an event. docs/audit.md says the same, and a test compares. */
export interface EventField<Value = unknown> {
  /** What its value can be, in words. */
  readonly form: string;
  readonly meaning: string;
  fits(value: unknown): value is Value;
}

/** One type of event. */
export interface EventRow<Fields extends Readonly<Record<string, EventField>> = Record<string, EventField>> {
  readonly meaning: string;
  readonly fields: Fields;
}

const isText = (value: unknown): value is string => typeof value === "string";
const isWhole = (value: unknown): value is number => Number.isSafeInteger(value);

function text(meaning: string): EventField<string> {
  return { form: "text", meaning, fits: isText };
}

function textOrNull(meaning: string): EventField<string | null> {
  return { form: "text or null", meaning, fits: (value) => value === null || isText(value) };
}

function texts(meaning: string): EventField<readonly string[]> {
  return { form: "texts", meaning, fits: (value) => Array.isArray(value) && value.every(isText) };
}

function whole(meaning: string): EventField<number> {
  return { form: "whole number", meaning, fits: isWhole };
}

function wholeOrNull(meaning: string): EventField<number | null> {
  return { form: "whole number or null", meaning, fits: (value) => value === null || isWhole(value) };
}

function flag(meaning: string): EventField<boolean> {
  return { form: "true or false", meaning, fits: (value) => typeof value === "boolean" };
}

function oneOf<const Word extends string>(words: readonly Word[], meaning: string): EventField<Word> {
  return {
    form: words.map((word) => `"${word}"`).join(" or "),
    meaning,
    fits: (value): value is Word => (words as readonly unknown[]).includes(value),
  };
}

function someOf<const Word extends string>(
  words: readonly Word[],
  meaning: string,
): EventField<readonly Word[]> {
  const { form, fits } = oneOf(words, meaning);
  return { form: `some of ${form}`, meaning, fits: (value) => Array.isArray(value) && value.every(fits) };
}

function json(meaning: string): EventField<JsonValue> {
  return { form: "any JSON", meaning, fits: (value): value is JsonValue => value !== undefined };
}

function event<Fields extends Readonly<Record<string, EventField>>>(
  meaning: string,
  fields: Fields,
): EventRow<Fields> {
  return { meaning, fields };
}

/** Who asked and from where, as far as it is known when the event happens. */
export const REQUESTER = {
  request: text("The request's id, as answered in `X-Request-Id`."),
  issuer: textOrNull(
    "Who: issuer and subject together are the identity (RFC 7519 §4.1.2); null before anyone is known.",
  ),
  subject: textOrNull("Plain or as a keyed pseudonym, as the settings say; null before anyone is known."),
  team: textOrNull("The team that the subject belongs to at this moment."),
  credential: textOrNull(
    "The id of the credential (a token's `jti`, a key's id), never the credential; null where none was accepted.",
  ),
  address: text("The client's address, plain or as a keyed pseudonym, as the settings say."),
  route: text("The route's template, such as `POST /v1/embeddings`; never the path that was sent."),
};

const AGENT = textOrNull(
  "What the client calls itself (`User-Agent`): at most 200 characters, nothing invisible, what looks like a secret masked.",
);

function ofRequest<Fields extends Readonly<Record<string, EventField>>>(
  meaning: string,
  fields: Fields,
): EventRow<typeof REQUESTER & Fields> {
  return { meaning, fields: { ...REQUESTER, ...fields } };
}

const SUBJECT_OF_INFERENCE = {
  model: text("The id that was asked for, never an alias."),
  task: text("What it is to do, such as `chat`."),
  sha256: textOrNull("Digest of the weights; null for a model that an upstream serves."),
  items: whole("Texts, messages, prompts, documents or tensors."),
};

const OUTCOME_OF_INFERENCE = {
  model: text("The id that was asked for, never an alias."),
  sha256: textOrNull("Digest of the weights that it ran on last; null for a model that an upstream serves."),
  outcome: text('"completed", or the code of the fault.'),
  inputTokens: whole("Tokens of the input."),
  outputTokens: whole("Tokens of the answer; of a stream that broke off, of what had been sent."),
  countedBy: oneOf(["engine", "estimate"], "Who counted the tokens."),
  servedBy: textOrNull(
    "`UPSTREAM/MODEL` that answered or failed last; null for a model of this process, and where nothing was tried.",
  ),
  attempts: whole("How often it was tried somewhere."),
  durationMs: whole("Milliseconds from the intent to the outcome."),
};

/** Every event there is, by its type. */
export const AUDIT_EVENTS = {
  "server.started": event("The server starts.", {
    version: text("Of the server."),
    mode: text("`development` or `production`."),
    settingsSha256: text("Digest of the settings without the secrets: it tells when they changed."),
  }),
  "server.stopped": event("The server stops.", { reason: text("What made it stop.") }),
  "model.accepted": event("A model's files are what its card and manifest say; it is served.", {
    model: text("Its id."),
    sha256: text("Digest of its weights."),
    signer: textOrNull("The id of the key that signed its manifest; null for a model without one."),
    serial: wholeOrNull("The manifest's serial; null for a model without one."),
  }),
  "model.refused": event("A model is not served.", {
    model: text("Its id."),
    reason: text("Why not."),
  }),
  "key.changed": event(
    "A step in the life of a key that is no `object.changed`: durable before it is taken. Never the key.",
    {
      kind: oneOf(["master", "data", "audit_signing", "audit_sealing", "payload"], "What the key is for."),
      key: text("Its id."),
      change: oneOf(["made", "rewrapped", "destroyed"], "The step."),
    },
  ),
  "trail.thinned": event(
    "Old entries are taken out of a segment, their hashes stay: durable before they go.",
    {
      segment: whole("The segment's number."),
      first: whole("Number of the segment's first entry."),
      last: whole("Number of its last entry."),
      removed: whole("How many entries go."),
      classes: someOf(["security", "activity"], "Of which classes they are."),
    },
  ),
  "user.created": event("The first user is made, at the first start.", {
    subject: text("Its id, always plain."),
    roles: texts("Its roles."),
    actor: text("`first start`."),
  }),
  "command.changed": event(
    "A change without a request: by a command on the data folder while no server ran on it, or by the settings at a start.",
    {
      command: text("The command; or `first start`, `settings`."),
      object: text("Kind and id, such as `user/usr_…`, always plain."),
      before: json("What stood there; nothing secret. null: nothing."),
      after: json("What is to stand there; nothing secret. null: nothing."),
    },
  ),
  "session.started": ofRequest("Somebody signed in: durable before the tokens leave.", {
    agent: AGENT,
    session: text("The session's id."),
    displaced: texts("Older sessions of the same user that had to end for it."),
    expiresAtSeconds: whole("When the session ends at the latest, seconds since 1970."),
  }),
  "session.refused": ofRequest("Somebody could not sign in.", {
    agent: AGENT,
    account: text("A keyed pseudonym of the name that was tried."),
    reason: text("Why; the caller is not told."),
  }),
  "session.ended": ofRequest("A session was ended by whom it belongs to.", {
    session: textOrNull("The session's id; null for a token that belongs to none."),
  }),
  "session.reuse_detected": ofRequest(
    "An old refresh token came again: somebody has a copy, and the session is over (RFC 9700 §4.14.2).",
    { session: text("The session's id.") },
  ),
  "token.issued": ofRequest(
    "A token for a session or for a client: durable before it leaves. Where a refusal of the same request follows, it did not.",
    {
      agent: AGENT,
      grant: oneOf(["client_credentials", "refresh_token"], "How it was asked for."),
      session: textOrNull("The session that it belongs to; null for a client's."),
      expiresAtSeconds: whole("When it expires, seconds since 1970."),
      bound: flag("Whether it is worth something only together with a proof (RFC 9449)."),
    },
  ),
  "object.changed": ofRequest(
    "An intended change of something that is administered, durable before it is made. Where a refusal of the same request " +
      "follows, it was not made.",
    {
      action: text("What it takes to do it, such as `user:write`."),
      object: text("Kind and id, such as `user/usr_…`."),
      before: json("What stood there; nothing secret. null: nothing."),
      after: json("What is to stand there; nothing secret. null: nothing."),
    },
  ),
  "address.banned": event(
    "An address is refused from now on: durable before it is. What an admin bans or lifts is an `object.changed`.",
    {
      ban: text("The ban's id."),
      address: text("Plain or as a keyed pseudonym, as the settings say."),
      trigger: oneOf(["credentials", "validation", "probes"], "What it did too often."),
      request: text("The request that was the last straw."),
      untilSeconds: wholeOrNull("Seconds since 1970; null: for good."),
    },
  ),
  "audit.read": ofRequest("Somebody reads the trail: durable before the first entry is given.", {
    form: oneOf(["page", "jsonl", "csv", "payload"], "How it is given."),
    query: json("What was looked for."),
  }),
  "request.allowed": ofRequest("An allowed request that runs no model.", {
    action: text("What it takes to do it."),
    object: textOrNull("Kind and id of what was read; null: a list, or the server as a whole."),
  }),
  "request.refused": ofRequest("A refused request.", {
    agent: AGENT,
    status: whole("Of the answer."),
    code: text("The problem's code, as answered."),
    reason: text("Why; the caller is told less."),
  }),
  "inference.started": ofRequest("The intent: durable before the model runs.", {
    ...SUBJECT_OF_INFERENCE,
    decision: oneOf(["allowed"], "A refused one is a `request.refused`."),
  }),
  "inference.rerouted": ofRequest("Another model takes over: durable before it runs.", {
    model: text("The id that was asked for."),
    to: text("The one that takes over."),
    reason: text("The code of the fault that the one before ended with."),
  }),
  "inference.payload": ofRequest(
    "A piece of what a model was asked or answered, sealed under the key of its subject. Only where the settings say so.",
    {
      model: text("The model that it was sent to or came from."),
      part: oneOf(["input", "output"], "What it is a piece of."),
      piece: whole("From 0."),
      pieces: whole("How many there are of this part."),
      cut: flag("Whether the rest was too long to be kept."),
      key: text("The id of the key, as in `key.changed`."),
      sealed: text("The sealed piece, base64url."),
    },
  ),
  "inference.finished": ofRequest(
    "The outcome: exactly one for each `inference.started` of the same request.",
    OUTCOME_OF_INFERENCE,
  ),
  "inference.interrupted": ofRequest(
    "Stands in place of the outcome of an inference whose server ended under it, or that did not run because its intent became durable too late.",
    {
      model: text("The id that was asked for."),
      intent: whole("The number of its `inference.started`."),
      reason: oneOf(
        ["server_ended", "not_acknowledged"],
        "The server ended meanwhile (recorded at the next start); or the trail answered too late, the request was refused and no model ran.",
      ),
    },
  ),
};

type ValuesOf<Fields> = {
  readonly [Name in keyof Fields]: Fields[Name] extends EventField<infer Value> ? Value : never;
};

/** A type of event. */
export type AuditEventType = keyof typeof AUDIT_EVENTS;

/** What can be recorded. */
export type AuditEvent = {
  [Type in AuditEventType]: { readonly type: Type } & ValuesOf<(typeof AUDIT_EVENTS)[Type]["fields"]>;
}[AuditEventType];

/** What an inference is about. */
export type InferenceSubject = ValuesOf<typeof SUBJECT_OF_INFERENCE>;

/** What became of an inference. */
export type InferenceOutcome = ValuesOf<typeof OUTCOME_OF_INFERENCE>;
