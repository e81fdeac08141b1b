// Request record: what one request leaves in the audit trail. One verdict a request, and an outcome for each start.
import type { JsonValue } from "../encoding/canonical_json.ts";
import type { InferenceOutcome, InferenceSubject } from "./audit_event.ts";
import type { AuditTrail } from "./audit_trail.ts";

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

const NOBODY = { issuer: null, subject: null, team: null, credential: null } as const;

/** Every method resolves when the record is durable and throws Fault `unavailable` when it cannot be made so. */
export class RequestRecord {
  readonly #trail: AuditTrail;
  readonly #identity: RequestIdentity;
  #caller: RecordedCaller | typeof NOBODY = NOBODY;
  #verdictRecorded = false;

  constructor(trail: AuditTrail, identity: RequestIdentity) {
    this.#trail = trail;
    this.#identity = identity;
  }

  /** Whether the trail knows already what became of this request. */
  get verdictRecorded(): boolean {
    return this.#verdictRecorded;
  }

  /** The principal's id, once there is one. */
  get subject(): string | null {
    return this.#caller.subject;
  }

  /** Names the caller for all records to come. */
  identify({ issuer, subject, team, credential }: RecordedCaller): void {
    this.#caller = { issuer, subject, team, credential };
  }

  /** @param started.displaced ids of older sessions that had to end for it */
  async sessionStarted(
    started: {
      readonly session: string;
      readonly displaced: readonly string[];
      readonly expiresAtSeconds: number;
    },
  ): Promise<void> {
    await this.#trail.record({ type: "session.started", ...this.#requester(), ...started });
    this.#verdictRecorded = true;
  }

  /** @param account a pseudonym of the name that was tried */
  async sessionRefused(account: string, reason: string): Promise<void> {
    await this.#trail.record({ type: "session.refused", ...this.#requester(), account, reason });
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
    await this.#trail.record({ type: "token.issued", ...this.#requester(), ...issued });
  }

  /** An intent and no verdict: a change that then cannot be made leaves a refusal behind it. */
  async changing(action: string, object: string, before: JsonValue, after: JsonValue): Promise<void> {
    await this.#trail.record({ type: "object.changed", ...this.#requester(), action, object, before, after });
  }

  async allowed(action: string, object: string | null): Promise<void> {
    await this.#trail.record({ type: "request.allowed", ...this.#requester(), action, object });
    this.#verdictRecorded = true;
  }

  async refused(status: number, code: string, reason: string): Promise<void> {
    await this.#trail.record({ type: "request.refused", ...this.#requester(), status, code, reason });
    this.#verdictRecorded = true;
  }

  async inferenceStarted(subject: InferenceSubject): Promise<void> {
    await this.#trail.record({ type: "inference.started", ...this.#requester(), ...subject });
    this.#verdictRecorded = true;
  }

  /** @param reason the code of the fault that the model ended with */
  async inferenceRerouted(model: string, to: string, reason: string): Promise<void> {
    await this.#trail.record({ type: "inference.rerouted", ...this.#requester(), model, to, reason });
  }

  async inferenceFinished(outcome: InferenceOutcome): Promise<void> {
    await this.#trail.record({ type: "inference.finished", ...this.#requester(), ...outcome });
  }

  #requester(): RequestIdentity & (RecordedCaller | typeof NOBODY) {
    return { ...this.#identity, ...this.#caller };
  }
}
