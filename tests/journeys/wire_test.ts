// On the wire: what only a raw socket can send, against the real server.
import { match, ok, strictEqual } from "node:assert/strict";
import { rawRequest, startServerUnderTest } from "../support/server_under_test.ts";

Deno.test("hostile requests on a raw socket are refused by the real server", async (test) => {
  const server = await startServerUnderTest();
  const host = `127.0.0.1:${server.port}`;
  const statusOf = (answer: string): string =>
    /^HTTP\/1\.[01] (\d{3})/.exec(answer)?.[1] ?? `no answer: ${answer.slice(0, 80)}`;
  const send = (head: string, body = ""): Promise<string> =>
    rawRequest(server.port, `${head}\r\nConnection: close\r\n\r\n${body}`);
  try {
    for (
      const [what, head, expected] of [
        ["no Host", "GET /v1/models HTTP/1.1", "400"],
        ["an empty Host", "GET /v1/models HTTP/1.1\r\nHost:", "400"],
        ["two Hosts", `GET /v1/models HTTP/1.1\r\nHost: ${host}\r\nHost: ${host}`, "400"],
        [
          "a Host that hides the path behind a fragment",
          `GET /v1/models HTTP/1.1\r\nHost: ${host}/healthz#`,
          "400",
        ],
        [
          "a Host that hides the path behind a query",
          `GET /v1/models HTTP/1.1\r\nHost: ${host}/healthz?x=`,
          "400",
        ],
        ["a Host with user info", `GET /healthz HTTP/1.1\r\nHost: evil@${host}`, "400"],
        ["a Host with a space", "GET /healthz HTTP/1.1\r\nHost: a b", "400"],
        ["another Host", "GET /healthz HTTP/1.1\r\nHost: evil.example", "400"],
        [
          "an absolute target of another host",
          `GET http://evil.example/healthz HTTP/1.1\r\nHost: ${host}`,
          "400",
        ],
        ["a protocol-relative path", `GET //evil.example/healthz HTTP/1.1\r\nHost: ${host}`, "404"],
        ["a path that climbs, encoded twice", `GET /v1/%252e%252e/healthz HTTP/1.1\r\nHost: ${host}`, "404"],
        ["TRACE", `TRACE /healthz HTTP/1.1\r\nHost: ${host}`, "501"],
        ["CONNECT", `CONNECT ${host} HTTP/1.1\r\nHost: ${host}`, "501"],
        ["a method that the parser does not know", `BREW /healthz HTTP/1.1\r\nHost: ${host}`, "400"],
        [
          "a method override",
          `POST /healthz HTTP/1.1\r\nHost: ${host}\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0`,
          "405",
        ],
        [
          "half an escape, which routers repair in their own ways",
          `GET /v1/models/a%2%46b HTTP/1.1\r\nHost: ${host}`,
          "400",
        ],
        ["an over-long target", `GET /${"a".repeat(4000)} HTTP/1.1\r\nHost: ${host}`, "400"],
        [
          "length and chunks at once",
          `POST /v1/auth/login HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked`,
          "400",
        ],
        [
          "two lengths",
          `POST /v1/auth/login HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3`,
          "400",
        ],
        ["a space before the colon", `GET /healthz HTTP/1.1\r\nHost : ${host}`, "400"],
        [
          "two credentials",
          `GET /v1/models HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b`,
          "401",
        ],
      ] as const
    ) {
      await test.step(`${what}: ${expected}`, async () => {
        const answer = await send(head);
        strictEqual(statusOf(answer), expected, answer.slice(0, 300));
        ok(!/^server:|^x-powered-by:|deno|hono/im.test(answer), answer);
      });
    }

    await test.step("a good request is answered with the length that it announces, and HEAD without a body", async () => {
      const get = await send(`GET /healthz HTTP/1.1\r\nHost: ${host}`);
      const [head = "", body = ""] = get.split("\r\n\r\n");
      strictEqual(Number(/content-length: (\d+)/i.exec(head)?.[1]), body.length);
      const headOnly = await send(`HEAD /healthz HTTP/1.1\r\nHost: ${host}`);
      strictEqual(headOnly.split("\r\n\r\n")[1], "");
      strictEqual(/content-length: (\d+)/i.exec(headOnly)?.[1], String(body.length), headOnly);
    });

    await test.step("a chunked body beyond the limit is refused before all of it has come", async () => {
      const chunk = `10000\r\n${"x".repeat(0x10000)}\r\n`;
      const head =
        `POST /v1/auth/login HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`;
      // No last chunk: a server that waited for the end would not answer.
      strictEqual(statusOf(await rawRequest(server.port, head + chunk.repeat(17), 1000)), "413");
    });

    await test.step("a header cannot be forged into the log: one request, one line", async () => {
      const marker = "forged-line";
      await send(
        `GET /nope HTTP/1.1\r\nHost: ${host}\r\nX-Forwarded-For: ${marker}\r\nUser-Agent: ${marker}`,
      );
      ok(!server.output().includes(marker));
    });

    await test.step("the server is well after all that", async () => {
      match(await send(`GET /healthz HTTP/1.1\r\nHost: ${host}`), /^HTTP\/1\.1 200/);
    });
  } finally {
    await server.stop();
  }
});

Deno.test("a body that arrives too slowly is answered 408 by the real server", async () => {
  const server = await startServerUnderTest({ variables: { PORTCULLIS_BODY_TIMEOUT_MS: "300" } });
  try {
    const head =
      `POST /v1/auth/login HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`;
    match(await rawRequest(server.port, head, 1500), /^HTTP\/1\.1 408/);
  } finally {
    await server.stop();
  }
});
