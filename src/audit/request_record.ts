// Request record: what one request leaves in the audit trail. One verdict a request, and an outcome for each start.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { FAULT_TABLE } from "../faults/fault_table.ts";
import type { AuditEvent, InferenceOutcome, InferenceSubject } from "./audit_event.ts";
import type { AuditTrail } from "./audit_trail.ts";
import { clientAgent } from "./client_agent.ts";
import type { SealedPayload } from "./payload/payload_seal.ts";
import { PLAIN_SUBJECTS, type SubjectLabels } from "./subject_labels.ts";

/** What is known of a request before anyone is recognised. */
export interface RequestIdentity {
  readonly request: string;
  /** Plain or a pseudonym, as the settings say. */
  readonly address: string;
  /** The route's template. */
  readonly route: string;
}

/** Who was recognised. */
export interface RecordedCaller {
  readonly issuer: string;
  readonly subject: string;
  /** null where nobody knows any more. */
  readonly team: string | null;
  /** The id of the credential. */
  readonly credential: string;
}

/** Pieces of payloads that go to the trail together: a large one must not fill up its room for what waits. */
const PIECES_AT_ONCE_MAX = 8;

const NOBODY = { issuer: null, subject: null, team: null, credential: null } as const;

/** Every method resolves when the record is durable and throws Fault `unavailable` when it cannot be made so. */
export class RequestRecord {
  readonly #trail: AuditTrail;
  readonly #identity: RequestIdentity;
  readonly #subjects: SubjectLabels;
  readonly #headers: Pick<Headers, "get"> | undefined;
  #subject: string | null = null;
  #caller: RecordedCaller | typeof NOBODY = NOBODY;
  #verdictRecorded = false;

  /**
   * @param subjects how subjects stand in the trail
   * @param headers of the request: what its client calls itself is read where it is recorded, and only there
   */
  constructor(
    trail: AuditTrail,
    identity: RequestIdentity,
    subjects: SubjectLabels = PLAIN_SUBJECTS,
    headers?: Pick<Headers, "get">,
  ) {
    this.#trail = trail;
    this.#identity = identity;
    this.#subjects = subjects;
    this.#headers = headers;
  }

  /** Whether the trail knows already what became of this request. */
  get verdictRecorded(): boolean {
    return this.#verdictRecorded;
  }

  /** The request's id. */
  get request(): string {
    return this.#identity.request;
  }

  /** The principal's id, once there is one; always plain. */
  get subject(): string | null {
    return this.#subject;
  }

  /** Names the caller for all records to come. */
  identify({ issuer, subject, team, credential }: RecordedCaller): void {
    const label = this.#subjects.subject(issuer, subject);
    this.#subject = subject;
    // A client that proves itself is its own credential.
    this.#caller = { issuer, subject: label, team, credential: credential === subject ? label : credential };
  }

  /** @param started.displaced ids of older sessions that had to end for it */
  async sessionStarted(
    started: {
      readonly session: string;
      readonly displaced: readonly string[];
      readonly expiresAtSeconds: number;
    },
  ): Promise<void> {
    await this.#trail.record({
      type: "session.started",
      ...this.#requester(),
      agent: this.#agent(),
      ...started,
    });
    this.#verdictRecorded = true;
  }

  /** @param account a pseudonym of the name that was tried */
  async sessionRefused(account: string, reason: string): Promise<void> {
    await this.#trail.record({
      type: "session.refused",
      ...this.#requester(),
      agent: this.#agent(),
      account,
      reason,
    });
    this.#verdictRecorded = true;
  }

  /** @param session null for a token that belongs to none */
  async sessionEnded(session: string | null): Promise<void> {
    await this.#trail.record({ type: "session.ended", ...this.#requester(), session });
    this.#verdictRecorded = true;
  }

  /** A fact besides the verdict: the request is refused as well. */
  async reuseDetected(session: string): Promise<void> {
    await this.#trail.record({ type: "session.reuse_detected", ...this.#requester(), session });
  }

  /** An intent and no verdict: where the session turns out to be over, a refusal stands behind it. */
  async tokenIssued(
    issued: {
      readonly grant: "client_credentials" | "refresh_token";
      readonly session: string | null;
      readonly expiresAtSeconds: number;
      readonly bound: boolean;
    },
  ): Promise<void> {
    await this.#trail.record({ type: "token.issued", ...this.#requester(), agent: this.#agent(), ...issued });
  }

  /** An intent and no verdict: a change that then cannot be made leaves a refusal behind it. */
  async changing(action: string, object: string, before: JsonValue, after: JsonValue): Promise<void> {
    const { within } = this.#subjects;
    await this.#trail.record({
      type: "object.changed",
      ...this.#requester(),
      action,
      object: within(object),
      before: within(before),
      after: within(after),
    });
  }

  async allowed(action: string, object: string | null): Promise<void> {
    const { within } = this.#subjects;
    await this.#trail.record({
      type: "request.allowed",
      ...this.#requester(),
      action,
      object: within(object),
    });
    this.#verdictRecorded = true;
  }

  async refused(status: number, code: string, reason: string): Promise<void> {
    await this.#trail.record({
      type: "request.refused",
      ...this.#requester(),
      agent: this.#agent(),
      status,
      code,
      reason: this.#subjects.within(reason),
    });
    this.#verdictRecorded = true;
  }

  /**
   * Durable before the first entry is given. No other verdict follows.
   *
   * @param query what was looked for; subjects of other issuers are to be labelled already
   */
  async reading(form: "page" | "jsonl" | "csv" | "payload", query: JsonValue): Promise<void> {
    const { within } = this.#subjects;
    await this.#trail.record({ type: "audit.read", ...this.#requester(), form, query: within(query) });
    this.#verdictRecorded = true;
  }

  /** @param input what the model is asked, where that is kept */
  async inferenceStarted(subject: InferenceSubject, input?: SealedPayload): Promise<void> {
    await this.#recordWith(input, {
      type: "inference.started",
      ...this.#requester(),
      ...subject,
      decision: "allowed",
    });
    this.#verdictRecorded = true;
  }

  /**
   * @param reason the code of the fault that the model ended with
   * @param input what the other model is asked, where that is kept
   */
  async inferenceRerouted(model: string, to: string, reason: string, input?: SealedPayload): Promise<void> {
    await this.#recordWith(input, { type: "inference.rerouted", ...this.#requester(), model, to, reason });
  }

  /** @param output what was answered, where that is kept */
  async inferenceFinished(outcome: InferenceOutcome, output?: SealedPayload): Promise<void> {
    const event = { type: "inference.finished", ...this.#requester(), ...outcome } as const;
    await this.#recordWith(output, event, { ...event, outcome: FAULT_TABLE.unavailable.code });
  }

  /**
   * An event and the payload that belongs to it: the last pieces go in one batch with the event, and none comes after it.
   *
   * @param ifRefused what stands in place of an outcome whose payload could not be recorded: it did not leave as it was to
   */
  async #recordWith(
    payload: SealedPayload | undefined,
    event: AuditEvent,
    ifRefused?: AuditEvent,
  ): Promise<void> {
    if (payload === undefined) return await this.#trail.record(event);
    const events = this.#piecesOf(payload);
    while (events.length > PIECES_AT_ONCE_MAX) {
      try {
        await this.#trail.recordAll(events.splice(0, PIECES_AT_ONCE_MAX));
      } catch (thrown) {
        // Where this is refused as well, the trail owes it to the intent.
        if (ifRefused !== undefined) await this.#trail.record(ifRefused).catch(() => {});
        throw thrown;
      }
    }
    await this.#trail.recordAll([...events, event], ifRefused);
  }

  #piecesOf({ model, part, key, cut, pieces }: SealedPayload): AuditEvent[] {
    return pieces.map((sealed, piece) => ({
      type: "inference.payload",
      ...this.#requester(),
      model,
      part,
      piece,
      pieces: pieces.length,
      cut,
      key,
      sealed,
    }));
  }

  #agent(): string | null {
    return clientAgent(this.#headers?.get("user-agent") ?? null);
  }

  #requester(): RequestIdentity & (RecordedCaller | typeof NOBODY) {
    return { ...this.#identity, ...this.#caller };
  }
}
