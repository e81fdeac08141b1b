// People: a small team's days by HTTP alone, over a restart and the commands for when the server is stopped.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { createLocalJWKSet, decodeProtectedHeader, type JSONWebKeySet, jwtVerify } from "jose";
import {
  ADMIN_PASSWORD,
  environmentOfServers,
  freePort,
  type ServerUnderTest,
  startServerUnderTest,
} from "../support/server_under_test.ts";
import {
  type Answer,
  type Call,
  callsOf,
  expectStatus,
  pause,
  refreshForm,
  requireIntactTrail,
  requireNowhere,
  type SignedIn,
  signIn,
  type TrailEvent,
  trailOf,
} from "./api_calls.ts";

const ROOT = `${import.meta.dirname}/../..`;
const TESSA = "violet umbrellas over the harbour";
const UMA = "seven green bicycles by the lake";
const UMA_NEXT = "nine yellow kettles on the roof";
const HOME = { "x-forwarded-for": "198.51.100.7" };
const OFFICE = { "x-forwarded-for": "203.0.113.9" };

/** A change that was asked for and made. */
interface MadeChange {
  readonly request: string;
  readonly by: string;
  readonly name: string;
  readonly kind: "made" | "changed" | "removed" | "done";
}

Deno.test("a small team's days: people, roles, sessions and keys, over a restart and the offline commands", async (test) => {
  const dataDir = await Deno.makeTempDir();
  const port = freePort();
  const variables = {
    PORTCULLIS_PORT: String(port),
    PORTCULLIS_DATA_DIR: dataDir,
    PORTCULLIS_ADMIN_PASSWORD: ADMIN_PASSWORD,
    PORTCULLIS_RATE_ADDRESS_PER_MINUTE: "1000000",
    PORTCULLIS_RATE_SIGN_IN_PER_MINUTE: "1000000",
    PORTCULLIS_RATE_TOKEN_PER_MINUTE: "1000000",
    PORTCULLIS_RATE_USER_PER_MINUTE: "1000000",
    PORTCULLIS_TRUSTED_PROXIES: "127.0.0.1",
    PORTCULLIS_UPSTREAMS: JSON.stringify([
      { name: "nowhere", kind: "openai", url: `http://127.0.0.1:${freePort()}/v1` },
    ]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([
      { id: "big-embedder", capabilities: ["embedding"], servedBy: [{ upstream: "nowhere" }] },
    ]),
  };
  const secrets: Record<string, string> = {
    "the admin's password": ADMIN_PASSWORD,
    "tessa's password": TESSA,
    "uma's password": UMA,
    "uma's second password": UMA_NEXT,
  };
  const keep = (name: string, secret: string): string => secrets[`${name} ${secret.slice(-6)}`] = secret;
  const changes: MadeChange[] = [];
  let said = "";
  let server: ServerUnderTest | undefined;
  const origin = `http://127.0.0.1:${port}`;
  const here = { origin };
  const start = async (): Promise<void> => {
    server = await startServerUnderTest({ dataDir, variables });
    await server.whenReady();
  };
  const stop = async (): Promise<void> => {
    const running = server;
    server = undefined;
    if (running === undefined) return;
    strictEqual((await running.stop()).code, 0);
    said += running.output();
  };

  /** Somebody at work: what they change has to be in the trail under their name. */
  const worker = (calls: Call, by: string) => ({
    ask: calls,
    async change(method: string, path: string, body?: unknown): Promise<Answer["body"]> {
      const answer = await calls(method, path, body);
      ok(answer.status < 300, `${method} ${path}: ${answer.text}`);
      const kind = answer.status === 201
        ? "made"
        : method === "DELETE" && answer.status === 204
        ? "removed"
        : /\/(?:password|unlock|rotate)$/.test(path)
        ? "done"
        : "changed";
      changes.push({ request: answer.request, by, name: `${method} ${path}`, kind });
      return answer.body;
    },
  });
  const signInAs = async (
    username: string,
    password: string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<SignedIn> => {
    const signedIn = await signIn(here, username, password, headers);
    keep(`${username}'s access token`, signedIn.access_token);
    keep(`${username}'s refresh token`, signedIn.refresh_token);
    return signedIn;
  };
  const login = (username: string, password: string, headers: Readonly<Record<string, string>> = {}) =>
    callsOf(here)("POST", "/v1/auth/login", { username, password }, headers);
  const refresh = (token: string) => callsOf(here)("POST", "/oauth2/token", refreshForm(token));
  const modelsWith = (token: string) => callsOf(here, token)("GET", "/v1/models");
  const statusWith = async (token: string): Promise<number> => (await modelsWith(token)).status;
  const namesWith = async (token: string): Promise<readonly string[]> =>
    (await expectStatus(modelsWith(token), 200)).data.map(({ id }: { id: string }) => id).sort();
  const keySet = async (): Promise<JSONWebKeySet> =>
    await expectStatus(callsOf(here)("GET", "/.well-known/jwks.json"), 200);
  /** As a resource server of another make would. */
  const verifyByKeySet = async (token: string): Promise<string> => {
    const { protectedHeader } = await jwtVerify(token, createLocalJWKSet(await keySet()), {
      issuer: origin,
      audience: origin,
      typ: "at+jwt",
    });
    return protectedHeader.kid ?? "";
  };

  try {
    await start();
    const firstSignIn = await signInAs("admin", ADMIN_PASSWORD);
    const { data: [first] } = await expectStatus(
      callsOf(here, firstSignIn.access_token)("GET", "/v1/users"),
      200,
    );
    const admin = worker(callsOf(here, firstSignIn.access_token), first.id);

    let tessa = admin;
    let uma: Answer["body"];
    await test.step("the admin makes a team and its team-admin, who makes a user: not with a common password", async () => {
      await admin.change("POST", "/v1/teams", { id: "lab", description: "The laboratory" });
      const made = await admin.change("POST", "/v1/users", {
        username: "tessa",
        password: TESSA,
        roles: ["team-admin", "user"],
        team: "lab",
      });
      tessa = worker(callsOf(here, (await signInAs("tessa", TESSA)).access_token), made.id);
      const order = { username: "uma", roles: ["user"] };
      for (const password of ["Password1234!", "qwertyuiopasdf", "umaumaumauma", "too short"]) {
        const refused = await tessa.ask("POST", "/v1/users", { ...order, password });
        strictEqual(refused.status, 422, password);
        deepStrictEqual(refused.body.errors.map(({ pointer }: { pointer: string }) => pointer), [
          "/password",
        ]);
        ok(!refused.text.includes(password));
      }
      uma = await tessa.change("POST", "/v1/users", { ...order, password: UMA });
      deepStrictEqual([uma.team, uma.roles], ["lab", ["user"]]);
      strictEqual((await tessa.ask("POST", "/v1/users", { ...order, password: UMA })).status, 409);
    });

    await test.step("a team-admin gives no more than she has, and does not see other teams", async () => {
      const order = { username: "eve", password: UMA_NEXT };
      strictEqual((await tessa.ask("POST", "/v1/users", { ...order, roles: ["admin"] })).status, 403);
      strictEqual(
        (await tessa.ask("POST", "/v1/users", { ...order, roles: ["user"], team: "default" })).status,
        404,
      );
      strictEqual((await tessa.ask("GET", `/v1/users/${first.id}`)).status, 404);
      strictEqual((await tessa.ask("PATCH", `/v1/users/${uma.id}`, { roles: ["admin"] })).status, 403);
      strictEqual((await tessa.ask("POST", "/v1/teams", { id: "another" })).status, 403);
      const { data } = await expectStatus(tessa.ask("GET", "/v1/users"), 200);
      deepStrictEqual(data.map(({ username }: { username: string }) => username).sort(), ["tessa", "uma"]);
    });

    await test.step("she signs in from two places, sees both, and ends one", async () => {
      const [home, office] = [await signInAs("uma", UMA, HOME), await signInAs("uma", UMA, OFFICE)];
      const atHome = worker(callsOf(here, home.access_token), uma.id);
      const { data: sessions } = await expectStatus(atHome.ask("GET", "/v1/auth/sessions"), 200);
      deepStrictEqual(
        sessions.map(({ network, current }: { network: string; current: boolean }) => [network, current]),
        [["198.51.100.7", true], ["203.0.113.9", false]],
      );
      await atHome.change("DELETE", `/v1/auth/sessions/${sessions[1].id}`);
      strictEqual(await statusWith(office.access_token), 401);
      strictEqual((await refresh(office.refresh_token)).status, 400);
      strictEqual(await statusWith(home.access_token), 200);
      // Those of others are not there for her.
      const { data: [theirs] } = await expectStatus(tessa.ask("GET", "/v1/auth/sessions"), 200);
      strictEqual((await atHome.ask("DELETE", `/v1/auth/sessions/${theirs.id}`)).status, 404);
    });

    await test.step("she changes the password: her other sessions end; then she signs out everywhere", async () => {
      const [home, office] = [await signInAs("uma", UMA, HOME), await signInAs("uma", UMA, OFFICE)];
      const atHome = worker(callsOf(here, home.access_token), uma.id);
      const change = (current: string, next: string) => ({ current_password: current, new_password: next });
      strictEqual((await atHome.ask("POST", "/v1/auth/password", change("wrong one", UMA_NEXT))).status, 401);
      strictEqual((await atHome.ask("POST", "/v1/auth/password", change(UMA, "Password1234!"))).status, 422);
      await atHome.change("POST", "/v1/auth/password", change(UMA, UMA_NEXT));
      strictEqual(await statusWith(office.access_token), 401);
      strictEqual((await refresh(office.refresh_token)).status, 400);
      strictEqual(await statusWith(home.access_token), 200);
      strictEqual((await login("uma", UMA)).status, 401);

      const more = await signInAs("uma", UMA_NEXT, OFFICE);
      const { ended } = await atHome.change("DELETE", "/v1/auth/sessions");
      strictEqual(ended, 2);
      for (const { access_token: token, refresh_token: refreshToken } of [home, more]) {
        strictEqual(await statusWith(token), 401);
        strictEqual((await refresh(refreshToken)).status, 400);
      }
    });

    await test.step("a user who is disabled is out at the next request, and is told nothing at the door", async () => {
      const signedIn = await signInAs("uma", UMA_NEXT);
      strictEqual(await statusWith(signedIn.access_token), 200);
      await admin.change("PATCH", `/v1/users/${uma.id}`, { disabled: true });
      strictEqual(await statusWith(signedIn.access_token), 401);
      strictEqual((await refresh(signedIn.refresh_token)).status, 400);
      const [disabled, wrong] = [await login("uma", UMA_NEXT), await login("uma", "a wrong password")];
      const { instance: _, ...words } = disabled.body;
      const { instance: __, ...otherWords } = wrong.body;
      deepStrictEqual([disabled.status, words], [wrong.status, otherWords]);
      await admin.change("PATCH", `/v1/users/${uma.id}`, { disabled: false });
      // The old tokens stay dead.
      strictEqual(await statusWith(signedIn.access_token), 401);
    });

    await test.step("a custom role with a pattern of models holds from the next request on, and so does each change of it", async () => {
      const { access_token: token } = await signInAs("uma", UMA_NEXT);
      const embed = async (model: string): Promise<number> =>
        (await callsOf(here, token)("POST", "/v1/embeddings", { model, input: "hello" })).status;
      deepStrictEqual(await namesWith(token), ["big-embedder", "use-lite"]);
      const grants = ["model:read/use-*", "model:infer/use-*"];
      await admin.change("PUT", "/v1/roles/lab/embedder", { description: "Small models", grants });
      // What opens models past their cards, only the admin gives; nor may others touch who has it.
      const given = { roles: ["embedder"] };
      strictEqual((await tessa.ask("PATCH", `/v1/users/${uma.id}`, given)).status, 403);
      await admin.change("PATCH", `/v1/users/${uma.id}`, given);
      strictEqual((await tessa.ask("PATCH", `/v1/users/${uma.id}`, { roles: ["user"] })).status, 403);
      deepStrictEqual(await namesWith(token), ["use-lite"]);
      deepStrictEqual([await embed("use-lite"), await embed("big-embedder")], [200, 404]);
      // Besides models, a custom role gives what everybody may do with what is their own, and no more.
      strictEqual((await callsOf(here, token)("GET", "/v1/auth/sessions")).status, 200);
      strictEqual((await callsOf(here, token)("GET", "/v1/teams")).status, 403);
      await admin.change("PUT", "/v1/roles/lab/embedder", { grants: ["model:read/use-*"] });
      strictEqual(await embed("use-lite"), 403);
      strictEqual((await admin.ask("DELETE", "/v1/roles/lab/embedder")).status, 409, "it is held");
      await admin.change("PATCH", `/v1/users/${uma.id}`, { roles: [] });
      strictEqual(await statusWith(token), 403);
      await admin.change("DELETE", "/v1/roles/lab/embedder");
      await admin.change("PUT", "/v1/roles/lab/embedder", { description: "Small models", grants });
      await admin.change("PATCH", `/v1/users/${uma.id}`, given);
      strictEqual(await embed("use-lite"), 200);
    });

    await test.step("wrong passwords lead to 429 with Retry-After, and an admin's unlock ends that at once", async () => {
      let waitSeconds = 0;
      let wrong = 0;
      // Until the wait is so long that nobody can have waited by accident.
      while (waitSeconds < 4) {
        const answer = await login("uma", "a wrong password", OFFICE);
        if (answer.status === 401) wrong++;
        else {
          strictEqual(answer.status, 429, answer.text);
          const retryAfter = answer.headers.get("retry-after") ?? "";
          match(retryAfter, /^[1-9]\d*$/);
          waitSeconds = Number(retryAfter);
          if (waitSeconds < 4) await pause(waitSeconds * 1000);
        }
        ok(wrong < 20, "nothing slows the guessing");
      }
      strictEqual((await login("uma", UMA_NEXT, OFFICE)).status, 429);
      // At home nobody is locked out by it.
      await signInAs("uma", UMA_NEXT, HOME);
      const { unlocked } = await admin.change("POST", `/v1/users/${uma.id}/unlock`);
      strictEqual(unlocked, true);
      await signInAs("uma", UMA_NEXT, OFFICE);
    });

    await test.step("nobody disables, demotes or deletes themselves", async () => {
      for (
        const [method, body] of [["PATCH", { disabled: true }], ["PATCH", { roles: [] }], ["DELETE"]] as const
      ) strictEqual((await admin.ask(method, `/v1/users/${first.id}`, body)).status, 409);
    });

    const kept = await signInAs("uma", UMA_NEXT);
    let [firstKey, secondKey] = ["", ""];
    let newer = kept;
    await test.step("the signing key is rotated: old tokens work, the key set has both, new tokens verify", async () => {
      firstKey = await verifyByKeySet(kept.access_token);
      secondKey = (await admin.change("POST", "/v1/signing-keys/rotate")).key_id;
      notStrictEqual(secondKey, firstKey);
      deepStrictEqual((await keySet()).keys.map(({ kid }) => kid), [secondKey, firstKey]);
      newer = await signInAs("uma", UMA_NEXT);
      for (const [token, key] of [[kept.access_token, firstKey], [newer.access_token, secondKey]] as const) {
        strictEqual(await verifyByKeySet(token), key);
        strictEqual(await statusWith(token), 200);
      }
    });

    const key = await admin.change("POST", "/v1/keys", { name: "night job", owner: first.id });
    keep("an API key", key.key);
    const robot = await admin.change("POST", "/v1/clients", {
      name: "robot",
      team: "lab",
      roles: ["embedder"],
      authentication: "secret",
    });
    keep("the robot's secret", robot.secret);
    const robotToken = async (): Promise<string> => {
      const { access_token: token } = await expectStatus(
        callsOf(here, `Basic ${btoa(`${robot.id}:${robot.secret}`)}`)(
          "POST",
          "/oauth2/token",
          "grant_type=client_credentials",
        ),
        200,
      );
      return keep("the robot's token", token);
    };
    deepStrictEqual(await namesWith(await robotToken()), ["use-lite"]);
    strictEqual(await statusWith(key.key), 200);
    const { refresh_token: second } = await expectStatus(refresh(kept.refresh_token), 200);
    keep("uma's refresh token", second);
    const ended = await signInAs("uma", UMA_NEXT);
    await expectStatus(callsOf(here, ended.access_token)("POST", "/v1/auth/logout"), 204);

    await test.step("while the server runs, the offline commands refuse and say what to do instead", async () => {
      for (const command of [["user:password", "uma"], ["signing-key:rotate"]]) {
        const { code, output } = await runTask(command, variables);
        strictEqual(code, 1, output);
        match(output, /a server runs on .*Stop it first, or ask it: POST \/v1\/signing-keys\/rotate/);
      }
      await expectStatus(modelsWith(newer.access_token), 200);
    });

    await stop();
    await start();

    await test.step("after a restart everybody and everything is as before", async () => {
      deepStrictEqual((await keySet()).keys.map(({ kid }) => kid), [secondKey, firstKey]);
      for (const token of [firstSignIn.access_token, kept.access_token, newer.access_token, key.key]) {
        strictEqual(await statusWith(token), 200);
      }
      strictEqual(await statusWith(ended.access_token), 401);
      deepStrictEqual(await namesWith(newer.access_token), ["use-lite"]);
      deepStrictEqual(await namesWith(await robotToken()), ["use-lite"]);
      strictEqual(decodeProtectedHeader((await signInAs("tessa", TESSA)).access_token).kid, secondKey);
      const { data: teams } = await expectStatus(admin.ask("GET", "/v1/teams"), 200);
      deepStrictEqual(teams.map(({ id }: { id: string }) => id), ["default", "lab"]);
      const { data: keys } = await expectStatus(admin.ask("GET", "/v1/keys"), 200);
      deepStrictEqual(keys.map(({ id }: { id: string }) => id), [key.id]);
      ok(keys[0].last_used_at > 0);
      const { data: roles } = await expectStatus(admin.ask("GET", "/v1/roles"), 200);
      ok(
        roles.some(({ team, name }: { team: string; name: string }) => team === "lab" && name === "embedder"),
      );
      const { data: sessions } = await expectStatus(
        callsOf(here, newer.access_token)("GET", "/v1/auth/sessions"),
        200,
      );
      ok(sessions.length >= 2 && sessions.some(({ current }: { current: boolean }) => current));
      // Refresh tokens go on, and one that was used before the restart is known as such.
      const third = await expectStatus(refresh(second), 200);
      keep("uma's refresh token", third.refresh_token);
      strictEqual((await refresh(kept.refresh_token)).status, 400);
      strictEqual((await refresh(third.refresh_token)).status, 400);
      strictEqual(await statusWith(kept.access_token), 401);
      strictEqual(trailOf(dataDir).filter(({ type }) => type === "session.reuse_detected").length, 1);
    });

    await stop();
    let password = "";
    let thirdKey = "";
    await test.step("with the server stopped, a password is set and the signing key rotated by command", async () => {
      const set = await runTask(["user:password", "uma"], variables);
      strictEqual(set.code, 0, set.output);
      password = keep("the password by command", /^password +(\S{20,})/m.exec(set.output)?.[1] ?? "");
      match(set.output, /^sessions +[1-9]\d* ended$/m);
      match(set.output, /^API keys +\d+ go on working/m);
      const rotated = await runTask(["signing-key:rotate"], variables);
      strictEqual(rotated.code, 0, rotated.output);
      thirdKey = /^signs now +(\S+)$/m.exec(rotated.output)?.[1] ?? "";
      ok(rotated.output.includes(secondKey));
      const nobody = await runTask(["user:password", "nobody"], variables);
      strictEqual(nobody.code, 1);
      match(nobody.output, /there is no user "nobody"/);
      deepStrictEqual(
        trailOf(dataDir).filter(({ type }) => type === "command.changed")
          .map(({ command, object, before, after }) => [command, object, before, after]),
        [
          ["first start", "signing_key", null, { active: firstKey }],
          ["user:password", `user/${uma.id}`, null, { password: "changed" }],
          ["signing-key:rotate", "signing_key", { active: secondKey }, null],
        ],
      );
    });

    await start();
    await test.step("and the server goes on from there", async () => {
      strictEqual(await statusWith(newer.access_token), 401);
      strictEqual((await refresh(newer.refresh_token)).status, 400);
      strictEqual((await login("uma", UMA_NEXT)).status, 401);
      const { access_token: token } = await signInAs("uma", password);
      strictEqual(await verifyByKeySet(token), thirdKey);
      deepStrictEqual((await keySet()).keys.map(({ kid }) => kid), [thirdKey, secondKey, firstKey]);
      strictEqual(await statusWith(firstSignIn.access_token), 200);
      strictEqual(await statusWith(key.key), 200);
    });

    await test.step("a user, a key, a client and the team go, and nothing of theirs works any more", async () => {
      const { access_token: token } = await signInAs("uma", password);
      await admin.change("DELETE", `/v1/keys/${key.id}`);
      strictEqual(await statusWith(key.key), 401);
      const robots = await robotToken();
      await admin.change("DELETE", `/v1/clients/${robot.id}`);
      strictEqual(await statusWith(robots), 401);
      strictEqual((await admin.ask("DELETE", "/v1/teams/lab")).status, 409);
      const temp = await tessa.change("POST", "/v1/users", {
        username: "temp",
        password: UMA,
        roles: ["user"],
      });
      await tessa.change("DELETE", `/v1/users/${temp.id}`);
      strictEqual((await tessa.ask("DELETE", `/v1/users/${uma.id}`)).status, 403);
      await admin.change("DELETE", `/v1/users/${uma.id}`);
      strictEqual(await statusWith(token), 401);
      await admin.change("DELETE", `/v1/users/${(await userCalled(admin.ask, "tessa")).id}`);
      await admin.change("DELETE", "/v1/roles/lab/embedder");
      await admin.change("DELETE", "/v1/teams/lab");
      strictEqual((await admin.ask("GET", "/v1/teams/lab")).status, 404);
    });
  } finally {
    await stop().catch(() => {});
  }
  try {
    await test.step("every change has one record, with who made it and what it was before and after", () =>
      requireRecorded(changes, trailOf(dataDir), origin));
    await requireIntactTrail(dataDir);
    requireNowhere(secrets, dataDir, said);
    ok(!/"level":"error"/.test(said), said);
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

async function userCalled(calls: Call, username: string): Promise<Answer["body"]> {
  const { data } = await expectStatus(calls("GET", "/v1/users"), 200);
  return data.find((user: { username: string }) => user.username === username);
}

function requireRecorded(
  changes: readonly MadeChange[],
  trail: readonly TrailEvent[],
  issuer: string,
): void {
  ok(changes.length > 20);
  for (const { request, by, name, kind } of changes) {
    const records = trail.filter((event) => event.request === request && event.type === "object.changed");
    strictEqual(records.length, 1, name);
    const { before, after, credential, team, route, ...record } = records[0] ?? {};
    deepStrictEqual([record.issuer, record.subject], [issuer, by], name);
    ok([credential, team, record.action, record.object].every((each) => typeof each === "string"), name);
    ok(name.startsWith(String(route).split(/[ {]/).slice(0, 2).join(" ")), `${name}: ${route}`);
    const has = [before !== null, after !== null];
    if (name.endsWith("/v1/signing-keys/rotate")) deepStrictEqual(has, [true, false], name);
    else if (kind === "made") deepStrictEqual(has, [false, true], name);
    else if (kind === "removed") deepStrictEqual(has, [true, false], name);
    else if (kind === "done") strictEqual(has[1], true, name);
    else deepStrictEqual(has, [true, true], name);
    notStrictEqual(JSON.stringify(before), JSON.stringify(after), name);
  }
}

/** A task of deno.json as a person runs it. */
async function runTask(
  command: readonly string[],
  variables: Readonly<Record<string, string>>,
): Promise<{ readonly code: number; readonly output: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", ...command],
    cwd: ROOT,
    env: { ...environmentOfServers(), ...variables, NO_COLOR: "1" },
    clearEnv: true,
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
}
