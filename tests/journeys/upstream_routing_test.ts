// Upstream routing: which of the servers behind a model gets a request, when another one gets it, and when none does.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { recordsOf, until, withUpstreams } from "../support/app_with_upstreams.ts";
import { type AppUnderTest, getAs } from "../support/app_under_test.ts";
import {
  answerWell,
  type Door,
  DOORS,
  eventsIn,
  failureAnswer,
  type FailureCode,
  failureEvent,
  requestThrough,
  servedBehind,
  textIn,
} from "../support/doors.ts";
import { throughTheGate } from "../support/gate_journey.ts";
import { manualClock } from "../support/manual_clock.ts";
import {
  answerBusy,
  answerJson,
  answerStatus,
  hangBeforeHead,
  type Script,
  type ScriptedUpstream,
  startScriptedUpstream,
} from "../support/scripted_upstream.ts";
import { rawRequest, startServerUnderTest } from "../support/server_under_test.ts";

const door: Door = DOORS.chat;
const HELLO = "hello";
const well = answerWell(door, HELLO);

/** Runs a test with so many scripted servers. */
async function withServers(
  count: number,
  run: (servers: readonly ScriptedUpstream[]) => Promise<void>,
): Promise<void> {
  const servers = await Promise.all(Array.from({ length: count }, () => startScriptedUpstream()));
  for (const server of servers) {
    server.plays(well);
    // The runtime sends a request again by itself where a connection that it kept is reset.
    server.playsHealth(answerJson({}, 200, { connection: "close" }));
  }
  try {
    await run(servers);
  } finally {
    await Promise.all(servers.map((server) => server.close()));
  }
}

/** Upstreams `a`, `b`, … on servers. */
function upstreamsOn(
  servers: readonly ScriptedUpstream[],
  settings: Readonly<Record<string, unknown>> = {},
): { name: string; key: string }[] {
  return servers.map(({ url }, index) => ({
    name: "abcd"[index] ?? "",
    kind: "openai",
    url: `${url}/v1`,
    key: `canary-${crypto.randomUUID()}`,
    healthSeconds: 3600,
    ...settings,
  }));
}

const chatModel = (id: string, ...servedBy: readonly Record<string, unknown>[]) => ({
  id,
  capabilities: ["chat"],
  servedBy,
});

function ask(app: AppUnderTest, model: string, token: string, by = door): Promise<Response> {
  return app.call(by.path(model), requestThrough(by, model, "hi", token));
}

/** The outcome of an answer's request, and how often it was tried. */
async function outcomeOf(app: AppUnderTest, response: Response): Promise<Record<string, unknown>> {
  const records = await recordsOf(app, response);
  const { type, outcome, code, servedBy, attempts } = records.at(-1) ?? {};
  return { type, outcome: outcome ?? code, servedBy, attempts };
}

/** Answers when it is told to. */
function whenTold(): { readonly script: Script; tell(): void } {
  const told = Promise.withResolvers<void>();
  return {
    script: async (reply, request) => {
      await told.promise;
      await well(reply, request);
    },
    tell: () => told.resolve(),
  };
}

const asked = (servers: readonly ScriptedUpstream[]): number[] =>
  servers.map(({ requests }) => requests.length);

Deno.test("least-busy spreads requests by what is under way for the weight, whichever model brought it there", async (test) => {
  await withServers(2, async (servers) => {
    await withUpstreams({
      upstreams: upstreamsOn(servers),
      models: [
        chatModel("even", { upstream: "a" }, { upstream: "b" }),
        chatModel("uneven", { upstream: "a", weight: 2 }, { upstream: "b" }),
        chatModel("only-b", { upstream: "b" }),
      ],
    }, async (app) => {
      const token = await app.tokenFor("user");
      for (
        const { what, models, spread } of [
          { what: "half and half", models: ["even", "even", "even", "even"], spread: [2, 2] },
          { what: "two to one", models: Array.from({ length: 6 }, () => "uneven"), spread: [4, 2] },
          {
            what: "to the one where another model has nothing under way",
            models: ["only-b", "only-b", "even", "even"],
            spread: [2, 2],
          },
        ]
      ) {
        await test.step(what, async () => {
          const before = asked(servers);
          const held = whenTold();
          for (const server of servers) server.plays(held.script);
          const answers = [];
          for (const model of models) {
            const sum = asked(servers).reduce((total, count) => total + count, 0);
            answers.push(ask(app, model, token));
            await until("it is under way", () => asked(servers).reduce((all, one) => all + one, 0) > sum);
          }
          deepStrictEqual(asked(servers).map((count, index) => count - (before[index] ?? 0)), spread);
          held.tell();
          for (const response of await Promise.all(answers)) {
            strictEqual((await response.json()).object, "chat.completion");
          }
        });
      }
    });
  });
});

Deno.test("weighted routing gives each replica its share, in turns and not in bursts", async () => {
  await withServers(2, async (servers) => {
    await withUpstreams({
      upstreams: upstreamsOn(servers),
      models: [{
        ...chatModel("m", { upstream: "a", weight: 3 }, { upstream: "b", weight: 1, model: "org/m-b" }),
        routing: "weighted",
      }],
    }, async (app) => {
      const token = await app.tokenFor("admin");
      const servedBy = [];
      for (let count = 0; count < 8; count++) {
        const response = await ask(app, "m", token);
        await response.body?.cancel();
        servedBy.push(response.headers.get("x-portcullis-served-by"));
      }
      deepStrictEqual(asked(servers), [6, 2]);
      for (const four of [servedBy.slice(0, 4), servedBy.slice(4)]) {
        deepStrictEqual(four.filter((each) => each === "b/org/m-b").length, 1);
      }
      deepStrictEqual(servers.map(({ requests }) => requests[0]?.json().model), ["m", "org/m-b"]);
    });
  });
});

/** `a` is always asked first. */
const mostlyA = {
  ...chatModel("m", { upstream: "a", weight: 1000 }, { upstream: "b" }),
  routing: "weighted",
};

Deno.test("a request goes to another replica as long as nothing of an answer was sent, and not after that", async (test) => {
  const stream = DOORS.chatStream;
  const streamWell = answerWell(stream, HELLO);
  const seen = Promise.withResolvers<void>();
  const beginThenReset: Script = async (reply) => {
    await reply.head(200, { "content-type": "text/event-stream" });
    await reply.chunk(stream.text("so far"));
    await seen.promise;
    reply.reset();
  };
  const headThenReset: Script = async (reply) => {
    await reply.head(200, { "content-type": "text/event-stream" });
    await reply.chunk(": nothing yet\n\n");
    await reply.pause(50);
    reply.reset();
  };
  const cases: readonly {
    readonly what: string;
    readonly by: Door;
    readonly a: Script;
    readonly b: Script;
    /** Who ends it; undefined where it may be either. */
    readonly servedBy: "a" | "b" | undefined;
    readonly outcome: FailureCode | "completed";
    readonly attempts: number;
    readonly settings?: Readonly<Record<string, unknown>>;
  }[] = [
    {
      what: "500",
      by: door,
      a: answerStatus(500),
      b: well,
      servedBy: "b",
      outcome: "completed",
      attempts: 2,
    },
    {
      what: "429",
      by: door,
      a: answerBusy(429, "30"),
      b: well,
      servedBy: "b",
      outcome: "completed",
      attempts: 2,
    },
    {
      what: "a reset",
      by: door,
      a: (reply) => reply.reset(),
      b: well,
      servedBy: "b",
      outcome: "completed",
      attempts: 2,
    },
    {
      what: "an answer that is none",
      by: door,
      a: answerJson({ no: "chat" }),
      b: well,
      servedBy: "b",
      outcome: "completed",
      attempts: 2,
    },
    {
      what: "a second answer that is none",
      by: door,
      a: answerJson({ no: "chat" }),
      b: answerJson({ no: "chat" }),
      servedBy: "b",
      outcome: "upstream-answer-invalid",
      attempts: 2,
    },
    {
      what: "silence before the answer",
      by: door,
      a: hangBeforeHead(),
      b: well,
      servedBy: "b",
      outcome: "completed",
      attempts: 2,
      settings: { firstByteTimeoutMs: 500 },
    },
    {
      what: "a stream that breaks before its first event",
      by: stream,
      a: headThenReset,
      b: streamWell,
      servedBy: "b",
      outcome: "completed",
      attempts: 2,
    },
    {
      what: "a stream that breaks after its first event",
      by: stream,
      a: beginThenReset,
      b: streamWell,
      servedBy: "a",
      outcome: "upstream-unreachable",
      attempts: 1,
    },
    {
      what: "a refusal of the input",
      by: door,
      a: answerStatus(400),
      b: well,
      servedBy: "a",
      outcome: "input-refused",
      attempts: 1,
    },
    {
      what: "a refusal of the key",
      by: door,
      a: answerStatus(401),
      b: well,
      servedBy: "a",
      outcome: "upstream-failed",
      attempts: 1,
    },
    {
      what: "failures everywhere",
      by: door,
      a: answerStatus(502),
      b: answerStatus(502),
      servedBy: undefined,
      outcome: "upstream-failed",
      attempts: 3,
    },
  ];
  await withServers(2, async (servers) => {
    // Each its own upstreams on the same servers: breakers remember.
    await withUpstreams({
      upstreams: cases.flatMap(({ settings }, index) =>
        upstreamsOn(servers, settings).map((upstream) => ({ ...upstream, name: `${upstream.name}${index}` }))
      ),
      models: cases.map((_, index) => ({
        ...mostlyA,
        id: `m${index}`,
        servedBy: mostlyA.servedBy.map(({ upstream, ...rest }) => ({
          ...rest,
          upstream: `${upstream}${index}`,
          model: "m",
        })),
      })),
    }, async (app) => {
      const token = await app.tokenFor("user");
      for (const [index, { what, by, a, b, servedBy, outcome, attempts }] of cases.entries()) {
        await test.step(`after ${what}`, async () => {
          servers[0]?.plays(a);
          servers[1]?.plays(b);
          const before = asked(servers);
          const response = await ask(app, `m${index}`, token, by);
          if (a === beginThenReset) seen.resolve();
          const text = await response.text();
          if (outcome === "completed") strictEqual(response.status, 200);
          else if (response.status === 200) {
            const last = eventsIn(text).pop();
            const expected = failureEvent(by, outcome, null);
            deepStrictEqual({ ...last, data: JSON.parse(last?.data ?? "") }, expected);
          } else {deepStrictEqual(
              [response.status, JSON.parse(text)],
              failureAnswer(by.dialect, outcome, null),
            );}
          const found = await outcomeOf(app, response);
          const [upstream, model] = String(found.servedBy).split("/");
          strictEqual(found.type, "inference.finished");
          deepStrictEqual([found.outcome, found.attempts, model], [outcome, attempts, "m"]);
          if (servedBy !== undefined) strictEqual(upstream, `${servedBy}${index}`);
          const now = asked(servers).map((count, server) => count - (before[server] ?? 0));
          strictEqual(now.reduce((sum, count) => sum + count), attempts);
          // A retry is no other model.
          ok(!app.auditEvents().some(({ type }) => type === "inference.rerouted"));
        });
      }
    });
  });
});

Deno.test("an upload is sent once: a replica that fails is not followed by another", async () => {
  await withServers(2, async (servers) => {
    servers[0]?.plays(answerStatus(500));
    servers[1]?.plays(answerJson({ text: HELLO }));
    await withUpstreams({
      upstreams: upstreamsOn(servers),
      models: [{ ...mostlyA, capabilities: ["transcription"] }],
    }, async (app) => {
      const form = new FormData();
      form.set("model", "m");
      form.set("file", new File(["fLaC and so on"], "a.flac"));
      const token = await app.tokenFor("user");
      const response = await app.call("/v1/audio/transcriptions", {
        method: "POST",
        body: form,
        ...getAs(token),
      });
      deepStrictEqual([response.status, (await response.json()).error.code], [502, "upstream_failed"]);
      deepStrictEqual(await outcomeOf(app, response), {
        type: "inference.finished",
        outcome: "upstream-failed",
        servedBy: "a/m",
        attempts: 1,
      });
      deepStrictEqual(asked(servers), [1, 0]);
    });
  });
});

Deno.test("retries have a budget: of many requests that fail at once only so many are sent a second time", async () => {
  await withServers(2, async (servers) => {
    // Busy says nothing against an upstream: its breaker stays closed.
    servers[0]?.plays(answerBusy(429, "5"));
    await withUpstreams({ upstreams: upstreamsOn(servers), models: [mostlyA] }, async (app) => {
      const token = await app.tokenFor("user");
      const responses = await Promise.all(Array.from({ length: 40 }, () => ask(app, "m", token)));
      const statuses = responses.map(({ status }) => status);
      // 3 a second over 10 seconds; nothing was sent to `b` first that would add to it.
      strictEqual(statuses.filter((status) => status === 200).length, 30);
      deepStrictEqual(asked(servers), [40, 30]);
      for (const response of responses) {
        const body = await response.json();
        if (response.status === 200) continue;
        deepStrictEqual([response.status, body], failureAnswer("openai", "overloaded", null));
        strictEqual(response.headers.get("retry-after"), "5");
        strictEqual((await outcomeOf(app, response)).attempts, 1);
      }
    }, manualClock());
  });
});

/** `ready` of each model, as `GET /v1/models` and `GET /v1/models/{id}` have it, and the counts of `/readyz`. */
async function readiness(app: AppUnderTest, token: string): Promise<unknown> {
  const { data } = await (await app.call("/v1/models", getAs(token))).json() as {
    data: { id: string; ready: boolean }[];
  };
  for (const { id, ready } of data) {
    const one = await (await app.call(`/v1/models/${id}`, getAs(token))).json();
    strictEqual(one.ready, ready);
    const probe = await app.call(`/v2/models/${id}/ready`, getAs(token));
    deepStrictEqual([probe.status, (await probe.json()).ready], [ready ? 200 : 503, ready]);
  }
  const readyz = await app.call("/readyz");
  const { models } = await readyz.json();
  // Upstreams may all be down: what is here is well.
  strictEqual(readyz.status, 200);
  return { ...Object.fromEntries(data.map(({ id, ready }) => [id, ready])), ...models };
}

Deno.test("an upstream that fails is left alone after five failures, and one probe at a time finds out when it is well again", async () => {
  await withServers(2, async (servers) => {
    const [server] = servers;
    ok(server);
    const clock = manualClock();
    await withUpstreams({
      upstreams: upstreamsOn(servers),
      models: [chatModel("m", { upstream: "a" }), chatModel("other", { upstream: "b" })],
    }, async (app) => {
      const token = await app.tokenFor("user");
      const outcome = async (): Promise<unknown> => {
        const response = await ask(app, "m", token);
        await response.body?.cancel();
        if (response.status === 503) match(response.headers.get("retry-after") ?? "", /^\d+$/);
        return [response.status, (await outcomeOf(app, response)).attempts, server.requests.length];
      };
      const resting = (requests: number): unknown => [503, undefined, requests];
      server.plays(answerStatus(502));
      deepStrictEqual(await outcome(), [502, 3, 3]);
      deepStrictEqual(await readiness(app, token), { m: true, other: true, ready: 2, total: 2 });
      deepStrictEqual(await outcome(), [502, 2, 5]);

      // It is left alone, and everybody can see that. What was never begun leaves a refusal and no intent.
      deepStrictEqual(await readiness(app, token), { m: false, other: true, ready: 1, total: 2 });
      deepStrictEqual(await outcome(), resting(5));
      const refused = await ask(app, "m", token);
      deepStrictEqual([refused.status, await refused.json()], failureAnswer("openai", "unavailable", null));
      deepStrictEqual((await recordsOf(app, refused)).map(({ type }) => type), ["request.refused"]);

      // A probe that fails keeps it out, for longer.
      clock.advance(5_000);
      deepStrictEqual(await outcome(), [502, 1, 6]);
      clock.advance(5_000);
      deepStrictEqual(await outcome(), resting(6));

      // While a probe is under way all others are refused; it brings the upstream back.
      clock.advance(5_000);
      const held = whenTold();
      server.plays(held.script, well);
      const probe = ask(app, "m", token);
      await server.request(6);
      deepStrictEqual(await outcome(), resting(7));
      held.tell();
      strictEqual((await (await probe).json()).object, "chat.completion");
      deepStrictEqual(await readiness(app, token), { m: true, other: true, ready: 2, total: 2 });
      deepStrictEqual(await outcome(), [200, 1, 8]);
      await app.portcullis.log.flush();
      deepStrictEqual(
        app.logLines().filter(({ event }) => event === "upstream.breaker").map(({ upstream, state }) =>
          `${upstream} ${state}`
        ),
        ["a open", "a open", "a closed"],
      );
    }, clock);
  });
});

Deno.test("callers who do wrong or leave do not open a breaker", async () => {
  await withServers(1, async ([server]) => {
    ok(server);
    await withUpstreams({
      upstreams: upstreamsOn([server]),
      models: [chatModel("m", { upstream: "a" })],
    }, async (app) => {
      const token = await app.tokenFor("user");
      const theirs = [
        answerStatus(400),
        answerStatus(422),
        answerBusy(429),
        answerStatus(404),
        // Engines fail on some inputs: one caller's must not take the model from all.
        answerStatus(500),
        answerJson({ choices: "nonsense" }),
      ];
      for (const script of theirs) {
        server.plays(script);
        for (let count = 0; count < 6; count++) await (await ask(app, "m", token)).body?.cancel();
      }
      server.plays(async (reply) => {
        await reply.head(200, { "content-type": "text/event-stream" });
        await reply.chunk(DOORS.chatStream.text(HELLO));
        await reply.closed;
      });
      for (let count = 0; count < 6; count++) {
        const response = await ask(app, "m", token, DOORS.chatStream);
        const reader = response.body?.getReader();
        await reader?.read();
        await reader?.cancel();
        strictEqual((await outcomeOf(app, response)).outcome, "client-left");
      }
      server.plays(well);
      const response = await ask(app, "m", token);
      deepStrictEqual([response.status, (await response.json()).choices[0].message.content], [200, HELLO]);
    });
  });
});

Deno.test("health takes an upstream out and brings it back; what can be served now shows in ready flags and counts", async () => {
  const ways: readonly Script[] = [answerStatus(503), (reply) => reply.reset(), answerStatus(401)];
  await withServers(4, async (servers) => {
    const names = ["a", "b", "c"];
    await withUpstreams({
      upstreams: upstreamsOn(servers, { healthSeconds: 1 }),
      models: [
        ...names.map((upstream) => chatModel(`m-${upstream}`, { upstream })),
        chatModel("shared", ...[...names, "d"].map((upstream) => ({ upstream }))),
      ],
    }, async (app) => {
      const token = await app.tokenFor("user");
      const expected = (ready: boolean) => ({
        ...Object.fromEntries(names.map((name) => [`m-${name}`, ready])),
        shared: true,
        ready: ready ? 4 : 1,
        total: 4,
      });
      const untilReady = (ready: boolean) =>
        until(`models are ${ready ? "" : "not "}ready`, async () => {
          const { data } = await (await app.call("/v1/models", getAs(token))).json();
          return names.every((name) =>
            data.find(({ id }: { id: string }) => id === `m-${name}`).ready === ready
          );
        });
      deepStrictEqual(await readiness(app, token), expected(true));

      ways.forEach((script, index) => servers[index]?.playsHealth(script));
      await untilReady(false);
      deepStrictEqual(await readiness(app, token), expected(false));
      for (const name of names) {
        const refused = await ask(app, `m-${name}`, token);
        deepStrictEqual([refused.status, await refused.json()], failureAnswer("openai", "unavailable", null));
      }
      for (let count = 0; count < 4; count++) {
        const response = await ask(app, "shared", token);
        await response.body?.cancel();
        strictEqual(response.status, 200);
      }
      deepStrictEqual(asked(servers), [0, 0, 0, 4]);

      for (const server of servers) server.playsHealth(answerJson({ data: [] }));
      await untilReady(true);
      deepStrictEqual(await readiness(app, token), expected(true));
      for (const name of names) {
        strictEqual((await (await ask(app, `m-${name}`, token)).json()).object, "chat.completion");
      }
      // The checks carry the key, and nothing of any caller.
      for (const check of servers.flatMap(({ healthChecks }) => healthChecks)) {
        deepStrictEqual([check.method, check.target], ["GET", "/v1/models"]);
        match(check.headers.get("authorization") ?? "", /^Bearer canary-/);
      }
    });
  });
});

Deno.test("another model takes over only where it may be used by the caller, does the same and can help; each change is on record", async (test) => {
  await withServers(4, async (servers) => {
    const [main] = servers;
    ok(main);
    const [a, b, c, d] = ["a", "b", "c", "d"].map((upstream) => ({ upstream }));
    ok(a && b && c && d);
    await withUpstreams({
      upstreams: upstreamsOn(servers),
      models: [
        {
          ...chatModel("main", a),
          capabilities: ["chat", "embedding"],
          fallbacks: ["secret", "deaf", "spare"],
        },
        { ...chatModel("lonely", a), fallbacks: ["secret"] },
        { ...chatModel("secret", b), see: ["admin"], use: ["admin"] },
        { ...chatModel("deaf", c), capabilities: ["embedding"] },
        chatModel("spare", d),
      ],
    }, async (app) => {
      const user = await app.tokenFor("user");
      const admin = await app.tokenFor("admin");
      const rerouted = async (response: Response): Promise<unknown> =>
        (await recordsOf(app, response)).map(({ type, model, to, reason, outcome, servedBy }) =>
          [type, model, to ?? outcome, reason ?? servedBy].filter((each) => each !== undefined).join(" ")
        );

      await test.step("a caller gets the first one that is open to it, and nothing tells of the other", async () => {
        main.plays(answerBusy(503, "9"));
        for (const by of [DOORS.chat, DOORS.chatStream, DOORS.messages]) {
          const forDoor = answerWell({ ...by, ...openaiForm(by) }, HELLO);
          for (const server of servers.slice(1)) server.plays(forDoor);
          const response = await ask(app, "main", user, by);
          const text = await response.text();
          strictEqual(response.status, 200, text);
          ok(text.includes(HELLO) && text.includes('"model":"main"') && !/spare|secret/.test(text), text);
          strictEqual(response.headers.get("x-portcullis-served-by"), null);
          deepStrictEqual(await rerouted(response), [
            "inference.started main",
            "inference.rerouted main spare overloaded",
            "inference.finished main completed d/spare",
          ]);
        }
        deepStrictEqual(asked(servers), [3, 0, 0, 3]);
      });

      await test.step("an admin gets the one that is an admin's", async () => {
        for (const server of servers.slice(1)) server.plays(well);
        const response = await ask(app, "main", admin);
        await response.body?.cancel();
        strictEqual(response.headers.get("x-portcullis-served-by"), "b/secret");
        deepStrictEqual(
          (await rerouted(response) as string[])[1],
          "inference.rerouted main secret overloaded",
        );
      });

      await test.step("where none is open the failure is the answer, with its Retry-After", async () => {
        const before = asked(servers);
        const response = await ask(app, "lonely", user);
        deepStrictEqual(
          [response.status, await response.json()],
          failureAnswer("openai", "overloaded", null),
        );
        strictEqual(response.headers.get("retry-after"), "9");
        deepStrictEqual(await rerouted(response), [
          "inference.started lonely",
          "inference.finished lonely overloaded a/lonely",
        ]);
        deepStrictEqual(asked(servers).slice(1), before.slice(1));
      });

      await test.step("an input that was refused is not tried on another model", async () => {
        main.plays(answerStatus(400));
        const before = asked(servers);
        const response = await ask(app, "main", user);
        deepStrictEqual(
          [response.status, await response.json()],
          failureAnswer("openai", "input-refused", null),
        );
        deepStrictEqual(asked(servers).slice(1), before.slice(1));
      });

      await test.step("a stream that has begun is not gone on with by another model", async () => {
        const seen = Promise.withResolvers<void>();
        main.plays(async (reply) => {
          await reply.head(200, { "content-type": "text/event-stream" });
          await reply.chunk(DOORS.chatStream.text(HELLO));
          await seen.promise;
          reply.reset();
        });
        const before = asked(servers);
        const response = await ask(app, "main", user, DOORS.chatStream);
        seen.resolve();
        const events = eventsIn(await response.text());
        strictEqual(JSON.parse(events.pop()?.data ?? "").error.code, "upstream_unreachable");
        strictEqual(textIn(DOORS.chatStream, events), HELLO);
        deepStrictEqual(asked(servers).slice(1), before.slice(1));
      });

      await test.step("the last failure is the answer where all fail", async () => {
        main.plays(answerStatus(500));
        servers[3]?.plays(answerBusy(429, "4"));
        const response = await ask(app, "main", user);
        deepStrictEqual(
          [response.status, await response.json()],
          failureAnswer("openai", "overloaded", null),
        );
        strictEqual(response.headers.get("retry-after"), "4");
        deepStrictEqual(await rerouted(response), [
          "inference.started main",
          "inference.rerouted main spare upstream-failed",
          "inference.finished main overloaded d/spare",
        ]);
      });
    });
  });
});

/** A dialect's door with an OpenAI engine behind it. */
function openaiForm(by: Door): Pick<Door, "begin" | "text" | "end"> {
  const { begin, text, end } = by.streams ? DOORS.chatStream : DOORS.chat;
  return { begin, text, end };
}

Deno.test("an upstream whose places are taken is not asked: another replica is, or the answer is 503 with a time to come back", async () => {
  await withServers(2, async (servers) => {
    await withUpstreams({
      upstreams: upstreamsOn(servers, { requestsAtOnceMax: 2 }),
      models: [chatModel("m", { upstream: "a" }), { ...mostlyA, id: "both" }],
    }, async (app) => {
      const token = await app.tokenFor("user");
      const held = whenTold();
      servers[0]?.plays(held.script);
      const running = [ask(app, "m", token), ask(app, "m", token)];
      await until("both are under way", () => asked(servers)[0] === 2);

      for (const by of [DOORS.chat, DOORS.chatStream, DOORS.messages]) {
        const refused = await ask(app, "m", token, by);
        const id = refused.headers.get("x-request-id");
        deepStrictEqual([refused.status, await refused.json()], failureAnswer(by.dialect, "overloaded", id));
        match(refused.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
        deepStrictEqual(await outcomeOf(app, refused), {
          type: "inference.finished",
          outcome: "overloaded",
          servedBy: null,
          attempts: 0,
        });
      }
      const elsewhere = await ask(app, "both", token);
      await elsewhere.body?.cancel();
      strictEqual((await outcomeOf(app, elsewhere)).servedBy, "b/both");
      // Busy is not down.
      strictEqual((await (await app.call("/v1/models/m", getAs(token))).json()).ready, true);

      held.tell();
      for (const response of await Promise.all(running)) {
        strictEqual((await response.json()).object, "chat.completion");
      }
      const next = await ask(app, "m", token);
      await next.body?.cancel();
      strictEqual(next.status, 200);
    });
  });
});

const HOSTILE_NAMES = [
  "../x",
  "../../admin",
  "..",
  ".",
  "known/../known",
  "./known",
  "a?b",
  "known?x=1",
  "a#b",
  "known#x",
  "a@b",
  "known@evil.example",
  "//evil.example/v1",
  "http://evil.example/v1",
  "%2e%2e%2f",
  "%2e%2e%2fknown",
  "known%2f..%2fknown",
  "known%00",
  "..\\x",
  "known\\..",
  "a\nb",
  "known\r\nX-Evil: 1",
  "known\n",
  "known\u0000",
  " known",
  "known ",
  "known;x",
  "KNOWN",
  "known/",
  "/known",
  "known\u2028",
  "known/infer",
  "__proto__",
  "constructor",
];

const CAPABILITIES = [
  "chat",
  "completion",
  "embedding",
  "rerank",
  "moderation",
  "speech",
  "transcription",
  "image",
];

/** Every way to name a model: in a body, in a form, in a path. */
const NAMED_IN: readonly { readonly what: string; request(model: string): readonly [string, RequestInit] }[] =
  [
    ...([
      ["/v1/chat/completions", { messages: [{ role: "user", content: "hi" }] }],
      ["/v1/completions", { prompt: "hi" }],
      ["/v1/responses", { input: "hi" }],
      ["/v1/embeddings", { input: "hi" }],
      ["/v1/moderations", { input: "hi" }],
      ["/v1/rerank", { query: "hi", documents: ["hi"] }],
      ["/v1/audio/speech", { input: "hi", voice: "a" }],
      ["/v1/images/generations", { prompt: "hi" }],
      ["/v1/messages", { max_tokens: 5, messages: [{ role: "user", content: "hi" }] }],
      ["/v1/messages/count_tokens", { messages: [{ role: "user", content: "hi" }] }],
    ] as const).map(([path, body]) => ({
      what: path,
      request: (model: string) =>
        [path, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ ...body, model }),
        }] as const,
    })),
    {
      what: "/v1/audio/transcriptions",
      // By hand: FormData would turn line ends into others.
      request: (model) => ["/v1/audio/transcriptions", {
        method: "POST",
        headers: { "content-type": "multipart/form-data; boundary=x" },
        body: `--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n${model}\r\n` +
          '--x\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\nfLaC\r\n--x--\r\n',
      }],
    },
    ...(["", "/ready"] as const).map((end) => ({
      what: `/v2/models/{id}${end}`,
      request: (model: string) => [`/v2/models/${inPath(model)}${end}`, {}] as const,
    })),
    {
      what: "/v2/models/{id}/infer",
      request: (model) => [`/v2/models/${inPath(model)}/infer`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(DOORS.infer.body("", "hi")),
      }],
    },
    { what: "/v1/models/{id}", request: (model) => [`/v1/models/${inPath(model)}`, {}] },
  ];

/** Every byte encoded, dots as well, so that no client takes one for a step up. */
function inPath(model: string): string {
  return [...new TextEncoder().encode(model)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(
    "",
  );
}

Deno.test("a name that is no model's leads nowhere, whatever is in it and wherever it stands: 404, and no upstream is asked", async (test) => {
  await withServers(2, async (servers) => {
    const [server, tensors] = servers;
    ok(server && tensors);
    await throughTheGate({
      upstreams: [
        {
          name: "a",
          kind: "openai",
          url: `${server.url}/v1`,
          key: `canary-${crypto.randomUUID()}`,
          healthSeconds: 3600,
        },
        {
          name: "t",
          kind: "openinference",
          url: tensors.url,
          key: `canary-${crypto.randomUUID()}`,
          healthSeconds: 3600,
        },
      ],
      models: [
        { id: "known", capabilities: CAPABILITIES, servedBy: [{ upstream: "a" }] },
        { id: "x", capabilities: ["tensor"], servedBy: [{ upstream: "t" }] },
      ],
    }, async ({ origin, token, fetch, records }) => {
      for (const { what, request } of NAMED_IN) {
        await test.step(what, async () => {
          const unknown = await Promise.all(["no-such-model", ...HOSTILE_NAMES].map(async (name) => {
            // `fetch` would take these for steps in the path however they are written; they come raw below.
            if (what.includes("{id}") && [".", ".."].includes(name)) return undefined;
            const [path, init] = request(name);
            const response = await fetch(`${origin}${path}`, {
              ...init,
              headers: { ...init.headers, authorization: `Bearer ${token}` },
            });
            const text = await response.text();
            const { request_id: _, ...body } = JSON.parse(text);
            return { name, status: response.status, body };
          }));
          // A name of no model and a hostile one are the same thing.
          const [first] = unknown;
          strictEqual(first?.status, 404);
          for (const each of unknown) {
            if (each === undefined) continue;
            deepStrictEqual(each, { ...first, name: each.name });
          }
        });
      }
      deepStrictEqual([server.requests, tensors.requests], [[], []]);
      ok(!records().some(({ type }) => type === "inference.started"));
      // Health was asked for at its own path only.
      deepStrictEqual(
        [...server.healthChecks, ...tensors.healthChecks].map(({ target }) => target).sort(),
        ["/v1/models", "/v2/health/ready"],
      );
    });
  });
});

Deno.test("steps, queries and hosts in a raw target reach no upstream", async () => {
  await withServers(1, async ([server]) => {
    ok(server);
    const noModels = await Deno.makeTempDir();
    const { upstream, model } = servedBehind(DOORS.infer, "x", server.url);
    const gate = await startServerUnderTest({
      variables: {
        PORTCULLIS_MODELS_DIR: noModels,
        PORTCULLIS_UPSTREAMS: JSON.stringify([upstream]),
        PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([model]),
      },
    });
    try {
      const token = await gate.signIn();
      const body = JSON.stringify(DOORS.infer.body("", "hi"));
      const post = (target: string, host = `127.0.0.1:${gate.port}`): Promise<string> =>
        rawRequest(
          gate.port,
          `POST ${target} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${token}\r\n` +
            `Content-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
        );
      // The form of the request is right: it is the name that is not.
      server.plays(answerWell(DOORS.infer, HELLO));
      match(await post("/v2/models/x/infer"), /^HTTP\/1\.1 200 /);
      strictEqual(server.requests.length, 1);
      for (
        const target of [
          "/v2/models/../x/infer",
          "/v2/models/./x/infer",
          "/v2/models/%2e%2e/infer",
          "/v2/models/%2E/infer",
          "/v2/models/../models/x/infer",
          "/v2/models/..%2fmodels%2fx/infer",
          "/v2/models/x%2finfer",
          "/v2/models/x%2f..%2fx/infer",
          "/v2/models/x/../x/infer",
          "/v2/models//x/infer",
          "/v2/models/x/infer?model=x",
          "/v2/models/x?/infer",
          "/v2/models/x%3f/infer",
          "/v2/models/x%23/infer",
          "/v2/models/x#/infer",
          "/v2/models/x@y/infer",
          "/v2/models/x\\/infer",
          "/v2/models/x%5c/infer",
          "/v2/models/x%0d%0aX:1/infer",
          "/v2/models/x%/infer",
          "/v2/models/x%c0%af/infer",
          `${server.url}/v2/models/x/infer`,
          "//evil.example/v2/models/x/infer",
        ]
      ) match(await post(target), /^HTTP\/1\.1 4\d\d /, target);
      match(await post("/v2/models/x/infer", new URL(server.url).host), /^HTTP\/1\.1 400 /);
      strictEqual(server.requests.length, 1);
    } finally {
      await gate.stop();
      await Deno.remove(noModels);
    }
  });
});

Deno.test("a name with a slash works: in bodies, in paths where it is percent-encoded, and on the way to the upstream", async (test) => {
  await withServers(2, async (servers) => {
    const [server, tensors] = servers;
    ok(server && tensors);
    tensors.plays(answerWell(DOORS.infer, HELLO));
    await throughTheGate({
      upstreams: [
        { name: "a", kind: "openai", url: `${server.url}/v1`, healthSeconds: 3600 },
        { name: "t", kind: "openinference", url: `${tensors.url}/some/base/`, healthSeconds: 3600 },
      ],
      models: [
        {
          id: "org/chat:8b",
          aliases: ["any/alias:1"],
          capabilities: ["chat"],
          servedBy: [{ upstream: "a", model: "Org/Chat-8B" }],
        },
        {
          id: "org/tensors",
          aliases: ["any/tensors"],
          capabilities: ["tensor"],
          servedBy: [{ upstream: "t", model: "Org/Big:1" }],
        },
      ],
    }, async ({ origin, token, fetch, records, lastRequestId }) => {
      const authorization = `Bearer ${token}`;
      for (const name of ["org/chat:8b", "any/alias:1"]) {
        await test.step(name, async () => {
          const response = await fetch(
            `${origin}/v1/chat/completions`,
            requestThrough(door, name, "hi", token),
          );
          // By its id, whatever it was called.
          strictEqual((await response.json()).model, "org/chat:8b");
          const sent = server.requests.at(-1);
          deepStrictEqual([sent?.target, sent?.json().model], ["/v1/chat/completions", "Org/Chat-8B"]);
          const started = records().find(({ request }) => request === lastRequestId());
          strictEqual(started?.model, "org/chat:8b");
          const one = await fetch(`${origin}/v1/models/${encodeURIComponent(name)}`, {
            headers: { authorization },
          });
          strictEqual((await one.json()).id, "org/chat:8b");
        });
      }
      for (const name of ["org/tensors", "any/tensors"]) {
        await test.step(name, async () => {
          const response = await fetch(
            `${origin}${DOORS.infer.path(name)}`,
            requestThrough(DOORS.infer, name, "hi", token),
          );
          strictEqual((await response.json()).model_name, "org/tensors");
          strictEqual(tensors.requests.at(-1)?.target, "/some/base/v2/models/Org%2FBig%3A1/infer");
          const ready = await fetch(`${origin}/v2/models/${encodeURIComponent(name)}/ready`, {
            headers: { authorization },
          });
          deepStrictEqual(await ready.json(), { name: "org/tensors", ready: true });
        });
      }
    });
  });
});
