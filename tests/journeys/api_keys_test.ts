// API keys: OpenAI's official client with a key of this server, through the key's whole life.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { calculateJwkThumbprint, exportJWK } from "jose";
import OpenAI from "openai";
import * as oauth from "openid-client";
import { freePort, startServerUnderTest } from "../support/server_under_test.ts";
import {
  type Answer,
  callsOf,
  expectStatus,
  requireIntactTrail,
  requireNowhere,
  signIn,
  trailOf,
  until,
} from "./api_calls.ts";

const PASSWORD = "seven green bicycles by the lake";

Deno.test("an API key works with OpenAI's client within its scope, time and network, and not a moment longer", async (test) => {
  const dataDir = await Deno.makeTempDir();
  const secrets: Record<string, string> = {};
  const keep = (name: string, secret: string): string => secrets[name] = secret;
  // A model beside the local one, behind an upstream that is not there: to be seen or not is all that it is for.
  const variables = {
    PORTCULLIS_UPSTREAMS: JSON.stringify([
      { name: "nowhere", kind: "openai", url: `http://127.0.0.1:${freePort()}/v1` },
    ]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([
      { id: "big-embedder", capabilities: ["embedding"], servedBy: [{ upstream: "nowhere" }] },
    ]),
    // The test's own address is a proxy's, so that it can say where its clients are.
    PORTCULLIS_TRUSTED_PROXIES: "127.0.0.1",
  };
  const server = await startServerUnderTest({ dataDir, variables });
  try {
    await server.whenReady();
    const admin = callsOf(server, (await signIn(server)).access_token);
    const user = await expectStatus(
      admin("POST", "/v1/users", { username: "uma", password: PASSWORD, roles: ["user"] }),
      201,
    );
    const uma = callsOf(server, (await signIn(server, "uma", PASSWORD)).access_token);
    const makeKey = async (order: Record<string, unknown>, calls = uma): Promise<Answer["body"]> => {
      const key = await expectStatus(calls("POST", "/v1/keys", order), 201);
      keep(order.name as string, key.key);
      return key;
    };
    const clientOf = (apiKey: string, from?: string): OpenAI =>
      new OpenAI({
        baseURL: `${server.origin}/v1`,
        apiKey,
        maxRetries: 0,
        ...(from === undefined ? {} : { defaultHeaders: { "x-forwarded-for": from } }),
      });
    const modelsOf = async (client: OpenAI): Promise<readonly string[]> =>
      (await client.models.list()).data.map(({ id }) => id).sort();
    const refused = (key: string, from?: string): Promise<void> =>
      rejects(clientOf(key, from).models.list(), (error: unknown) => {
        ok(error instanceof OpenAI.AuthenticationError, String(error));
        deepStrictEqual([error.status, error.code], [401, "unauthenticated"]);
        match(error.headers.get("www-authenticate") ?? "", /^Bearer .*error="invalid_token"/);
        return true;
      });
    const { data: [first] } = await expectStatus(admin("GET", "/v1/users"), 200);
    strictEqual(first.username, "admin");

    // These two need time; the rest is done meanwhile.
    const short = await makeKey({ name: "a key for a short while", expires_in: 20 });
    const turned = await makeKey({ name: "a key that is rotated" });
    const next = await expectStatus(uma("POST", `/v1/keys/${turned.id}/rotate`, { grace_seconds: 15 }), 200);
    keep("the key after its rotation", next.key);

    await test.step("rotated with a grace, the old secret and the new one work", async () => {
      notStrictEqual(next.key, turned.key);
      strictEqual(next.id, turned.id);
      for (const text of [turned.key, next.key]) ok((await modelsOf(clientOf(text))).includes("use-lite"));
    });

    await test.step("models.list and embeddings.create, as the trail tells by the key's id", async () => {
      const client = clientOf(short.key);
      deepStrictEqual(await modelsOf(client), ["big-embedder", "use-lite"]);
      const { data: [embedded], usage } = await client.embeddings.create({
        model: "use-lite",
        input: "hello there",
      });
      strictEqual(embedded?.embedding.length, 512);
      ok(usage.total_tokens > 0);
      const started = trailOf(dataDir).filter(({ type, credential }) =>
        type === "inference.started" && credential === short.id
      );
      deepStrictEqual(started.map(({ subject, model }) => [subject, model]), [[user.id, "use-lite"]]);
    });

    await test.step("a key for some models: the others are not there for it", async () => {
      const { key } = await makeKey({
        name: "a key for models called use-…",
        scopes: ["model:read/use-*", "model:infer/use-*"],
      });
      const client = clientOf(key);
      deepStrictEqual(await modelsOf(client), ["use-lite"]);
      await client.embeddings.create({ model: "use-lite", input: "hello" });
      for (const model of ["big-embedder", "no-such-model"]) {
        for (
          const asked of [
            () => client.models.retrieve(model),
            () => client.embeddings.create({ model, input: "hello" }),
          ]
        ) {
          await rejects(asked, (error: unknown) => {
            ok(error instanceof OpenAI.NotFoundError, String(error));
            strictEqual(error.code, "model_not_found");
            return true;
          });
        }
      }
      const others = clientOf(
        (await makeKey({ name: "a key for other models", scopes: ["model:infer/b*"] })).key,
      );
      await rejects(others.embeddings.create({ model: "use-lite", input: "hello" }), OpenAI.NotFoundError);
      await rejects(others.models.list(), OpenAI.PermissionDeniedError);
    });

    await test.step("a key does nothing but what its scope says, and gets no scope that its owner has not", async () => {
      const { key } = await makeKey({ name: "a key to look at keys", scopes: ["key:read/own"] });
      const calls = callsOf(server, key);
      ok((await expectStatus(calls("GET", "/v1/keys"), 200)).data.length > 3);
      await expectStatus(calls("GET", "/v1/models"), 403);
      await expectStatus(calls("POST", "/v1/keys", { name: "more" }), 403);
      await expectStatus(calls("POST", "/v1/auth/logout"), 403);
      await expectStatus(uma("POST", "/v1/keys", { name: "too much", scopes: ["user:read"] }), 403);
      await expectStatus(uma("POST", "/v1/keys", { name: "for another", owner: first.id }), 404);
    });

    await test.step("a key for some networks works from there only", async () => {
      const { key } = await makeKey({
        name: "a key of an office",
        addresses: ["10.20.0.0/16", "2001:db8:7::/48"],
      });
      for (const from of ["10.20.3.4", "2001:db8:7::1"]) {
        ok((await modelsOf(clientOf(key, from))).includes("use-lite"), from);
      }
      // The last hop that is not ours counts, whatever a client writes before it.
      for (const from of [undefined, "10.21.0.1", "2001:db8:8::1", "10.20.3.4, 203.0.113.9"]) {
        await refused(key, from);
      }
    });

    await test.step("a key that is bound to a key pair is worth nothing without it (RFC 9449)", async () => {
      const keyPair = await oauth.randomDPoPKeyPair("ES256");
      const jwk = await exportJWK(keyPair.publicKey);
      const bound = await makeKey({ name: "a bound key", dpop_jkt: await calculateJwkThumbprint(jwk) });
      await refused(bound.key);
      const configuration = new oauth.Configuration({ issuer: server.origin }, "portcullis");
      oauth.allowInsecureRequests(configuration);
      configuration[oauth.customFetch] = async (url, options) => {
        const response = await fetch(url, options as RequestInit);
        return new Response(await response.bytes(), response);
      };
      const { status } = await oauth.fetchProtectedResource(
        configuration,
        bound.key,
        new URL(`${server.origin}/v1/models`),
        "GET",
        undefined,
        undefined,
        { DPoP: oauth.getDPoPHandle(configuration, keyPair) },
      );
      strictEqual(status, 200);
    });

    await test.step("the last use shows to the owner", async () => {
      const unused = await makeKey({ name: "a key that nobody uses" });
      const listed = await until(
        () => uma("GET", "/v1/keys"),
        ({ body }) => body.data.find(({ id }: { id: string }) => id === short.id).last_used_at !== null,
      );
      const keys = new Map(listed.body.data.map((key: { id: string }) => [key.id, key]));
      strictEqual((keys.get(unused.id) as Answer["body"]).last_used_at, null);
      ok(!listed.text.includes(short.key) && !listed.text.includes("secret"));
    });

    await test.step("a disabled owner's keys rest, and wake up with the owner", async () => {
      const { key } = await makeKey({ name: "a key of one who is disabled" });
      const client = clientOf(key);
      await modelsOf(client);
      await expectStatus(admin("PATCH", `/v1/users/${user.id}`, { disabled: true }), 200);
      await refused(key);
      await expectStatus(admin("PATCH", `/v1/users/${user.id}`, { disabled: false }), 200);
      ok((await modelsOf(client)).includes("use-lite"));
    });

    // Whoever was disabled is signed out.
    const again = callsOf(server, (await signIn(server, "uma", PASSWORD)).access_token);

    await test.step("a key of a client speaks for the client, and ends with it", async () => {
      const robot = await expectStatus(
        admin("POST", "/v1/clients", { name: "robot", roles: ["user"], authentication: "secret" }),
        201,
      );
      keep("the robot's secret", robot.secret);
      const { key, id, owner } = await makeKey({ name: "a key of a robot", owner: robot.id }, admin);
      strictEqual(owner, robot.id);
      await clientOf(key).embeddings.create({ model: "use-lite", input: "hello" });
      deepStrictEqual(
        trailOf(dataDir).filter(({ credential }) => credential === id).map((
          { type, subject },
        ) => [type, subject]),
        [["inference.started", robot.id], ["inference.finished", robot.id]],
      );
      // It is nobody else's.
      await expectStatus(again("GET", `/v1/keys/${id}`), 404);
      await expectStatus(again("DELETE", `/v1/keys/${id}`), 404);
      await expectStatus(admin("PATCH", `/v1/clients/${robot.id}`, { disabled: true }), 200);
      await refused(key);
      await expectStatus(admin("PATCH", `/v1/clients/${robot.id}`, { disabled: false }), 200);
      await modelsOf(clientOf(key));
      await expectStatus(admin("DELETE", `/v1/clients/${robot.id}`), 204);
      await refused(key);
      await expectStatus(admin("GET", `/v1/keys/${id}`), 404);
    });

    await test.step("a deleted key is refused at the next request, and others go on", async () => {
      const [gone, stays] = [
        await makeKey({ name: "a key that is deleted" }, again),
        await makeKey({ name: "a key that stays" }, again),
      ];
      const client = clientOf(gone.key);
      await modelsOf(client);
      await expectStatus(again("DELETE", `/v1/keys/${gone.id}`), 204);
      await refused(gone.key);
      await modelsOf(clientOf(stays.key));
      await expectStatus(again("DELETE", `/v1/keys/${gone.id}`), 404);
    });

    await test.step("after the grace only the new secret works, and a rotation without one ends the old at once", async () => {
      await until(
        () => callsOf(server, turned.key)("GET", "/v1/models"),
        ({ status }) => status !== 200,
      );
      await refused(turned.key);
      await modelsOf(clientOf(next.key));
      const last = await expectStatus(again("POST", `/v1/keys/${turned.id}/rotate`, {}), 200);
      keep("the key after its last rotation", last.key);
      await refused(next.key);
      await modelsOf(clientOf(last.key));
    });

    await test.step("an expired key is refused, and the trail tells why", async () => {
      await until(() => callsOf(server, short.key)("GET", "/v1/models"), ({ status }) => status !== 200);
      await refused(short.key);
      const expired = trailOf(dataDir).filter(({ reason }) => /: key_expired\b/.test(String(reason)));
      ok(expired.length > 0 && expired.every((event) => JSON.stringify(event).includes(short.id)));
    });
  } finally {
    await server.stop();
  }
  try {
    await requireIntactTrail(dataDir);
    requireNowhere(secrets, dataDir, server.output());
    ok(!/"level":"error"/.test(server.output()), server.output());
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});
