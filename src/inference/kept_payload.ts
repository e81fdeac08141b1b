// Kept payload: what of one inference goes sealed to the trail, where a policy of the settings says that it is kept.
import type { Principal } from "../access/principal.ts";
import type { PayloadKey, PayloadPart, SealedPayload } from "../audit/payload/payload_seal.ts";
import { sealPayload } from "../audit/payload/payload_seal.ts";
import type { ChatEvent } from "../engines/chat.ts";
import type { TaskRequest, WholeAnswer, WholeTask } from "../engines/task.ts";
import { answerText, requestText } from "./payload_text.ts";
import { SentAnswer } from "./sent_answer.ts";

/** What is kept, and under which keys. */
export interface PayloadKeeping {
  /** What is kept of a caller's inferences of a model. */
  partsOf(model: string, principal: Principal): readonly PayloadPart[];
  /** Throws Fault `unavailable` where there is none and none can be made. */
  keyOf(issuer: string, subject: string): Promise<PayloadKey>;
}

/** One inference's payload. Models are told as they are tried; whatever one of them is kept of is kept. */
export class KeptPayload {
  readonly #keeping: PayloadKeeping;
  readonly #principal: Principal;
  readonly #request: string;
  readonly #sent = new SentAnswer();
  #answer: string | undefined;
  #inputKept = false;
  #keepsOutput = false;
  #key: PayloadKey | undefined;

  /** @param request the request's id */
  constructor(keeping: PayloadKeeping, principal: Principal, request: string) {
    this.#keeping = keeping;
    this.#principal = principal;
    this.#request = request;
  }

  /** A model is about to run: what it is asked, to be durable before that; undefined where it is not kept, or is already. */
  async input(model: string, request: TaskRequest): Promise<SealedPayload | undefined> {
    const parts = this.#keeping.partsOf(model, this.#principal);
    if (parts.length === 0) return undefined;
    // Also where only the answer is kept: without a key nothing runs.
    const { issuer, subject } = this.#principal;
    this.#key ??= await this.#keeping.keyOf(issuer, subject);
    if (parts.includes("output")) this.#keepsOutput = true;
    if (!parts.includes("input") || this.#inputKept) return undefined;
    this.#inputKept = true;
    return sealPayload(this.#key, { request: this.#request, part: "input", model }, requestText(request));
  }

  /** A whole answer has come. */
  answered<T extends WholeTask>(task: T, answer: WholeAnswer<T>): void {
    if (this.#keepsOutput) this.#answer = answerText(task, answer);
  }

  /** Pieces are sent. */
  sent(items: readonly unknown[]): void {
    if (this.#keepsOutput) this.#sent.add(items as readonly (ChatEvent | Uint8Array)[]);
  }

  /** It is over: what was answered, to be recorded with the outcome; undefined where it is not kept, or was nothing. */
  output(model: string): SealedPayload | undefined {
    const text = this.#answer ?? this.#sent.text();
    if (text === undefined || this.#key === undefined) return undefined;
    const place = { request: this.#request, part: "output", model } as const;
    return sealPayload(this.#key, place, text, this.#answer === undefined && this.#sent.cut);
  }
}
