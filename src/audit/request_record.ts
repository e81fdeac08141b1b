// Request record: what one request leaves in the audit trail. One verdict a request, and an outcome for each start.
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

/** Every method resolves when the record is durable and throws Fault `unavailable` when it cannot be made so. */
export class RequestRecord {
  readonly #trail: AuditTrail;
  readonly #identity: RequestIdentity;
  #subject: string | null = null;
  #credential: string | null = null;
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
    return this.#subject;
  }

  /** Names the principal for all records to come. */
  identify(subject: string, credential: string): void {
    this.#subject = subject;
    this.#credential = credential;
  }

  async sessionStarted(expiresAtSeconds: number): Promise<void> {
    await this.#trail.record({ type: "session.started", ...this.#requester(), expiresAtSeconds });
    this.#verdictRecorded = true;
  }

  /** @param account a pseudonym of the name that was tried */
  async sessionRefused(account: string, reason: string): Promise<void> {
    await this.#trail.record({ type: "session.refused", ...this.#requester(), account, reason });
    this.#verdictRecorded = true;
  }

  async sessionEnded(): Promise<void> {
    await this.#trail.record({ type: "session.ended", ...this.#requester() });
    this.#verdictRecorded = true;
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

  #requester(): RequestIdentity & { readonly subject: string | null; readonly credential: string | null } {
    return { ...this.#identity, subject: this.#subject, credential: this.#credential };
  }
}
