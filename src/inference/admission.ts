// Admission: whether one inference may run now, by all limits in one decision, and what it really used of them afterwards.
import type { Principal } from "../access/principal.ts";
import type { ChatRequest, CompletionRequest } from "../engines/chat.ts";
import type { TaskRequest } from "../engines/task.ts";
import type { Usage } from "../engines/usage.ts";
import { newId } from "../encoding/ids.ts";
import type { Rate } from "../limits/gcra.ts";
import {
  applies,
  type LimitedWork,
  limitsOf,
  type LimitView,
  type NamedLimit,
  type ReadyPolicy,
  requestLimit,
  type WorkAmounts,
} from "../limits/limit_policy.ts";
import type { Limiter } from "../limits/limiter.ts";
import { limitFault } from "../limits/limit_fault.ts";
import { amountsOf, costOf, NO_USE, usageTallies, type UsedAmounts } from "../limits/usage_book.ts";
import type { ServedModel } from "../registry/served_model.ts";
import type { Clock } from "../time/clock.ts";
import { countTokens } from "./count_tokens.ts";
import { answersOf, inputTokensOf } from "./settlement.ts";

/** Who asks. */
export interface AdmissionContext {
  readonly principal: Principal;
  /** Text of the client's network. */
  readonly network: string;
  /** A moment of `Clock.monotonic()`, milliseconds. */
  readonly deadlineMs: number;
  /** Told what was decided, also of a refusal and before it is thrown; for the answer's headers. */
  readonly tellLimits: (views: readonly LimitView[]) => void;
}

/** A model, and the request as that model may run it. */
export interface Candidate<Request extends TaskRequest = TaskRequest> {
  readonly model: ServedModel;
  readonly request: Request;
}

/** The model that was asked for, then those that may stand in for it. */
export type Candidates<Request extends TaskRequest = TaskRequest> = readonly [
  Candidate<Request>,
  ...Candidate<Request>[],
];

/** An inference that was let in. */
export interface Admitted {
  /** The candidates that may run: the one that was asked for, and the stand-ins whose own limits allow it. */
  readonly models: readonly ServedModel[];
  /** The request as it was reserved for: with a bound on its output, where its tokens are limited and it names none. */
  bound<Request extends TaskRequest>(request: Request): Request;
  /**
   * What it used; once, whatever became of it. Never throws, never waits.
   *
   * @param usage null: nothing is charged
   * @param ranOn the candidate that answered, or was the last to be tried
   */
  settle(usage: Usage | null, ranOn: ServedModel): void;
}

/** Lets inferences in. */
export interface Admission {
  /**
   * Takes from every limit that applies to one of the candidates, or from none. Of each as much as the dearest of those that
   * it is about may take. A stand-in whose own limits refuse does not stand in, and nothing more.
   *
   * @throws Fault `rate_limited`, `budget_exhausted` · `unavailable` when a limit that is closed then cannot be asked
   */
  admit(context: AdmissionContext, candidates: Candidates): Promise<Admitted>;
}

/** What is reserved for the output of a request that names no bound, on a model that has none: and so its bound. */
const OUTPUT_TOKENS_ASSUMED = 4096;
/** Our count of the input is an estimate (`count_tokens.ts` has its errors). */
const INPUT_MARGIN = 1.25;
const INPUT_TOKENS_MORE = 16;
/** What is reserved for a picture that is made: of 1024 pixels a side, in the middle quality. */
const PICTURE_TOKENS = 1000;
/** What is reserved for a file of sound, whose length nobody knows before it has passed: minutes of it. */
const SOUND_FILE_TOKENS = 1000;
const ONE_REQUEST: UsedAmounts = { ...NO_USE, requests: 1 };

/** A place is given back by its taker at the deadline at the latest; if that one died, so long after it. */
const PLACE_GRACE_MS = 60_000;

/**
 * @param options.userRate of each user's requests
 * @param options.placesPerUser inferences of one user under way at once
 */
export function openAdmission(options: {
  readonly limiter: Limiter;
  readonly policies: readonly ReadyPolicy[];
  readonly userRate: Rate;
  readonly placesPerUser: number;
  readonly clock: Clock;
}): Admission {
  const { limiter, policies, clock } = options;
  const admission: Admission = {
    async admit(context, candidates) {
      const { principal } = context;
      const [{ model: askedModel, request: asked }] = candidates;
      const nowMs = clock.now();
      const works = policies.length === 0 ? [] : candidates.map(({ model, request }) => {
        const work = workOf(context, model);
        return { model, request, work, applying: policies.filter((policy) => applies(policy, work)) };
      });
      // To count the tokens of a long input costs; where no limit asks for them nobody does.
      const countsTokens = works.some(({ applying }) => applying.some((policy) => policy.countsTokens));
      const bound = countsTokens ? boundFor(asked, askedModel) : asItIs;
      const inputTokens = countsTokens ? inputReservedFor(asked) : 0;
      const heldMs = Math.max(1, Math.ceil(context.deadlineMs - clock.monotonic())) + PLACE_GRACE_MS;
      const { user, key } = workOf(context, askedModel);
      const models = candidates.map(({ model }) => model);
      const all: ModelLimit[] = ownLimits(user, options.userRate, options.placesPerUser, heldMs).map(
        (limit) => ({ limit, models }),
      );
      for (const { model, request, work, applying } of works) {
        const reserved = countsTokens ? reservedFor(bound(request), inputTokens, model) : ONE_REQUEST;
        const amounts = amountsOf(reserved);
        for (const policy of applying) {
          for (const limit of limitsOf(policy, work, amounts, heldMs, nowMs)) addLimit(all, limit, model);
        }
      }
      const limits = all.map(({ limit }) => limit);
      const hold = newId("hld", nowMs);
      const taken = limiter.take(hold, limits);
      const decisions = taken instanceof Promise ? await taken : taken;
      const views = limits.flatMap((limit, index) => {
        const decision = decisions[index];
        return decision === undefined ? [] : [{ limit, decision }];
      });
      const refused = limitFault(views);
      if (refused !== undefined) {
        const refusing = all.filter((_, index) => decisions[index]?.allowed === false);
        const isRefused = (model: ServedModel) => refusing.some(({ models }) => models.includes(model));
        if (!isRefused(askedModel)) {
          const [first, ...standIns] = candidates;
          return await admission.admit(context, [
            first,
            ...standIns.filter(({ model }) => !isRefused(model)),
          ]);
        }
      }
      context.tellLimits(views);
      if (refused !== undefined) throw refused;

      let isSettled = false;
      return {
        models,
        bound,
        settle(usage, ranOn) {
          if (isSettled) return;
          isSettled = true;
          const used: UsedAmounts = usage === null ? NO_USE : usedOf(usage, ranOn);
          const amounts = amountsOf(used);
          limiter.settle(
            hold,
            all.map((each) => ({
              cell: each.limit.cell,
              used: usedOfLimit(each, amounts, askedModel, ranOn),
            })),
            usageTallies(
              {
                team: principal.team,
                issuer: principal.issuer,
                subject: principal.subject,
                key: key ?? "",
                model: askedModel.id,
              },
              used,
              clock.now(),
            ),
          );
        },
      };
    },
  };
  return admission;
}

/** A limit, and those of the candidates that it is about. */
interface ModelLimit {
  readonly limit: NamedLimit;
  readonly models: readonly ServedModel[];
}

/** Adds what limits a candidate. One that is about others before it as well stays one, of the larger amount. */
function addLimit(all: ModelLimit[], limit: NamedLimit, model: ServedModel): void {
  const at = all.findIndex(({ limit: { cell, name } }) => name === limit.name && cell.key === limit.cell.key);
  const there = all[at];
  if (there === undefined) all.push({ limit, models: [model] });
  else all[at] = { limit: larger(there.limit, limit), models: [...there.models, model] };
}

function larger(one: NamedLimit, other: NamedLimit): NamedLimit {
  return one.cell.kind === "place" || other.cell.kind === "place" || one.cell.amount >= other.cell.amount
    ? one
    : other;
}

/** The limits that each user has by settings of their own. */
function ownLimits(
  user: string,
  rate: Rate,
  places: number,
  heldMs: number,
): readonly NamedLimit[] {
  return [requestLimit("user", user, rate, "degraded"), {
    name: "at-once",
    unit: "places",
    isShared: false,
    windowSeconds: 0,
    whenStoreFails: "degraded",
    fixed: false,
    cell: { kind: "place", key: `at-once/${user}`, quota: places, heldMs },
  }];
}

function workOf({ principal, network }: AdmissionContext, model: ServedModel): LimitedWork {
  const { issuer, subject, team, roles, credential } = principal;
  return {
    address: network,
    user: `${issuer} ${subject}`,
    team,
    roles,
    key: credential.kind === "api_key" ? credential.id : null,
    model: model.id,
  };
}

/** A rate of requests counts attempts, also on the model that was asked for; all else counts what ran, and where. */
function usedOfLimit(
  { limit: { cell, unit }, models }: ModelLimit,
  used: WorkAmounts,
  asked: ServedModel,
  ranOn: ServedModel,
): number {
  if (cell.kind === "place") return 0;
  if (cell.kind === "rate" && unit === "requests") {
    return models.includes(asked) || models.includes(ranOn) ? cell.amount : 0;
  }
  return models.includes(ranOn) ? used[unit === "places" ? "requests" : unit] : 0;
}

function usedOf({ inputTokens, outputTokens }: Usage, { prices }: ServedModel): UsedAmounts {
  return { requests: 1, inputTokens, outputTokens, cost: costOf(prices, inputTokens, outputTokens) };
}

function reservedFor(request: TaskRequest, inputTokens: number, { prices }: ServedModel): UsedAmounts {
  const outputTokens = outputTokensMaxOf(request);
  return { requests: 1, inputTokens, outputTokens, cost: costOf(prices, inputTokens, outputTokens) };
}

function inputReservedFor(request: TaskRequest): number {
  return withMargin(inputTokensOf(request)) + (request.task === "transcription" ? SOUND_FILE_TOKENS : 0);
}

/** Of all answers together; 0 where nothing is generated. */
function outputTokensMaxOf(request: TaskRequest): number {
  if (request.task === "image") return request.images * PICTURE_TOKENS;
  if (request.task !== "chat" && request.task !== "completion") return 0;
  return answersOf(request) * (request.outputTokensMax ?? OUTPUT_TOKENS_ASSUMED);
}

/** What input of so many tokens by our count is at most by the engine's. */
function withMargin(counted: number): number {
  return counted === 0 ? 0 : Math.ceil(counted * INPUT_MARGIN) + INPUT_TOKENS_MORE;
}

/**
 * What is reserved is what may be generated, also by a model that stands in: only so can no request take more than the limits
 * have left.
 */
function boundFor(
  asked: TaskRequest,
  model: ServedModel,
): <Request extends TaskRequest>(request: Request) => Request {
  if (asked.task !== "chat" && asked.task !== "completion") return (request) => request;
  const outputMax = asked.outputTokensMax ?? Math.min(OUTPUT_TOKENS_ASSUMED, roomForOutput(asked, model));
  return (request) =>
    (request.task === "chat" || request.task === "completion") &&
      (request.outputTokensMax ?? Infinity) > outputMax
      ? { ...request, outputTokensMax: outputMax }
      : request;
}

/** What the context leaves beside the input: engines refuse a bound that goes beyond it. */
function roomForOutput(request: ChatRequest | CompletionRequest, { limits }: ServedModel): number {
  if (limits.contextTokensMax === null) return Infinity;
  const inputTokens = request.task === "chat"
    ? inputTokensOf(request)
    : Math.max(...request.prompts.map(countTokens)) + countTokens(request.suffix ?? "");
  return Math.max(1, limits.contextTokensMax - withMargin(inputTokens));
}

function asItIs<Request extends TaskRequest>(request: Request): Request {
  return request;
}
