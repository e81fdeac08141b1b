// Bare Hono proxy: the least that stands between a client and an engine: no checks, no records, no limits.
import { Hono } from "hono";

const upstream = Deno.env.get("BENCH_UPSTREAM");
const app = new Hono();
app.get("/healthz", (context) => context.json({ status: "ok" }));
app.post("/v1/chat/completions", (context) =>
  fetch(`${upstream}/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: context.req.raw.body,
  }));
Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.args[0]), onListen: () => undefined }, app.fetch);
