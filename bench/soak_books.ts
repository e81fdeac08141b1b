// Soak books: what answers said, what the audit trail holds, and what GET /v1/usage shows of it, held against each other.
import { auditFolders } from "../src/audit/audit_trail.ts";
import { parseEntry } from "../src/audit/trail/hash_chain.ts";
import { listSegments, readLines, segmentName } from "../src/audit/trail/segment_files.ts";
import { FAULT_TABLE } from "../src/faults/fault_table.ts";
import { COST_SCALE } from "../src/limits/limit_policy.ts";
import { addUse, costOf, NO_USE, type UsedAmounts } from "../src/limits/usage_book.ts";
import { PRICES, type SoakCaller, type SoakGate, type SoakPolicy } from "./soak_gate.ts";
import type { SoakCounts, SoakModel } from "./soak_worker.ts";

/** What `GET /v1/usage` says, as far as it matters here. */
export interface UsageShown {
  readonly data: readonly {
    readonly model: string;
    readonly key: string | null;
    readonly requests: number;
    readonly input_tokens: number;
    readonly output_tokens: number;
    readonly cost: number;
  }[];
  readonly limits: readonly {
    /** Such as `everybody:tokensPerMonth`, or the policy's name alone. */
    readonly name: string;
    readonly unit: "requests" | "tokens" | "cost";
    readonly quota: number;
    readonly used: number;
  }[];
}

/** What the trail holds of one caller's inferences. */
export interface TrailSums {
  readonly started: number;
  readonly completed: UsedAmounts;
  /** Of streams whose client left, those with tokens: what was sent is charged. */
  readonly left: UsedAmounts;
  /** All other outcomes, and how often. */
  readonly others: Readonly<Record<string, number>>;
}

/** Asks as each caller, in their order. */
export function readUsages({ server: { port }, callers }: SoakGate, fromDay: string): Promise<UsageShown[]> {
  return Promise.all(callers.map(async ({ bearer }): Promise<UsageShown> => {
    const headers = { authorization: `Bearer ${bearer}` };
    const response = await fetch(`http://127.0.0.1:${port}/v1/usage?from=${fromDay}`, { headers });
    const answer = await response.json();
    if (response.status !== 200) {
      throw new Error(`Cannot read the usage: ${response.status} ${JSON.stringify(answer)}`);
    }
    return answer;
  }));
}

/**
 * Reads a whole trail.
 *
 * @returns sums by `callerName`
 * @throws Error when a line of it is no entry
 */
export function readTrail(dataDir: string): ReadonlyMap<string, TrailSums> {
  const { directory } = auditFolders(dataDir);
  const sums = new Map<string, Mutable<TrailSums>>();
  for (const number of listSegments(directory)) {
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    for (const { bytes } of readLines(file)) {
      const entry = parseEntry(bytes);
      if (!entry.ok) {
        throw new Error(`Cannot read the trail: ${segmentName(number)} holds what is ${entry.reason}`);
      }
      add(sums, entry.value.event as unknown as InferenceEvent);
    }
  }
  return sums;
}

type Mutable<Value> = { -readonly [Name in keyof Value]: Value[Name] };

interface InferenceEvent {
  readonly type: string;
  readonly subject: string;
  readonly credential: string;
  readonly outcome: string;
  readonly inputTokens: number;
  readonly outputTokens: number;
}

function add(sums: Map<string, Mutable<TrailSums>>, event: InferenceEvent): void {
  const { type, subject, credential, outcome, inputTokens, outputTokens } = event;
  if (type !== "inference.started" && type !== "inference.finished") return;
  const name = nameOf(subject, credential.startsWith("pck_") ? credential : null);
  const sum = sums.get(name) ?? { ...NOTHING };
  sums.set(name, sum);
  if (type === "inference.started") {
    sum.started++;
    return;
  }
  const cost = costOf(PRICES, inputTokens, outputTokens);
  const used = { requests: 1, inputTokens, outputTokens, cost };
  if (outcome === "completed") sum.completed = addUse(sum.completed, used);
  else if (outcome === LEFT && inputTokens + outputTokens > 0) sum.left = addUse(sum.left, used);
  else sum.others = { ...sum.others, [outcome]: (sum.others[outcome] ?? 0) + 1 };
}

const LEFT = FAULT_TABLE.client_left.code;
const NOTHING: TrailSums = { started: 0, completed: NO_USE, left: NO_USE, others: {} };

/** Of one caller in the trail. */
function nameOf(userId: string, key: string | null): string {
  return `${userId} ${key ?? "token"}`;
}

/**
 * What does not agree, in words; nothing where all does.
 *
 * @param limitsHold whether the sums of limits began with the soak: not where a day ended meanwhile
 */
export function balanceBooks(
  { callers, policies }: SoakGate,
  counts: readonly SoakCounts[],
  usages: readonly UsageShown[],
  trail: ReadonlyMap<string, TrailSums>,
  limitsHold: boolean,
): readonly string[] {
  const findings: string[] = [];
  const accounts = callers.map((caller, index): Account => {
    const held = trail.get(nameOf(caller.userId, caller.key)) ?? NOTHING;
    return {
      caller,
      said: counts[index] ?? NO_COUNTS,
      held,
      shown: usages[index] ?? { data: [], limits: [] },
    };
  });
  for (const account of accounts) {
    const { caller, shown } = account;
    const expect = (what: string, found: number, wanted: number) => {
      if (found !== wanted) findings.push(`${caller.name}: ${what}: ${found}, not ${wanted}`);
    };
    compareTrail(account, expect, findings);
    compareRows(account, expect);
    if (!limitsHold) continue;
    expect("limits that are shown", shown.limits.length, countLimits(policies, caller));
    for (const { name, unit, quota, used } of shown.limits) {
      const policy = policies.find((each) => each.name === name.split(":")[0]);
      const together = accounts.filter((other) => isOneSubject(policy?.subject, caller, other.caller))
        .map(chargedTo).reduce(addUse, NO_USE);
      const charged = {
        requests: together.requests,
        tokens: together.inputTokens + together.outputTokens,
        cost: together.cost,
      };
      const scale = unit === "cost" ? COST_SCALE : 1;
      expect(`used of ${name}`, Math.round(used * scale), charged[unit]);
      if (used > quota) {
        findings.push(`${caller.name}: used of ${name} is past its quota: ${used} of ${quota}`);
      }
    }
  }
  return findings;
}

interface Account {
  readonly caller: SoakCaller;
  readonly said: SoakCounts;
  readonly held: TrailSums;
  readonly shown: UsageShown;
}

type Expect = (what: string, found: number, wanted: number) => void;

const NO_COUNTS: SoakCounts = { completed: 0, inputTokens: 0, outputTokens: 0, left: 0, refused: {} };

function compareTrail({ caller, said, held }: Account, expect: Expect, findings: string[]): void {
  expect("whole answers in the trail", held.completed.requests, said.completed);
  expect("their input tokens in the trail", held.completed.inputTokens, said.inputTokens);
  expect("their output tokens in the trail", held.completed.outputTokens, said.outputTokens);
  expect("streams left in the trail", held.left.requests, said.left);
  expect("inferences with an outcome", held.completed.requests + held.left.requests, held.started);
  // Of each the client had read a token at least.
  if (held.left.outputTokens < said.left) {
    findings.push(
      `${caller.name}: of ${said.left} streams left, ${held.left.outputTokens} tokens were charged`,
    );
  }
  for (const [outcome, times] of Object.entries(held.others)) {
    findings.push(`${caller.name}: ${times} inferences ended with ${outcome}`);
  }
  for (const [refusal, times] of Object.entries(said.refused)) {
    if (!refusal.startsWith("429 ")) findings.push(`${caller.name}: ${times} answers were ${refusal}`);
  }
}

function compareRows({ caller, said, held, shown }: Account, expect: Expect): void {
  const answered = { ...held.completed, requests: said.completed, ...tokensOf(said) };
  const wanted: readonly [SoakModel, UsedAmounts][] = [["stub-burst", answered], ["stub-endless", held.left]];
  for (const [model, { requests, inputTokens, outputTokens, cost }] of wanted) {
    const rows = shown.data.filter((row) => row.model === model && row.key === caller.key);
    const sum = (figure: (row: UsageShown["data"][number]) => number) =>
      rows.reduce((total, row) => total + figure(row), 0);
    expect(`requests of ${model} in the usage`, sum((row) => row.requests), requests);
    expect(`input tokens of ${model} in the usage`, sum((row) => row.input_tokens), inputTokens);
    expect(`output tokens of ${model} in the usage`, sum((row) => row.output_tokens), outputTokens);
    expect(
      `billionths of cost of ${model} in the usage`,
      sum((row) => Math.round(row.cost * COST_SCALE)),
      cost,
    );
  }
}

/** By what answers said, where somebody heard it, else by the trail. */
function chargedTo({ said, held }: Account): UsedAmounts {
  return addUse({ ...held.completed, requests: said.completed, ...tokensOf(said) }, held.left);
}

function tokensOf({ inputTokens, outputTokens }: SoakCounts) {
  return { inputTokens, outputTokens };
}

/** Of a day or month. */
function countLimits(policies: readonly SoakPolicy[], { team, key }: SoakCaller): number {
  return policies
    .filter((policy) => policy.for?.teams.includes(team) ?? true)
    .filter(({ subject }) => subject !== "key" || key !== null)
    .flatMap((policy) => Object.keys(policy)).filter((name) => /Per(?:Day|Month)$/.test(name)).length;
}

function isOneSubject(
  subject: SoakPolicy["subject"] | undefined,
  one: SoakCaller,
  other: SoakCaller,
): boolean {
  return subject === "user"
    ? one.userId === other.userId
    : subject === "team"
    ? one.team === other.team
    : one.key === other.key;
}
