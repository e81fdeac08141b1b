// The listener against real sockets: what the app is given, what the client gets, and that neither can hang or end the other.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import fc from "fast-check";
import {
  type AnswerPieces,
  type Listener,
  type ListenerApp,
  type ListenerSettings,
  openListener,
  type PlainAnswer,
} from "../src/listener.ts";

const HOST = "Host: 127.0.0.1\r\n";
const LONG_MS = 10_000;

Deno.test("the app is given method, target, fields and peer as they came", async () => {
  const app: ListenerApp = async (request, peer) => {
    const { method, url, headers } = request;
    const seen = {
      method,
      url,
      field: headers.get("X-Field"),
      has: headers.has("x-field"),
      none: headers.get("no"),
    };
    return text(JSON.stringify({ ...seen, peer: peer.remoteAddr.hostname, body: await bodyText(request) }));
  };
  await withListener(app, async ({ port }) => {
    const seen = async (head: string): Promise<Record<string, unknown>> => {
      const { status, body } = parseAnswer(await exchange(port, `${head}\r\nConnection: close\r\n\r\n`));
      strictEqual(status, 200, head);
      return JSON.parse(body);
    };
    deepStrictEqual(await seen("GET /a/../b?c=%2e HTTP/1.1\r\nHost: one:80\r\nx-Field: 1\r\nX-FIELD: 2"), {
      method: "GET",
      url: "http://one:80/a/../b?c=%2e",
      field: "1, 2",
      has: true,
      none: null,
      peer: "127.0.0.1",
      body: "",
    });
    for (
      const [target, host, url] of [
        ["http://two/x", "one", "http://two/x"],
        ["http://[", "one", "http://["],
        ["//two/x", "one", "http://one//two/x"],
        ["/admin", "x/public#", "http://x/public#/admin"],
        ["/", "a b", "http://a b/"],
        ["/", "", "http:///"],
      ] as const
    ) strictEqual((await seen(`GET ${target} HTTP/1.1\r\nHost: ${host}`)).url, url);
    strictEqual((await seen("OPTIONS * HTTP/1.1\r\nHost: one")).url, "http://one/*");
    strictEqual((await seen("GET * HTTP/1.1\r\nHost: one")).url, "*");
    strictEqual((await seen("TRACE /x HTTP/1.1\r\nHost: one")).method, "TRACE");
    strictEqual((await seen("GET / HTTP/1.0\r\nHost: one")).url, "http://one/");
    strictEqual((await seen("GET / HTTP/1.1\r\nHost: one\r\nUpgrade: websocket")).url, "http://one/");
  });
});

Deno.test("what no app should see is refused with a status, and the connection is closed", async (test) => {
  let asked = 0;
  const app: ListenerApp = () => {
    asked++;
    return Promise.resolve(text("seen"));
  };
  const post = `POST / HTTP/1.1\r\n${HOST}`;
  await withListener(app, async ({ port }) => {
    for (
      const [what, request, status] of [
        ["no Host", "GET / HTTP/1.1\r\n\r\n", 400],
        ["no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400],
        ["two Hosts", `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400],
        ["HTTP/0.9", "GET /\r\n\r\n", 505],
        ["HTTP/2.0", `GET / HTTP/2.0\r\n${HOST}\r\n`, 505],
        ["the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
        ["a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400],
        ["chunks in HTTP/1.0", `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
        ["CONNECT", `CONNECT 127.0.0.1:80 HTTP/1.1\r\n${HOST}\r\n`, 501],
        ["an unknown expectation", `${post}Expect: a-miracle\r\nContent-Length: 0\r\n\r\n`, 417],
        ["an unknown method", `BREW / HTTP/1.1\r\n${HOST}\r\n`, 400],
        ["length and chunks", `${post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
        ["chunks and length", `${post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`, 400],
        ["two lengths", `${post}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`, 400],
        ["the same length twice", `${post}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`, 400],
        ["a list of lengths", `${post}Content-Length: 3, 3\r\n\r\nabc`, 400],
        ["a signed length", `${post}Content-Length: +3\r\n\r\nabc`, 400],
        ["a length beyond all numbers", `${post}Content-Length: 99999999999999999999999\r\n\r\nabc`, 400],
        ["a field over two lines", `GET / HTTP/1.1\r\n${HOST}X: a\r\n b\r\n\r\n`, 400],
        ["lines that end in LF", "GET / HTTP/1.1\nHost: a\n\n", 400],
        ["a line that ends in LF", `GET / HTTP/1.1\r\n${HOST}X: a\nY: b\r\n\r\n`, 400],
        ["a CR in a field", `GET / HTTP/1.1\r\n${HOST}X: a\rb\r\n\r\n`, 400],
        ["a NUL in a field", `GET / HTTP/1.1\r\n${HOST}X: a\0b\r\n\r\n`, 400],
        ["a space before the colon", `GET / HTTP/1.1\r\n${HOST}X : a\r\n\r\n`, 400],
        ["a space in the target", `GET /a b HTTP/1.1\r\n${HOST}\r\n`, 400],
        ["17 KiB of fields", `GET / HTTP/1.1\r\n${HOST}X: ${"a".repeat(17_000)}\r\n\r\n`, 431],
        ["a target of 17 KiB", `GET /${"a".repeat(17_000)} HTTP/1.1\r\n${HOST}\r\n`, 431],
        ["100 fields and Host", `GET / HTTP/1.1\r\n${HOST}${"a:b\r\n".repeat(100)}\r\n`, 431],
        ["more fields than the parser counts", `GET / HTTP/1.1\r\n${HOST}${"a:\r\n".repeat(3000)}\r\n`, 431],
      ] as const
    ) {
      await test.step(`${what}: ${status}`, async () => {
        strictEqual(parseAnswer(await exchange(port, request)).status, status);
      });
    }
    strictEqual(asked, 0);
    strictEqual(parseAnswer(await exchange(port, get("/", true))).body, "seen");
  });
});

Deno.test("a body whose framing breaks is answered 400, and whoever reads it hears of it", async (test) => {
  const broken: string[] = [];
  const app: ListenerApp = async (request) => {
    await request.arrayBuffer().catch((error: Error) => broken.push(error.name));
    return text("read");
  };
  const head = `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: `;
  await withListener(app, async ({ port }) => {
    for (
      const [what, rest] of [
        ["a size that is no number", "chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"],
        ["a size with 0x", "chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"],
        ["a negative size", "chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n"],
        ["a size beyond all numbers", "chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n"],
        ["a space behind the size", "chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n"],
        ["a chunk that is longer than its size", "chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"],
        ["lines that end in LF", "chunked\r\n\r\n3\nabc\n0\n\n"],
        ["a length among the trailers", "chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n"],
        ["a coding that is not chunked", "identity\r\n\r\nabc"],
        ["chunked twice", "chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
      ] as const
    ) {
      await test.step(what, async () => {
        strictEqual(parseAnswer(await exchange(port, head + rest)).status, 400);
      });
    }
    ok(broken.length >= 7 && broken.every((name) => name === "TypeError"), broken.join());
    strictEqual(parseAnswer(await exchange(port, get("/", true))).body, "read");
  });
});

Deno.test("a body arrives whole however it is cut, as bytes and as a stream", async () => {
  const app: ListenerApp = async (request) => {
    if (request.url.endsWith("/none")) return text(String(request.body));
    return text(request.url.endsWith("/stream") ? await streamText(request) : await bodyText(request));
  };
  await withListener(app, async ({ port }) => {
    strictEqual(parseAnswer(await exchange(port, get("/none", true))).body, "null");
    const pieces = fc.array(fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 40 }), {
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(
        pieces,
        fc.boolean(),
        fc.boolean(),
        fc.boolean(),
        async (parts, stream, chunked, together) => {
          const body = parts.join("");
          const head = `POST /${stream ? "stream" : "bytes"} HTTP/1.1\r\n${HOST}Connection: close\r\n`;
          const written = chunked
            ? [`${head}Transfer-Encoding: chunked\r\n\r\n`, ...parts.map(chunk), "0\r\n\r\n"]
            : [`${head}Content-Length: ${body.length}\r\n\r\n`, ...parts];
          const answer = await exchange(port, ...(together ? [written.join("")] : written));
          strictEqual(parseAnswer(answer).body, body);
        },
      ),
      { numRuns: 60 },
    );
    const large = "0123456789".repeat(300_000);
    for (const path of ["/bytes", "/stream"]) {
      strictEqual(parseAnswer(await exchange(port, post(path, large, true))).body, large);
    }
  });
});

Deno.test("chunks of one byte that come together reach the app as few pieces", async () => {
  const app: ListenerApp = async ({ body }) => {
    let pieces = 0;
    let bytes = 0;
    if (body !== null) {
      for await (const piece of body) {
        pieces++;
        bytes += piece.length;
      }
    }
    return text(`${bytes} in ${pieces < 2000 ? "few" : pieces}`);
  };
  await withListener(app, async ({ port }) => {
    const head = `POST / HTTP/1.1\r\n${HOST}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n`;
    const answer = await exchange(port, `${head}${chunk("x").repeat(50_000)}0\r\n\r\n`);
    strictEqual(parseAnswer(answer).body, "50000 in few");
  });
});

Deno.test("a client cannot send much more of a body than the app reads, in large pieces or small", async () => {
  const size = 64 * 1024 * 1024;
  await sendUnread(`Content-Length: ${size}`, new Uint8Array(64 * 1024), size);
  await sendUnread("Transfer-Encoding: chunked", encode(chunk("x".repeat(100)).repeat(600)), size);
});

async function sendUnread(framing: string, piece: Uint8Array, size: number): Promise<void> {
  const read = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  let brokenOff = false;
  const app: ListenerApp = async (request) => {
    const reader = request.body?.getReader();
    await reader?.read();
    read.resolve();
    await go.promise;
    try {
      while (!(await reader?.read())?.done);
    } catch {
      brokenOff = request.signal.aborted;
    }
    return text("");
  };
  await withListener(app, async ({ port }) => {
    const client = await Deno.connect({ hostname: "127.0.0.1", port });
    let sent = 0;
    const sending = (async () => {
      await writeAll(client, encode(`POST / HTTP/1.1\r\n${HOST}${framing}\r\n\r\n`));
      while (sent < size) sent += await client.write(piece);
    })().catch(() => undefined);
    await read.promise;
    // Until the buffers of the system are full as well.
    for (let before = -1; before !== sent;) {
      before = sent;
      await delay(200);
    }
    client.close();
    await sending;
    ok(sent < size / 2, `${sent} bytes were taken`);
    go.resolve();
  });
  ok(brokenOff);
}

Deno.test("who asks before sending a body is told to when the app reads it, and not where it does not", async () => {
  const app: ListenerApp = async (request) =>
    request.url.endsWith("/read") ? text(await bodyText(request)) : text("no", 413);
  await withListener(app, async ({ port }) => {
    const head = (path: string): string =>
      `POST ${path} HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n`;
    const client = await Client.open(port);
    await client.send(head("/read"));
    strictEqual(await client.until(/\r\n\r\n$/), "HTTP/1.1 100 Continue\r\n\r\n");
    await client.send("abc");
    strictEqual(parseAnswer(await client.until(/abc$/)).status, 200);
    client.close();
    const refused = await exchange(port, head("/refused"));
    match(refused, /^HTTP\/1\.1 413 /);
    match(refused, /^connection: close\r$/im);
  });
});

Deno.test("answers of every kind arrive with their status, fields and length", async () => {
  const large = "é".repeat(200_000);
  const answers: Record<string, () => Response | PlainAnswer> = {
    text: () => text("grüße", 201),
    bytes: () => ({ status: 200, headers: { "X-Kind": "bytes" }, body: encode("bytes") }),
    empty: () => ({ status: 200, headers: {}, body: null }),
    none: () => ({ status: 204, headers: {}, body: null }),
    largeText: () => text(large),
    largeBytes: () => ({ status: 200, headers: {}, body: encode(large) }),
    pieces: () => ({ status: 200, headers: {}, body: piecesOf("a", "", "b") }),
    response: () => new Response("a response", { status: 202, headers: { "X-Kind": "response" } }),
    emptyResponse: () => new Response(null, { status: 503, headers: { "Retry-After": "1" } }),
    head: () => ({ status: 200, headers: { "Content-Length": "7" }, body: null }),
  };
  const app: ListenerApp = (request) => {
    const make = answers[request.url.split("/").at(-1) ?? ""];
    return make === undefined ? Promise.reject(new Error("none")) : Promise.resolve(make());
  };
  await withListener(app, async ({ port }) => {
    const ask = async (path: string, first = `GET /${path} HTTP/1.1`): Promise<ParsedAnswer> =>
      parseAnswer(await exchange(port, `${first}\r\n${HOST}Connection: close\r\n\r\n`));
    const answered = async (path: string): Promise<unknown> => {
      const { status, body, fields } = await ask(path);
      return [status, body, fields.get("content-length"), fields.get("x-kind")];
    };
    deepStrictEqual(await answered("text"), [201, "grüße", "7", undefined]);
    deepStrictEqual(await answered("bytes"), [200, "bytes", "5", "bytes"]);
    deepStrictEqual(await answered("empty"), [200, "", "0", undefined]);
    deepStrictEqual(await answered("none"), [204, "", undefined, undefined]);
    deepStrictEqual(await answered("largeText"), [200, large, "400000", undefined]);
    deepStrictEqual(await answered("largeBytes"), [200, large, "400000", undefined]);
    deepStrictEqual(await answered("pieces"), [200, "ab", undefined, undefined]);
    deepStrictEqual(await answered("response"), [202, "a response", undefined, "response"]);
    deepStrictEqual(await answered("emptyResponse"), [503, "", "0", undefined]);
    deepStrictEqual(await answered("unknown"), [500, "", "0", undefined]);
    const head = await ask("head", "HEAD /head HTTP/1.1");
    deepStrictEqual([head.status, head.body, head.fields.get("content-length")], [200, "", "7"]);
    // A client that knows no chunks must still see where the answer ends, or that it broke off.
    const old = await ask("text", "GET /text HTTP/1.0");
    deepStrictEqual([old.body, old.fields.get("content-length")], ["grüße", "7"]);
    const oldPieces = await ask("pieces", "GET /pieces HTTP/1.0");
    deepStrictEqual([oldPieces.body, oldPieces.fields.get("transfer-encoding")], ["ab", undefined]);
  });
});

Deno.test("an app that fails, or answers what cannot be sent, is answered 500 without its words", async () => {
  const app: ListenerApp = (request) => {
    if (request.url.endsWith("/throws")) throw new Error("secret");
    if (request.url.endsWith("/rejects")) return Promise.reject(new Error("secret"));
    return Promise.resolve({
      status: 200,
      headers: { "X-A": "secret", "X-B": "a\r\nX-Forged: yes" },
      body: "secret",
    });
  };
  await withListener(app, async ({ port }) => {
    for (const path of ["/throws", "/rejects", "/field"]) {
      const answer = await exchange(port, get(path, true));
      match(answer, /^HTTP\/1\.1 500 /);
      ok(!/secret|forged/i.test(answer), answer);
    }
  });
});

Deno.test("a connection is used again after an answer, its body read or not, and closed where the app says so", async () => {
  const app: ListenerApp = async (request) => {
    if (request.url.endsWith("/read")) await request.arrayBuffer();
    const headers: Record<string, string> = request.url.endsWith("/close") ? { "Connection": "close" } : {};
    return { status: 200, headers, body: "end." };
  };
  await withListener(app, async ({ port }) => {
    const client = await Client.open(port);
    for (const path of ["/read", "/unread", "/read"]) {
      await client.send(post(path, "x".repeat(3000)));
      match(await client.until(/end\.$/), /^HTTP\/1\.1 200 [\s\S]*keep-alive/);
    }
    await client.send(get("/close"));
    match(await client.rest(), /^HTTP\/1\.1 200 [\s\S]*connection: close[\s\S]*end\.$/i);
  });
});

Deno.test("who sends a large body that is refused reads the answer, and the connection is closed", async () => {
  const app: ListenerApp = () => Promise.resolve({ status: 413, headers: {}, body: "too large" });
  await withListener(app, async ({ port }) => {
    const { status, fields, body } = parseAnswer(await exchange(port, post("/", "x".repeat(200_000))));
    deepStrictEqual([status, fields.get("connection"), body], [413, "close", "too large"]);
    // More than is worth reading on: what follows the answer does not matter.
    const client = await Client.open(port);
    const sending = client.send(post("/", "x".repeat(20_000_000)));
    match(await client.until(/too large$/), /^HTTP\/1\.1 413 /);
    await client.rest();
    await sending;
  });
});

Deno.test("a stream's piece is with the client before the next one is asked for", async () => {
  let asked = 0;
  let go = Promise.withResolvers<void>();
  const body: AnswerPieces = {
    async next() {
      asked++;
      if (asked > 1) await go.promise;
      go = Promise.withResolvers<void>();
      return asked > 3 ? undefined : [encode(`piece ${asked}.`)];
    },
    cancel: () => undefined,
  };
  await withListener(() => Promise.resolve({ status: 200, headers: {}, body }), async ({ port }) => {
    const client = await Client.open(port);
    await client.send(get("/", true));
    for (const piece of [1, 2, 3]) {
      match(await client.until(new RegExp(`piece ${piece}\\.\r\n$`)), /piece/);
      go.resolve();
    }
    match(await client.rest(), /0\r\n\r\n$/);
  });
});

Deno.test("a stream is not asked for more while its client does not read, and is cancelled when it leaves", async () => {
  for (const kind of ["pieces", "response"]) {
    let asked = 0;
    const cancelled = Promise.withResolvers<void>();
    const piece = new Uint8Array(64 * 1024);
    const app: ListenerApp = () =>
      Promise.resolve(
        kind === "pieces"
          ? {
            status: 200,
            headers: {},
            body: {
              next: () => Promise.resolve(++asked > 0 ? [piece] : undefined),
              cancel: () => cancelled.resolve(),
            },
          }
          : new Response(
            new ReadableStream({
              pull(controller) {
                asked++;
                controller.enqueue(piece);
              },
              cancel: () => cancelled.resolve(),
            }, { highWaterMark: 0 }),
          ),
      );
    await withListener(app, async ({ port }) => {
      const client = await Client.open(port);
      await client.send(get("/"));
      for (let before = -1; before !== asked || asked === 0;) {
        before = asked;
        await delay(200);
      }
      ok(asked < 512, `${asked} pieces were taken`);
      client.close();
      await cancelled.promise;
    });
  }
});

Deno.test("a stream that breaks breaks the transfer off", async () => {
  for (const kind of ["pieces", "response"]) {
    let pieces = 0;
    const next = (): Uint8Array => {
      if (++pieces > 2) throw new Error("secret");
      return encode("piece.");
    };
    const app: ListenerApp = () =>
      Promise.resolve(
        kind === "pieces"
          ? {
            status: 200,
            headers: {},
            body: { next: () => Promise.resolve().then(() => [next()]), cancel: () => undefined },
          }
          : new Response(new ReadableStream({ pull: (controller) => controller.enqueue(next()) })),
      );
    await withListener(app, async ({ port }) => {
      const answer = await exchange(port, get("/"));
      match(answer, /^HTTP\/1\.1 200 [\s\S]*piece/);
      ok(!answer.endsWith("0\r\n\r\n") && !answer.includes("secret"), answer);
      pieces = 0;
      const old = await Client.open(port);
      await old.send(`GET / HTTP/1.0\r\n${HOST}\r\n`);
      await rejects(old.until(/nothing that comes/), Deno.errors.ConnectionReset);
      old.close();
    });
  }
});

Deno.test("the signal aborts when the client leaves before its answer, whatever the body and the way of leaving", async () => {
  for (const bytes of [0, 300, 5000, 1_000_000]) {
    for (const way of ["end", "reset"] as const) {
      const asked = Promise.withResolvers<void>();
      const left = Promise.withResolvers<void>();
      const app: ListenerApp = async (request) => {
        strictEqual((await request.arrayBuffer()).byteLength, bytes);
        request.signal.addEventListener("abort", () => left.resolve());
        asked.resolve();
        await left.promise;
        return text("nobody reads this");
      };
      await withListener(app, async ({ port }) => {
        const leave = sendAndStay(port, post("/", "x".repeat(bytes)));
        await asked.promise;
        leave(way);
        await left.promise;
      });
    }
  }
});

Deno.test("a stream that is answered when its client has left is cancelled unread", async () => {
  const cancelled = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  let read = 0;
  const app: ListenerApp = async ({ signal }) => {
    const left = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    asked.resolve();
    await left;
    const next = (): Promise<undefined> => Promise.resolve(void read++);
    return { status: 200, headers: {}, body: { next, cancel: () => cancelled.resolve() } };
  };
  await withListener(app, async ({ port }) => {
    const leave = sendAndStay(port, get("/"));
    await asked.promise;
    leave("end");
    await cancelled.promise;
  });
  strictEqual(read, 0);
});

Deno.test("the signal does not abort when the answer had ended", async () => {
  const signals: AbortSignal[] = [];
  const app: ListenerApp = async (request) => {
    signals.push(request.signal);
    await request.arrayBuffer();
    return request.url.endsWith("/stream") ? { status: 200, headers: {}, body: piecesOf("a") } : text("a");
  };
  const listener = await open(app);
  for (const path of ["/whole", "/stream"]) {
    await exchange(listener.port, post(path, "x".repeat(5000), true));
    const client = await Client.open(listener.port);
    await client.send(post(path, "x"));
    await client.until(path === "/whole" ? /\r\n\r\na$/ : /0\r\n\r\n$/);
    client.close();
  }
  // By now every connection is closed, on both sides.
  await listener.shutdown();
  deepStrictEqual(signals.map(({ aborted }) => aborted), [false, false, false, false]);
});

Deno.test("a client that leaves in the middle of its body is named as the reason when the body breaks", async () => {
  for (const way of ["end", "reset"] as const) {
    const found = Promise.withResolvers<readonly [string, boolean]>();
    const began = Promise.withResolvers<void>();
    const app: ListenerApp = async (request) => {
      began.resolve();
      try {
        await request.arrayBuffer();
      } catch (error) {
        found.resolve([(error as Error).name, request.signal.aborted]);
      }
      return text("nobody reads this");
    };
    await withListener(app, async ({ port }) => {
      const leave = sendAndStay(
        port,
        `POST / HTTP/1.1\r\n${HOST}Content-Length: 5000\r\n\r\n${"x".repeat(2000)}`,
      );
      await began.promise;
      leave(way);
      deepStrictEqual(await found.promise, ["TypeError", true]);
    });
  }
});

Deno.test("clients that leave at any moment leave nothing behind", async () => {
  let running = 0;
  const app: ListenerApp = async (request) => {
    running++;
    try {
      await request.arrayBuffer();
      await delay(request.url.endsWith("/slow") ? 20 : 0);
      if (request.url.endsWith("/unread")) return text("no", 413);
      return { status: 200, headers: {}, body: piecesOf(...new Array(20).fill("piece")) };
    } finally {
      running--;
    }
  };
  const listener = await open(app);
  const requests = ["/slow", "/stream", "/unread"].flatMap((
    path,
  ) => [get(path), post(path, "x".repeat(40_000))]);
  for (let round = 0; round < 8; round++) {
    await Promise.all(requests.flatMap((request) =>
      [10, 60, 20_000, 100_000].map(async (bytes, index) => {
        const leave = sendAndStay(listener.port, request.slice(0, bytes));
        await delay(round * 3);
        leave(index % 2 === round % 2 ? "end" : "reset");
      })
    ));
  }
  strictEqual(parseAnswer(await exchange(listener.port, get("/", true))).status, 200);
  await listener.shutdown();
  strictEqual(running, 0);
});

Deno.test("requests sent ahead are answered in order, one at a time; too many close the connection", async () => {
  let asked = 0;
  let running = 0;
  let most = 0;
  const app: ListenerApp = async (request) => {
    asked++;
    most = Math.max(most, ++running);
    await delay(2);
    running--;
    const path = request.url.split("/").at(-1);
    return { status: 200, headers: path === "close" ? { "Connection": "close" } : {}, body: `${path}.` };
  };
  await withListener(app, async ({ port }) => {
    const requests = Array.from({ length: 10 }, (_, index) => get(`/${index}`, index === 9));
    const answer = await exchange(port, requests.join(""));
    deepStrictEqual(answer.match(/\d\.(?=HTTP|$)/g), requests.map((_, index) => `${index}.`));
    strictEqual(most, 1);
    const closing = await exchange(port, get("/close") + get("/1"));
    strictEqual(closing.match(/HTTP\/1\.1 200/g)?.length, 1);
    strictEqual(asked, 11);
    const many = await exchange(port, get("/x").repeat(500));
    ok((many.match(/HTTP\/1\.1 200/g) ?? []).length < 20, many);
  });
});

Deno.test("heads that do not come, idle connections and clients that do not read are given up on", async () => {
  const app: ListenerApp = (request) =>
    Promise.resolve(text(request.url.endsWith("/large") ? "x".repeat(30_000_000) : "end."));
  await withListener(app, async ({ port }) => {
    match(await exchange(port, ""), /^HTTP\/1\.1 408 /);
    match(await exchange(port, "GET / HTTP/1.1\r\nHo"), /^HTTP\/1\.1 408 /);
    match(await exchange(port, get("/")), /^HTTP\/1\.1 200 [\s\S]*end\.$/);
    const dripping = await Client.open(port);
    await dripping.send(get("/"));
    const drip = setInterval(() => dripping.send("\r\n"), 30);
    await dripping.rest();
    clearInterval(drip);
    const client = await Client.open(port);
    await client.send(get("/large"));
    await delay(2500);
    ok((await client.rest()).length < 30_000_000);
  }, { headersTimeoutMs: 200, idleTimeoutMs: 200 });
});

Deno.test("connections beyond the cap are closed at once, and taken again when others have gone", async () => {
  await withListener(() => Promise.resolve(text("end.")), async ({ port }) => {
    const clients = await Promise.all([1, 2, 3].map(() => Client.open(port)));
    for (const client of clients) {
      await client.send(get("/"));
      match(await client.until(/end\.$/), /200/);
    }
    strictEqual(await exchange(port, get("/")), "");
    for (const client of clients) client.close();
    let answer = "";
    while (answer === "") answer = await exchange(port, get("/", true));
    match(answer, /end\.$/);
  }, { connectionsMax: 3 });
});

Deno.test("shutdown closes what is idle at once, lets answers end, and takes nothing new", async () => {
  const asked = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const go = Promise.withResolvers<void>();
  const app: ListenerApp = async (request) => {
    if (request.url.endsWith("/idle")) return text("end.");
    const stream = request.url.endsWith("/stream");
    asked[stream ? 1 : 0]?.resolve();
    if (!stream) await go.promise;
    if (!stream) return text("late end.");
    const rest = piecesOf("late ", "end.");
    return {
      status: 200,
      headers: {},
      body: { next: () => go.promise.then(() => rest.next()), cancel: () => undefined },
    };
  };
  const listener = await open(app);
  const [silent, idle, half, whole, stream] = await Promise.all(
    Array.from({ length: 5 }, () => Client.open(listener.port)),
  );
  ok(silent && idle && half && whole && stream);
  await idle.send(get("/idle"));
  await idle.until(/end\.$/);
  await half.send("GET / HT");
  await whole.send(get("/whole"));
  await stream.send(get("/stream"));
  await Promise.all(asked.map(({ promise }) => promise));

  let finished = false;
  listener.finished.then(() => finished = true);
  const stopped = listener.shutdown();
  deepStrictEqual(await Promise.all([silent, idle, half].map((client) => client.rest())), ["", "", ""]);
  await rejects(Deno.connect({ hostname: "127.0.0.1", port: listener.port }), Deno.errors.ConnectionRefused);
  strictEqual(finished, false);
  go.resolve();
  match(await whole.rest(), /connection: close[\s\S]*late end\.$/i);
  match(await stream.rest(), /late[\s\S]*end\.\r\n0\r\n\r\n$/);
  await stopped;
  await listener.finished;
});

Deno.test("a port in use is told as such", async () => {
  await withListener(() => Promise.resolve(text("")), async ({ port }) => {
    await rejects(open(() => Promise.resolve(text("")), { port }), Deno.errors.AddrInUse);
  });
});

Deno.test("a port that was not granted is told as such", async () => {
  const run = await runListener(["--allow-net=127.0.0.1:1"]);
  match(run.output(), /^opening: NotCapable/);
  await run.ended;
});

Deno.test({
  name: "a listener without file descriptors says that it has failed, rather than be silent for ever",
  ignore: Deno.build.os !== "linux",
}, async () => {
  const run = await runListener(["--allow-net=127.0.0.1"], "ulimit -n 64");
  const port = Number(/^port (\d+)/.exec(run.output())?.[1]);
  const clients: Deno.Conn[] = [];
  for (let count = 0; count < 100; count++) clients.push(await Deno.connect({ hostname: "127.0.0.1", port }));
  await run.ended;
  for (const client of clients) client.close();
  match(run.output(), /failed: .*deaf/);
});

async function open(app: ListenerApp, settings: Partial<ListenerSettings> = {}): Promise<Listener> {
  return await openListener({
    hostname: "127.0.0.1",
    port: 0,
    app,
    headersTimeoutMs: LONG_MS,
    idleTimeoutMs: LONG_MS,
    connectionsMax: 1000,
    ...settings,
  });
}

async function withListener(
  app: ListenerApp,
  use: (listener: Listener) => Promise<void>,
  settings?: Partial<ListenerSettings>,
): Promise<void> {
  const listener = await open(app, settings);
  try {
    await use(listener);
  } finally {
    await listener.shutdown();
  }
}

/** A listener in a process of its own that says what became of it; resolves when it has begun to speak. */
async function runListener(
  flags: readonly string[],
  before = "true",
): Promise<{ output: () => string; ended: Promise<unknown> }> {
  const source = `
    import { openListener } from "${new URL("../src/listener.ts", import.meta.url)}";
    try {
      const app = () => Promise.resolve({ status: 200, headers: {}, body: "" });
      const listener = await openListener(
        { hostname: "127.0.0.1", port: 0, app, headersTimeoutMs: 200, idleTimeoutMs: 200, connectionsMax: 100000 },
      );
      console.log("port " + listener.port);
      await listener.finished.catch((error) => console.log("failed: " + error.message));
    } catch (error) {
      console.log("opening: " + error.name);
    }
    Deno.exit(0);`;
  const command = `${before}; exec "$DENO" run --no-prompt --cached-only --no-remote ${flags.join(" ")} "$0"`;
  const process = new Deno.Command("sh", {
    args: ["-c", command, `data:application/javascript,${encodeURIComponent(source)}`],
    cwd: `${import.meta.dirname}/..`,
    env: { DENO: Deno.execPath(), NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let output = "";
  const spoke = Promise.withResolvers<void>();
  const ended = (async () => {
    for await (const piece of process.stdout) {
      output += new TextDecoder().decode(piece);
      spoke.resolve();
    }
    spoke.resolve();
    await process.status;
  })();
  await spoke.promise;
  return { output: () => output, ended };
}

/** A client that reads and writes text, one character a byte. */
class Client {
  readonly #connection: Deno.TcpConn;
  readonly #buffer = new Uint8Array(256 * 1024);
  #unread = "";

  private constructor(connection: Deno.TcpConn) {
    this.#connection = connection;
  }

  static async open(port: number): Promise<Client> {
    return new Client(await Deno.connect({ hostname: "127.0.0.1", port }));
  }

  /** A server that has closed takes nothing: what it said is what counts. */
  async send(written: string): Promise<void> {
    await writeAll(this.#connection, Buffer.from(written, "latin1")).catch(() => undefined);
  }

  /** What has come since the last call, once it matches. */
  async until(pattern: RegExp): Promise<string> {
    while (!pattern.test(this.#unread)) {
      const count = await this.#connection.read(this.#buffer);
      if (count === null) throw new Error(`the server closed after: ${this.#unread.slice(0, 500)}`);
      this.#unread += Buffer.from(this.#buffer.subarray(0, count)).toString("latin1");
    }
    const found = this.#unread;
    this.#unread = "";
    return found;
  }

  /** All that comes until the server closes. */
  async rest(): Promise<string> {
    const pieces = [this.#unread];
    try {
      for (;;) {
        const count = await this.#connection.read(this.#buffer);
        if (count === null) break;
        pieces.push(Buffer.from(this.#buffer.subarray(0, count)).toString("latin1"));
      }
    } catch {
      // Reset: that is closed as well.
    }
    this.close();
    return pieces.join("");
  }

  close(): void {
    this.#connection.close();
  }
}

/** Sends each text by itself and reads until the server closes. */
async function exchange(port: number, ...texts: readonly string[]): Promise<string> {
  const client = await Client.open(port);
  const sending = (async () => {
    for (const written of texts) {
      await client.send(written);
      if (texts.length > 1) await delay(1);
    }
  })();
  const answer = await client.rest();
  await sending;
  return answer;
}

/** Sends a request; the function that it returns breaks the connection. */
function sendAndStay(port: number, request: string): (way: "end" | "reset") => void {
  const socket = connect(port, "127.0.0.1", () => socket.write(request));
  socket.on("error", () => undefined).resume();
  return (way) => way === "end" ? socket.destroy() : socket.resetAndDestroy();
}

interface ParsedAnswer {
  readonly status: number;
  readonly fields: ReadonlyMap<string, string>;
  readonly body: string;
}

/** One answer up to the end of the connection, its body as UTF-8. */
function parseAnswer(answer: string): ParsedAnswer {
  const end = answer.indexOf("\r\n\r\n");
  const [first = "", ...lines] = answer.slice(0, end).split("\r\n");
  const fields = new Map(lines.map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  }));
  const body = answer.slice(end + 4);
  return {
    status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1]),
    fields,
    body: Buffer.from(fields.get("transfer-encoding") === "chunked" ? unchunked(body) : body, "latin1")
      .toString(),
  };
}

function unchunked(body: string): string {
  const size = parseInt(body, 16);
  if (!(size > 0)) return "";
  const start = body.indexOf("\r\n") + 2;
  return body.slice(start, start + size) + unchunked(body.slice(start + size + 2));
}

function chunk(part: string): string {
  return `${part.length.toString(16)}\r\n${part}\r\n`;
}

function get(path: string, last = false): string {
  return `GET ${path} HTTP/1.1\r\n${HOST}${last ? "Connection: close\r\n" : ""}\r\n`;
}

function post(path: string, body: string, last = false): string {
  const close = last ? "Connection: close\r\n" : "";
  return `POST ${path} HTTP/1.1\r\n${HOST}${close}Content-Length: ${body.length}\r\n\r\n${body}`;
}

function text(body: string, status = 200): PlainAnswer {
  return { status, headers: {}, body };
}

function piecesOf(...texts: readonly string[]): AnswerPieces {
  const rest = [...texts];
  return {
    next: async () => {
      await delay(0);
      const piece = rest.shift();
      return piece === undefined ? undefined : [encode(piece)];
    },
    cancel: () => undefined,
  };
}

async function bodyText(request: Request): Promise<string> {
  return new TextDecoder().decode(await request.arrayBuffer());
}

async function streamText({ body }: Request): Promise<string> {
  let found = "";
  if (body === null) return found;
  for await (const piece of body) found += new TextDecoder().decode(piece);
  return found;
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
}

function encode(written: string): Uint8Array {
  return new TextEncoder().encode(written);
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
