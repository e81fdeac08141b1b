// Tests of the agent in the trail: sign-ins, tokens and refusals tell what their client calls itself, and never a secret of it.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { openAppUnderTest, PASSWORD, postJson } from "../support/app_under_test.ts";

const AGENT = "acme-client/2.1 (linux)";

Deno.test("a sign-in, a refused one, a refreshed token and a refused request name their client's agent; other events do not", async () => {
  const app = await openAppUnderTest();
  try {
    const withAgent = (init: RequestInit, agent: string): RequestInit => {
      const headers = new Headers(init.headers);
      headers.set("user-agent", agent);
      return { ...init, headers };
    };
    const login = (password: string, agent = AGENT) =>
      app.call("/v1/auth/login", withAgent(postJson({ username: "admin", password }), agent));
    await login("not the password");
    const { access_token: token, refresh_token: refreshToken } = await (await login(PASSWORD)).json();
    const refresh = await app.call("/oauth2/token", {
      method: "POST",
      headers: { "content-type": "application/x-www-form-urlencoded", "user-agent": AGENT },
      body: new URLSearchParams({ grant_type: "refresh_token", refresh_token: refreshToken }).toString(),
    });
    strictEqual(refresh.status, 200, await refresh.text());
    await app.call("/v1/models", withAgent({}, AGENT));
    const body = { model: "open", input: "some words" };
    await app.call("/v1/embeddings", withAgent(postJson(body, token), AGENT));
    await app.call("/v1/models", withAgent({}, `tool/1 ${token}`));
    await app.call("/v1/models");

    const events = app.auditEvents();
    const agents = events.filter((event) => "agent" in event).map(({ type, agent }) => [type, agent]);
    deepStrictEqual(agents, [
      ["session.refused", AGENT],
      ["session.started", AGENT],
      ["token.issued", AGENT],
      ["request.refused", AGENT],
      ["request.refused", "tool/1 [redacted]"],
      ["request.refused", null],
    ]);
    ok(!JSON.stringify(events).includes(token));
    const inference = events.find(({ type }) => type === "inference.started");
    strictEqual(inference?.decision, "allowed");
    const outcome = events.find(({ type }) => type === "inference.finished");
    ok(typeof outcome?.sha256 === "string" && outcome.sha256 === inference?.sha256);
  } finally {
    await app.close();
  }
});
