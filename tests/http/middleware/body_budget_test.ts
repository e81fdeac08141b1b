// Body budget: what bodies under way may hold together and one caller of it, through the whole gate; and that all of it comes back.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../../src/faults/fault.ts";
import { BodyBudget, openBodyBudget } from "../../../src/http/middleware/body_budget.ts";
import { type AppUnderTest, openAppUnderTest, postJson } from "../../support/app_under_test.ts";

const MIB = 1024 * 1024;
const LARGEST = 2 * MIB;
const CHAT = "/v1/chat/completions";
const GOOD = { model: "generalist", messages: [{ role: "user", content: "hello" }] };

async function withApp(
  variables: Record<string, string>,
  test: (app: AppUnderTest) => Promise<void>,
): Promise<void> {
  const app = await openAppUnderTest({
    PORTCULLIS_MEDIA_BODY_BYTES_MAX: String(LARGEST),
    PORTCULLIS_BODY_TIMEOUT_MS: "60000",
    ...variables,
  });
  try {
    await test(app);
  } finally {
    await app.close();
  }
}

interface Unfinished {
  readonly init: RequestInit;
  /** Sends no more, as one that breaks off. */
  breakOff(): void;
  finish(): void;
}

/** A chat of which something is still to come. */
function unfinished(token: string, announcedBytes?: number): Unfinished {
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const body = new ReadableStream<Uint8Array>({
    start(given) {
      controller = given;
      given.enqueue(new TextEncoder().encode(JSON.stringify(GOOD).slice(0, -1)));
    },
  });
  const length: Record<string, string> = announcedBytes === undefined
    ? {}
    : { "content-length": String(announcedBytes) };
  const init = { ...postJson("", token), body };
  return {
    init: { ...init, headers: { ...init.headers, ...length } as Record<string, string> },
    breakOff: () => controller?.error(new Error("gone")),
    finish() {
      controller?.enqueue(new TextEncoder().encode("}"));
      controller?.close();
    },
  };
}

const largest = (token: string): RequestInit => ({
  ...postJson(JSON.stringify(GOOD).padEnd(LARGEST), token),
  headers: { ...postJson("", token).headers, "content-length": String(LARGEST) } as Record<string, string>,
});
const soon = () => new Promise((resolve) => setTimeout(resolve, 20));

Deno.test("OWASP API4: unfinished bodies of one user are refused beyond its share, and another user is served meanwhile", () =>
  withApp({ PORTCULLIS_BODIES_BYTES_MAX: String(16 * MIB) }, async (app) => {
    const [eve, bob] = [await app.tokenFor("user"), await app.tokenFor("operator")];
    const bodies = Array.from({ length: 20 }, () => unfinished(eve, LARGEST));
    const refused: Response[] = [];
    let allRefused = (): void => undefined;
    const whenRefused = new Promise<void>((resolve) => allRefused = resolve);
    const answers = bodies.map(async ({ init }) => {
      const answer = await app.call(CHAT, init);
      if (answer.status === 429 && refused.push(answer) === 18) allRefused();
      return answer.status;
    });
    await whenRefused;
    strictEqual(refused[0]?.headers.get("retry-after"), "1");
    match((await refused[0]?.json()).error.message, /of your requests are under way/);
    const served = await app.call(CHAT, largest(bob));
    strictEqual(served.status, 200, await served.text());
    bodies.forEach(({ finish }) => finish());
    deepStrictEqual((await Promise.all(answers)).filter((status) => status !== 429), [200, 200]);
    strictEqual((await app.call(CHAT, largest(eve))).status, 200);
  }));

Deno.test("a body without a length counts as the largest that its route takes", () =>
  withApp({ PORTCULLIS_BODIES_BYTES_MAX: String(16 * MIB) }, async (app) => {
    const eve = await app.tokenFor("user");
    const bodies = [unfinished(eve), unfinished(eve)];
    const answers = bodies.map(({ init }) => app.call(CHAT, init));
    await soon();
    const length = { "content-length": String(JSON.stringify(GOOD).length) };
    const small = postJson(GOOD, eve);
    const announced = { ...small, headers: { ...small.headers, ...length } as Record<string, string> };
    strictEqual((await app.call(CHAT, announced)).status, 429);
    bodies[0]?.finish();
    strictEqual((await answers[0])?.status, 200);
    strictEqual((await app.call(CHAT, announced)).status, 200);
    // Once it has come as a whole it counts as what it is: a model that takes its time holds no room for nothing.
    const engine = app.engines.get("open");
    ok(engine);
    const { promise, resolve } = Promise.withResolvers<void>();
    const behave = engine.behave;
    engine.behave = async (texts, context) => {
      await promise;
      return await behave(texts, context);
    };
    const slow = (): RequestInit => ({
      ...postJson("", eve),
      body: ReadableStream.from([new TextEncoder().encode('{"model":"open","input":"a"}')]),
    });
    const running = [0, 1, 2, 3].map(async () => {
      await soon();
      return (await app.call("/v1/embeddings", slow())).status;
    });
    await soon();
    await soon();
    strictEqual((await app.call(CHAT, announced)).status, 200);
    resolve();
    deepStrictEqual(await Promise.all(running), [200, 200, 200, 200]);
    bodies[1]?.finish();
    strictEqual((await answers[1])?.status, 200);
  }));

Deno.test("where all of the budget is under way, whoever comes is told that the server is busy", () =>
  // One body may be larger than the budget: then the budget is as large as that body.
  withApp({ PORTCULLIS_BODIES_BYTES_MAX: String(MIB) }, async (app) => {
    const [eve, bob] = [await app.tokenFor("user"), await app.tokenFor("operator")];
    const body = unfinished(eve, LARGEST);
    const answer = app.call(CHAT, body.init);
    await soon();
    const refused = await app.call(CHAT, postJson(GOOD, bob));
    deepStrictEqual([refused.status, refused.headers.get("retry-after")], [503, "1"]);
    strictEqual((await refused.json()).error.code, "overloaded");
    body.finish();
    strictEqual((await answer).status, 200);
    strictEqual((await app.call(CHAT, postJson(GOOD, bob))).status, 200);
  }));

Deno.test("what a body took is given back however its request ends", () =>
  withApp({ PORTCULLIS_BODIES_BYTES_MAX: String(MIB), PORTCULLIS_BODY_TIMEOUT_MS: "300" }, async (app) => {
    const token = await app.tokenFor("user");
    const engine = app.engines.get("open");
    ok(engine);
    engine.behave = () => Promise.reject(new Error("boom"));
    const broken = unfinished(token, LARGEST);
    const endings: [string, number, string, RequestInit][] = [
      ["answered", 200, CHAT, largest(token)],
      ["answered in pieces that nobody reads", 200, CHAT, postJson({ ...GOOD, stream: true }, token)],
      ["no JSON", 400, CHAT, postJson("{".padEnd(MIB), token)],
      ["wrong fields", 422, CHAT, postJson({ ...GOOD, n: "x" }, token)],
      ["an unknown model", 404, CHAT, postJson({ ...GOOD, model: "none" }, token)],
      ["a failing engine", 500, "/v1/embeddings", postJson({ model: "open", input: "a" }, token)],
      ["too slow", 408, CHAT, unfinished(token, LARGEST).init],
      ["too slow without a length", 408, CHAT, unfinished(token).init],
      ["broken off", 400, CHAT, broken.init],
      ["a length that is none", 200, CHAT, {
        ...postJson(GOOD, token),
        headers: { ...postJson("", token).headers, "content-length": "x" } as Record<string, string>,
      }],
      ["a form that is none", 400, "/v1/audio/transcriptions", {
        ...postJson("--b", token),
        headers: { authorization: `Bearer ${token}`, "content-type": "multipart/form-data; boundary=b" },
      }],
      ["a wrong password", 401, "/v1/auth/login", postJson({ username: "x", password: "y".repeat(12) })],
    ];
    for (const [name, status, path, init] of endings) {
      const answer = app.call(path, init);
      if (init === broken.init) setTimeout(() => broken.breakOff(), 20);
      const { status: told, body } = await answer;
      strictEqual(told, status, name);
      // All of it is there again: a body as large as the budget has room, and exactly that.
      const after = await app.call(CHAT, largest(token));
      await after.body?.cancel();
      strictEqual(after.status, 200, `after: ${name}`);
      await body?.cancel();
    }
  }));

Deno.test("an upload that is passed on counts as what is held of it in any case", () =>
  withApp({}, (app) => {
    const route = app.portcullis.routes.find(({ path }) => path === "/v1/audio/transcriptions");
    strictEqual(route?.bodyForm?.heldBytesMax, MIB);
    const others = app.portcullis.routes.filter((each) => each !== route);
    ok(others.every(({ bodyForm }) => bodyForm?.heldBytesMax === undefined));
    return Promise.resolve();
  }));

Deno.test("a caller's share is a quarter, or one largest body where that is more", () => {
  const reasonOf = (budget: BodyBudget, caller: string, bytes: number): string => {
    try {
      budget.take(caller, bytes);
      return "taken";
    } catch (thrown) {
      ok(thrown instanceof Fault);
      return thrown.kind;
    }
  };
  const quarter = openBodyBudget({ bodiesBytesMax: 100, largestBytes: 10 });
  deepStrictEqual([25, 1, 0].map((bytes) => reasonOf(quarter, "eve", bytes)), [
    "taken",
    "rate_limited",
    "taken",
  ]);
  for (const caller of ["a", "b", "c"]) strictEqual(reasonOf(quarter, caller, 25), "taken");
  strictEqual(reasonOf(quarter, "d", 1), "overloaded");
  quarter.giveBack("eve", 25);
  strictEqual(reasonOf(quarter, "d", 1), "taken");
  const small = openBodyBudget({ bodiesBytesMax: 100, largestBytes: 150 });
  deepStrictEqual([150, 1].map((bytes) => reasonOf(small, "eve", bytes)), ["taken", "rate_limited"]);
  strictEqual(reasonOf(small, "bob", 1), "overloaded");
});

Deno.test("whatever is taken and given back, the counts are those of what is out", () => {
  const step = fc.record({ caller: fc.constantFrom("a", "b", "c"), bytes: fc.nat(40), back: fc.boolean() });
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const budget = new BodyBudget({ bytesMax: 100, callerBytesMax: 50, shareUsedUp: "", allUsedUp: "" });
    const out: { caller: string; bytes: number }[] = [];
    const sum = (caller?: string): number =>
      out.reduce((all, each) => caller === undefined || each.caller === caller ? all + each.bytes : all, 0);
    for (const { caller, bytes, back } of steps) {
      const oldest = back ? out.shift() : undefined;
      if (oldest !== undefined) budget.giveBack(oldest.caller, oldest.bytes);
      else {
        const fits = sum(caller) + bytes <= 50 && sum() + bytes <= 100;
        let taken = true;
        try {
          budget.take(caller, bytes);
        } catch {
          taken = false;
        }
        strictEqual(taken, fits);
        if (taken) out.push({ caller, bytes });
      }
      strictEqual(budget.bytes, sum());
    }
  }));
});
