// Measure identity: what it takes to know who is calling, beside the bare cryptography of it.
import { ARGON2ID_COST } from "../src/identity/password_hash.ts";
import { type AuthenticationCase, type Contestant, openAuthenticationCases } from "./authentication_cases.ts";
import { type BenchIdentity, openBenchIdentity } from "./bench_identity.ts";
import { type ChildServer, PASSWORD } from "./child_server.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { interleave, spreadOf, spreadOfPairs } from "./rounds.ts";
import { countOfConnections, runRound } from "./server_round.ts";
import { startStubGate } from "./stub_gate.ts";
import { writeStubModel } from "./stub_model.ts";
import type { TableRow } from "./table.ts";

const SIGN_IN_PATH = "/v1/auth/login";
const CONNECTIONS = [1, 8] as const;
/** As many hashes as the server computes at once. */
const HASHES_AT_ONCE_MAX = 2;
const BURST = 64;
const BURSTS = 3;
/** One for each sign-in of a burst: attempts of one user that are under way together count as failed until they succeed. */
const USERS = BURST;

export async function measureIdentity(means: PhaseMeans): Promise<PhaseFindings> {
  const dataDir = `${means.folder}/identity`;
  means.progress(`making ${USERS} users`);
  const identity = await openBenchIdentity(dataDir, USERS);
  let authentication: TableRow[];
  try {
    authentication = await measureAuthentication(means, identity);
  } finally {
    await identity.close();
  }
  const modelsDir = `${means.folder}/stub-models`;
  await writeStubModel(modelsDir);
  const server = startStubGate({ dataDir, modelsDir });
  try {
    await server.answers("/healthz");
    const bodies = identity.users.map(({ username }) => JSON.stringify({ username, password: PASSWORD }));
    const signIn = await measureSignIn(means, server, bodies);
    const burst = await describeBursts(means, server, bodies);
    return { rows: [...authentication, ...signIn], notes: [...HOW_TO_READ, burst] };
  } finally {
    await server.stop();
  }
}

const HOW_TO_READ = [
  "Authentication: authenticate() as the gate calls it, in one process, one call after another, beside calls of the library that the " +
  "credential cannot do without; ratio: bare / ours. Ours asks besides for the strict form, revocation, the account's standing and " +
  "grants, and of a proof its key (imported anew for each one), nonce, time, target and replay.",
  `Sign-in: the whole of POST ${SIGN_IN_PATH} (rates, lockout, session and known network in the store, two tokens, audit records), beside ` +
  `bare Argon2id of the same cost (${ARGON2ID_COST.memoryKib} KiB, ${ARGON2ID_COST.passes} passes) in WebCrypto, with as many ` +
  `at once as connections, at most ${HASHES_AT_ONCE_MAX} as in the server; ratio: ours / bare.`,
];

async function measureAuthentication(
  { effort: { authentication: { warmUpRounds, rounds } }, progress }: PhaseMeans,
  identity: BenchIdentity,
): Promise<TableRow[]> {
  const rows: TableRow[] = [{ what: "AUTHENTICATION in process | bare", ours: "" }];
  for (const each of await openAuthenticationCases(identity)) {
    progress(each.what);
    await compare(each, warmUpRounds);
    const { ours, bare } = await compare(each, rounds);
    rows.push({
      what: each.what,
      ours: describeMicroseconds(ours),
      beside: describeMicroseconds(bare),
      ratio: spreadOfPairs(ours, bare, (left, right) => right / left),
    });
  }
  return rows;
}

function compare({ ours, bare, calls }: AuthenticationCase, rounds: number) {
  return interleave(rounds, {
    ours: () => microsecondsOf(ours, calls),
    bare: () => microsecondsOf(bare, calls),
  });
}

/** Of one call. */
async function microsecondsOf(contestant: Contestant, count: number): Promise<number> {
  const calls = await contestant(count);
  const startMs = performance.now();
  for (const call of calls) {
    const pending = call();
    if (pending instanceof Promise) await pending;
  }
  return (performance.now() - startMs) * 1000 / count;
}

async function measureSignIn(
  { effort: { signIn: { warmUpMs, rounds, roundMs } }, generator, progress }: PhaseMeans,
  server: ChildServer,
  bodies: readonly string[],
): Promise<TableRow[]> {
  const run = async (connections: number, durationMs: number): Promise<number> => {
    const target = { port: server.port, path: SIGN_IN_PATH, bodies };
    return (await runRound(generator, server.pid, target, connections, durationMs)).perSecond;
  };
  progress("sign-in, warming up");
  await run(Math.max(...CONNECTIONS), warmUpMs);
  const rows: TableRow[] = [{ what: "SIGN-IN | bare Argon2id", ours: "" }];
  for (const connections of CONNECTIONS) {
    let round = 0;
    const { gate, bare } = await interleave(rounds, {
      gate: () => {
        progress(`sign-in, ${countOfConnections(connections)}, round ${++round} of ${rounds}`);
        return run(connections, roundMs);
      },
      bare: () => hashesPerSecond(Math.min(connections, HASHES_AT_ONCE_MAX), roundMs),
    });
    const perSecond = (values: readonly number[]) => `${spreadOf(values).median.toFixed(1)} /s`;
    rows.push({
      what: `sign-ins/s, ${countOfConnections(connections)}`,
      ours: perSecond(gate),
      beside: perSecond(bare),
      ratio: spreadOfPairs(gate, bare, (left, right) => left / right),
    });
  }
  return rows;
}

/** Bare Argon2id, `atOnce` hashes at a time. */
async function hashesPerSecond(atOnce: number, durationMs: number): Promise<number> {
  let hashes = 0;
  const startMs = performance.now();
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (; performance.now() - startMs < durationMs; hashes++) await argon2id();
  }));
  return hashes * 1000 / (performance.now() - startMs);
}

async function argon2id(): Promise<void> {
  // The platform's types do not know Argon2id yet (WICG "Modern Algorithms in the Web Cryptography API").
  const raw = "raw-secret" as "raw";
  const password = new TextEncoder().encode(PASSWORD);
  const key = await crypto.subtle.importKey(raw, password, "Argon2id", false, ["deriveBits"]);
  const parameters = {
    name: "Argon2id",
    nonce: crypto.getRandomValues(new Uint8Array(16)),
    memory: ARGON2ID_COST.memoryKib,
    passes: ARGON2ID_COST.passes,
    parallelism: 1,
  };
  await crypto.subtle.deriveBits(parameters, key, 256);
}

/** What becomes of more sign-ins at once than may wait. */
async function describeBursts(
  { progress }: PhaseMeans,
  { port }: ChildServer,
  bodies: readonly string[],
): Promise<string> {
  const bursts: Map<number, number>[] = [];
  for (let burst = 0; burst < BURSTS; burst++) {
    progress(`${BURST} sign-ins at once, ${burst + 1} of ${BURSTS}`);
    // Each time another user comes last, so that nobody is refused often enough to be slowed down.
    const first = Math.floor(burst * bodies.length / BURSTS);
    const statuses = await Promise.all(
      [...bodies.slice(first), ...bodies.slice(0, first)].map((body) => statusOfSignIn(port, body)),
    );
    const counts = new Map<number, number>();
    for (const status of statuses) counts.set(status, (counts.get(status) ?? 0) + 1);
    bursts.push(counts);
  }
  const seen = [...new Set(bursts.flatMap((counts) => [...counts.keys()]))].sort();
  const told = seen.map((status) =>
    `${status} to ${bursts.map((counts) => counts.get(status) ?? 0).join(", ")}`
  );
  return `Of ${BURST} sign-ins on ${BURST} connections at once, ${BURSTS} times, the server answered ${
    told.join("; ")
  }: ` +
    "what may neither be hashed nor wait for it is told to come back.";
}

async function statusOfSignIn(port: number, body: string): Promise<number> {
  const response = await fetch(`http://127.0.0.1:${port}${SIGN_IN_PATH}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  await response.body?.cancel();
  return response.status;
}

function describeMicroseconds(values: readonly number[]): string {
  const { median } = spreadOf(values);
  return `${median.toFixed(median < 100 ? 1 : 0)} µs`;
}
