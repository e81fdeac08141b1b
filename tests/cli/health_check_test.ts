// Health check: tells a server that answers from one that does not.
import { strictEqual } from "node:assert/strict";
import { isHealthy } from "../../src/cli/health_check.ts";

async function checkAgainst(answer: () => Response): Promise<boolean> {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => undefined }, answer);
  try {
    return await isHealthy(`http://127.0.0.1:${server.addr.port}/healthz`);
  } finally {
    await server.shutdown();
  }
}

Deno.test("a server that answers 200 is healthy", async () => {
  strictEqual(await checkAgainst(() => Response.json({ status: "ok" })), true);
});

Deno.test("a server that answers 503 or sends elsewhere is not healthy", async () => {
  strictEqual(await checkAgainst(() => new Response(null, { status: 503 })), false);
  strictEqual(await checkAgainst(() => Response.redirect("http://127.0.0.1:9/")), false);
});

Deno.test("where nothing listens, or the URL is none, nothing is healthy and nothing is thrown", async () => {
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => undefined },
    () => new Response(),
  );
  const { port } = server.addr;
  await server.shutdown();
  strictEqual(await isHealthy(`http://127.0.0.1:${port}/healthz`), false);
  strictEqual(await isHealthy(""), false);
});
