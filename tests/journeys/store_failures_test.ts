// Store failures: what every kind of request is answered while the Redis that servers share fails, how the log says so, and that all of
// it recovers by itself with exact books. docs/operations.md has the table of it, which is held against what is measured here.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { answerChat, MODEL, whenTold, withInstances } from "../support/instances.ts";
import { OPERATIONS, tableBelow } from "../support/operations_document.ts";
import { hasRedisServer, type RedisServer } from "../support/redis_server.ts";
import { freePort, type ServerUnderTest } from "../support/server_under_test.ts";
import {
  type Answer,
  type Call,
  callsOf,
  expectStatus,
  pause,
  refreshForm,
  requireIntactTrail,
  signIn,
  until,
} from "./api_calls.ts";

/** A way to fail, and what ends it. The names are the table's columns. */
const FAILURES: Readonly<
  Record<string, { begin(redis: RedisServer): Promise<unknown>; end(redis: RedisServer): Promise<unknown> }>
> = {
  "stopped": {
    async begin({ process }) {
      process.kill("SIGTERM");
      await process.status;
    },
    end: (redis) => redis.restart(),
  },
  "killed": { begin: (redis) => redis.kill(), end: (redis) => redis.restart() },
  "hangs": {
    begin: (redis) => Promise.resolve(redis.pause()),
    end: (redis) => Promise.resolve(redis.resume()),
  },
  "out of memory": {
    begin: (redis) => redis.cli("CONFIG", "SET", "maxmemory", "1"),
    end: (redis) => redis.cli("CONFIG", "SET", "maxmemory", "0"),
  },
  "read-only": {
    begin: (redis) => redis.cli("REPLICAOF", "127.0.0.1", `${freePort()}`),
    end: (redis) => redis.cli("REPLICAOF", "NO", "ONE"),
  },
};

const PASSWORD = "seven green bicycles by the lake";
const PER_MINUTE = 20;
const LIMITS = [
  { name: "rated", subject: "user", for: { teams: ["rated"] }, requestsPerMinute: PER_MINUTE },
  { name: "budget", subject: "user", for: { teams: ["budgeted"] }, tokensPerMonth: 1_000_000 },
  {
    name: "counted",
    subject: "user",
    for: { teams: ["counted"] },
    requestsPerMinute: 1_000_000,
    whenStoreFails: "closed",
  },
];
/** What the upstream counts of each chat. */
const [INPUT_TOKENS, OUTPUT_TOKENS] = [9, 5];
/** So long at most the second server believes what it has at hand. */
const STALE_MS = 1000;

const chat = (call: Call): Promise<Answer> =>
  call("POST", "/v1/chat/completions", {
    model: MODEL,
    messages: [{ role: "user", content: "How old are you?" }],
    max_tokens: 60,
  });

/** Calls whose answers come within a time that is no promise but an end, and are none of the server's own failure. */
function boundedCalls(server: ServerUnderTest, credential?: string): Call {
  const call = callsOf(server, credential);
  return async (...asked) => {
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(() => reject(new Error(`no answer to ${asked[0]} ${asked[1]}`)), 20_000);
    try {
      const answer = await Promise.race([call(...asked), late]);
      ok(answer.status !== 500, answer.text);
      if (answer.status === 429 || (answer.status === 503 && asked[1] !== "/readyz")) {
        match(answer.headers.get("retry-after") ?? "", /^[1-9]\d*$/, `${asked[1]}: ${answer.text}`);
      }
      return answer;
    } finally {
      clearTimeout(timer);
    }
  };
}

/** What is answered when what is at hand is stale: whoever does not turn away in twice the time does not do it at all. */
async function statusLater(ask: () => Promise<Answer>): Promise<number> {
  const endMs = performance.now() + 2 * STALE_MS;
  let refused = 0;
  // A single one may be a stall of this machine.
  while (refused < 5 && performance.now() < endMs) {
    refused = (await ask()).status === 503 ? refused + 1 : 0;
    await pause(50);
  }
  return (await ask()).status;
}

/** Events of a server's log other than requests, from a place of its output on, each once; with the state that they tell. */
function eventsSince(server: ServerUnderTest, from: number): readonly string[] {
  const lines = server.output().slice(from).split("\n").filter((line) => /^\{.*\}$/.test(line));
  const events = lines.map((line) => JSON.parse(line)).filter(({ event }) => event !== "request")
    .map(({ event, state }) => `\`${event}\`${state === undefined ? "" : ` ${state}`}`);
  return [...new Set(events)].sort();
}

Deno.test({
  name:
    "while Redis fails every request is answered as docs/operations.md has it, and afterwards all is as if it had not",
  ignore: !hasRedisServer,
  fn: async (test) => {
    const measured: Record<string, Record<string, string>> = {};
    await withInstances({
      servers: [
        { PORTCULLIS_STORE_STALE_MS_MAX: "86400000" },
        { PORTCULLIS_STORE_STALE_MS_MAX: String(STALE_MS) },
      ],
      variables: { PORTCULLIS_LIMITS: JSON.stringify(LIMITS), PORTCULLIS_DEGRADED_PERCENT: "25" },
      persistent: true,
    }, async ({ servers, redis, upstream, stop, failToStart }) => {
      const [patient, strict] = servers as [ServerUnderTest, ServerUnderTest];
      upstream.plays(answerChat(INPUT_TOKENS, OUTPUT_TOKENS));
      const { access_token: adminToken } = await signIn(patient);
      const admin = boundedCalls(patient, adminToken);
      for (const id of ["rated", "budgeted", "counted"]) {
        await expectStatus(admin("POST", "/v1/teams", { id }), 201);
      }
      let addresses = 0;
      for (const [failure, { begin, end }] of Object.entries(FAILURES)) {
        await test.step(`Redis ${failure}`, async () => {
          const note = (row: string, what: string | number): void => {
            (measured[row] ??= {})[failure] = String(what);
          };
          const chats = new Map<string, number>();
          const join = async (team: string) => {
            const username = `${team}-${failure.replaceAll(" ", "-")}`;
            await expectStatus(
              admin("POST", "/v1/users", { username, password: PASSWORD, roles: ["user"], team }),
              201,
            );
            const tokens = await signIn(strict, username, PASSWORD);
            /** Counts what is to be charged. */
            const chatOn = async (server: ServerUnderTest): Promise<Answer> => {
              const answer = await chat(boundedCalls(server, tokens.access_token));
              if (answer.status === 200) {
                chats.set(tokens.access_token, (chats.get(tokens.access_token) ?? 0) + 1);
              }
              return answer;
            };
            for (const server of servers) await expectStatus(chatOn(server), 200);
            return {
              ...tokens,
              username,
              chatOn,
              on: (server: ServerUnderTest) => boundedCalls(server, tokens.access_token),
            };
          };
          const [rated, budgeted, counted] = [
            await join("rated"),
            await join("budgeted"),
            await join("counted"),
          ];
          const { key } = await expectStatus(rated.on(strict)("POST", "/v1/keys", { name: "new" }), 201);
          const nobody = (server: ServerUnderTest) => boundedCalls(server);
          // Changes are told in order: whoever knows of a ban that another made knows of all before it.
          const banned: string[] = [];
          const bannedOn = async (server: ServerUnderTest): Promise<number> => {
            const answers = banned.map((from) =>
              nobody(server)("GET", "/v1/models", undefined, { "x-forwarded-for": from })
            );
            const [status = 0, ...others] = (await Promise.all(answers)).map((answer) => answer.status);
            return others.every((other) => other === status) ? status : 0;
          };
          for (const server of servers) {
            const address = `203.0.113.${++addresses}`;
            const order = { address, seconds: 3600 };
            await expectStatus(boundedCalls(server, adminToken)("POST", "/v1/bans", order), 201);
            banned.push(address);
          }
          for (const server of servers) {
            for (let tries = 0; await bannedOn(server) !== 403; tries++) {
              ok(tries < 100, "a ban is not known");
              await pause(50);
            }
            for (const each of [rated, budgeted, counted]) {
              await expectStatus(each.on(server)("GET", "/v1/models"), 200);
            }
            await expectStatus(boundedCalls(server, adminToken)("GET", "/v1/models"), 200);
          }
          const held = whenTold(answerChat(INPUT_TOKENS, OUTPUT_TOKENS));
          const before = upstream.requests.length;
          upstream.plays(held.script, answerChat(INPUT_TOKENS, OUTPUT_TOKENS));
          const underWay = budgeted.chatOn(patient);
          await upstream.request(before);
          const logged = servers.map((server) => server.output().length);

          await begin(redis);
          const models = (server: ServerUnderTest) => rated.on(server)("GET", "/v1/models");
          note("`GET /healthz`", (await nobody(patient)("GET", "/healthz")).status);
          note("a token or key that is at hand, within `storeStaleMsMax`", (await models(patient)).status);
          held.tell();
          note("an inference that was let in before", (await underWay).status);
          note("a banned address", await bannedOn(patient));
          const inferences: Answer[] = [];
          for (let sent = 0; sent < PER_MINUTE / 2; sent++) inferences.push(await rated.chatOn(patient));
          const passed = inferences.filter(({ status }) => status === 200).length;
          const rest = new Set(inferences.slice(passed).map(({ status }) => status));
          note(
            "an inference under rates",
            `200 for ${passed / PER_MINUTE * 100} %, then ${[...rest].join(", ")}`,
          );
          note("an inference under a budget of a day or month", (await budgeted.chatOn(patient)).status);
          note('an inference under a rate that is `"closed"`', (await counted.chatOn(patient)).status);
          note(
            "an API key that is not at hand",
            (await boundedCalls(patient, key)("GET", "/v1/models")).status,
          );
          const credentials = { username: rated.username, password: PASSWORD };
          note(
            "`POST /v1/auth/login`",
            (await nobody(patient)("POST", "/v1/auth/login", credentials)).status,
          );
          const refresh = () => nobody(patient)("POST", "/oauth2/token", refreshForm(rated.refresh_token));
          note("`POST /oauth2/token`", (await refresh()).status);
          note("`GET /v1/usage`", (await rated.on(patient)("GET", "/v1/usage")).status);
          const account = { username: `late-${before}`, password: PASSWORD, roles: ["user"] };
          note("a change by an admin", (await admin("POST", "/v1/users", account)).status);
          note("`GET /readyz`, within `storeStaleMsMax`", (await nobody(patient)("GET", "/readyz")).status);
          note("a token or key that is at hand, later", await statusLater(() => models(strict)));
          note("`GET /readyz`, later", (await nobody(strict)("GET", "/readyz")).status);
          strictEqual(await bannedOn(strict), 403);
          strictEqual((await nobody(strict)("GET", "/healthz")).status, 200);
          const [said, saidThere] = servers.map((server, at) => eventsSince(server, logged[at] ?? 0));
          deepStrictEqual(saidThere, said);
          note("the log, when it begins", said?.join(", ") ?? "");
          const started = await failToStart();
          match(started.said, /Cannot start: Cannot (?:use Redis|[a-z ]+: .*Redis)/);
          note("a server that starts", `exits with ${started.code}`);

          const endedAt = servers.map((server) => server.output().length);
          await end(redis);
          for (const server of servers) {
            await until(() => nobody(server)("GET", "/readyz"), ({ status }) => status === 200);
            await until(
              () => nobody(server)("POST", "/v1/auth/login", credentials),
              ({ status }) => status === 200,
            );
            await until(() => budgeted.chatOn(server), ({ status }) => status === 200);
          }
          // What was answered 503 has not happened.
          await expectStatus(refresh(), 200);
          await expectStatus(admin("POST", "/v1/users", account), 201);
          for (const each of [rated, budgeted, counted]) {
            const requests = chats.get(each.access_token) ?? 0;
            const tokens = requests * (INPUT_TOKENS + OUTPUT_TOKENS);
            const sums = [requests, requests * INPUT_TOKENS, requests * OUTPUT_TOKENS];
            const isSettled = ({ body }: Answer): boolean =>
              JSON.stringify([body.total?.requests, body.total?.input_tokens, body.total?.output_tokens]) ===
                JSON.stringify(sums) && body.limits.every(({ used }: { used: number }) => used === tokens);
            for (const server of servers) await until(() => each.on(server)("GET", "/v1/usage"), isSettled);
          }
          const after = () => servers.map((server, at) => eventsSince(server, endedAt[at] ?? 0));
          for (let tries = 0; !after().every((events) => events.includes("`limits.recovered`")); tries++) {
            ok(tries < 100, "the limits do not recover");
            await pause(100);
          }
          // On a machine that stalls Redis may be late once more, and be back: what is over is what counts.
          const begins = ["`redis.state` down", "`limits.degraded`"];
          const [here, there] = after().map((events) => events.filter((event) => !begins.includes(event)));
          deepStrictEqual(here, there);
          note("the log, when it is over", here?.join(", ") ?? "");
        });
      }
      await test.step("a server that is stopped meanwhile says what it gives up; it stays reserved", async () => {
        const { access_token: token } = await signIn(strict, "budgeted-killed", PASSWORD);
        const budgetOf = async () =>
          (await expectStatus(boundedCalls(strict, token)("GET", "/v1/usage"), 200)).limits[0].used;
        const used = await budgetOf();
        const held = whenTold(answerChat(INPUT_TOKENS, OUTPUT_TOKENS));
        const before = upstream.requests.length;
        upstream.plays(held.script);
        const underWay = chat(boundedCalls(patient, token));
        await upstream.request(before);
        const reserved = await budgetOf() - used;
        ok(reserved > INPUT_TOKENS + OUTPUT_TOKENS);
        await redis.kill();
        held.tell();
        await expectStatus(underWay, 200);
        strictEqual((await stop(0)).code, 0);
        match(patient.output(), /"event":"limits\.settlements_dropped","settlements":1,"takes":0\}/);
        await redis.restart();
        const usage = () => boundedCalls(strict, token)("GET", "/v1/usage");
        await until(usage, ({ status }) => status === 200);
        strictEqual(await budgetOf(), used + reserved);
      });
      for (const [index, server] of servers.entries()) {
        strictEqual((await stop(index)).code, 0);
        await requireIntactTrail(server.dataDir);
        ok(!server.output().includes('"status":500'), server.output());
      }
    });
    const [columns, ...rows] = tableBelow("When Redis fails", OPERATIONS);
    deepStrictEqual(columns, ["", ...Object.keys(FAILURES)]);
    const written = rows.map(([row = "", ...cells]) => [
      row,
      Object.fromEntries(cells.map((cell, at) => [columns?.[at + 1] ?? "", cell])),
    ]);
    deepStrictEqual(measured, Object.fromEntries(written));
  },
});
