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
import { inputTokensOf } from "./settlement.ts";

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

/** An inference that was let in. */
export interface Admitted {
  /** The request as it was reserved for: with a bound on its output, where its tokens are limited and it names none. */
  bound<Request extends TaskRequest>(request: Request): Request;
  /**
   * What it used; once, whatever became of it. Never throws, never waits.
   *
   * @param usage null: it did not run, or nothing of it was sent
   */
  settle(usage: Usage | null): void;
}

/** Lets inferences in. */
export interface Admission {
  /**
   * Takes from every limit that applies, or from none.
   *
   * @throws Fault `rate_limited`, `budget_exhausted` · `unavailable` when a limit that is closed then cannot be asked
   */
  admit(context: AdmissionContext, model: ServedModel, request: TaskRequest): Promise<Admitted>;
}

/** What is reserved for the output of a request that names no bound, on a model that has none: and so its bound. */
const OUTPUT_TOKENS_ASSUMED = 4096;
/** Our count of the input is an estimate (`count_tokens.ts` has its errors). */
const INPUT_MARGIN = 1.25;
const INPUT_TOKENS_MORE = 16;
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
  return {
    async admit(context, model, asked) {
      const { principal } = context;
      const work = workOf(context, model);
      const applying = policies.filter((policy) => applies(policy, work));
      // To count the tokens of a long input costs; where no limit asks for them nobody does.
      const countsTokens = applying.some((policy) => policy.countsTokens);
      const bound = countsTokens ? boundFor(asked, model) : asItIs;
      const reserved = countsTokens ? reservedFor(bound(asked), model) : ONE_REQUEST;
      const heldMs = Math.max(1, Math.ceil(context.deadlineMs - clock.monotonic())) + PLACE_GRACE_MS;
      const limits = [
        ...ownLimits(work.user, options.userRate, options.placesPerUser, heldMs),
        ...applying.flatMap((policy) => limitsOf(policy, work, amountsOf(reserved), heldMs, clock.now())),
      ];
      const hold = newId("hld", clock.now());
      const taken = limiter.take(hold, limits);
      const decisions = taken instanceof Promise ? await taken : taken;
      const views = limits.flatMap((limit, index) => {
        const decision = decisions[index];
        return decision === undefined ? [] : [{ limit, decision }];
      });
      context.tellLimits(views);
      const refused = limitFault(views);
      if (refused !== undefined) throw refused;

      let isSettled = false;
      return {
        bound,
        settle(usage) {
          if (isSettled) return;
          isSettled = true;
          const used: UsedAmounts = usage === null ? NO_USE : usedOf(usage, model);
          const amounts = amountsOf(used);
          limiter.settle(
            hold,
            limits.map((limit) => ({ cell: limit.cell, used: usedOfLimit(limit, amounts) })),
            usageTallies(
              {
                team: principal.team,
                issuer: principal.issuer,
                subject: principal.subject,
                key: work.key ?? "",
                model: model.id,
              },
              used,
              clock.now(),
            ),
          );
        },
      };
    },
  };
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

/** A rate counts attempts; a day or month counts what ran. */
function usedOfLimit({ cell, unit }: NamedLimit, used: WorkAmounts): number {
  if (cell.kind === "place") return 0;
  return cell.kind === "rate" && unit === "requests"
    ? cell.amount
    : used[unit === "places" ? "requests" : unit];
}

function usedOf({ inputTokens, outputTokens }: Usage, { prices }: ServedModel): UsedAmounts {
  return { requests: 1, inputTokens, outputTokens, cost: costOf(prices, inputTokens, outputTokens) };
}

function reservedFor(request: TaskRequest, { prices }: ServedModel): UsedAmounts {
  const inputTokens = withMargin(inputTokensOf(request));
  const outputTokens = outputTokensMaxOf(request);
  return { requests: 1, inputTokens, outputTokens, cost: costOf(prices, inputTokens, outputTokens) };
}

/** Of all answers together; 0 where nothing is generated. */
function outputTokensMaxOf(request: TaskRequest): number {
  if (request.task !== "chat" && request.task !== "completion") return 0;
  const answers = request.choices * (request.task === "completion" ? request.prompts.length : 1);
  return answers * (request.outputTokensMax ?? OUTPUT_TOKENS_ASSUMED);
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
    : Math.max(...request.prompts.map(countTokens));
  return Math.max(1, limits.contextTokensMax - withMargin(inputTokens));
}

function asItIs<Request extends TaskRequest>(request: Request): Request {
  return request;
}
