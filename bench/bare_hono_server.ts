// Bare Hono server: the least that answers the gate's route with the gate's payload: no checks, no records, no limits.
import { Hono } from "hono";
import { vectorNumbers } from "../src/http/vector_numbers.ts";
import { STUB_VECTOR } from "./stub_model.ts";

const app = new Hono();
app.get("/healthz", (context) => context.json({ status: "ok" }));
app.post("/v1/embeddings", async (context) => {
  const { model } = await context.req.json();
  return context.json({
    object: "list",
    model,
    data: [{ object: "embedding", index: 0, embedding: vectorNumbers(STUB_VECTOR) }],
    usage: { prompt_tokens: 12, total_tokens: 12 },
  });
});
Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.args[0]), onListen: () => undefined }, app.fetch);
