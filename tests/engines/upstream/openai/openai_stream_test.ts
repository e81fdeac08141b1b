// Tests of OpenAI streams over a real connection: how servers end them.
import { deepStrictEqual, ok } from "node:assert/strict";
import type { ChatEvent } from "../../../../src/engines/chat.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { eventOf, streamEvents } from "../../../support/scripted_upstream.ts";
import { CHAT } from "../../../inference/gateway_under_test.ts";
import { faultOf, within, withUpstream } from "../upstream_under_test.ts";

const chunk = (delta: unknown, finish: string | null = null): string =>
  eventOf({ choices: [{ index: 0, delta, finish_reason: finish }] });

/** What a stream of these events gives, or the kind of fault that it ends with. */
async function ends(...events: string[]): Promise<string[]> {
  const seen: string[] = [];
  await withUpstream({}, async ({ server, upstream }) => {
    server.plays(streamEvents(events));
    const call = openaiWire.stream<"chat">(CHAT, { model: "m", usageInStreams: true });
    try {
      const stream = await upstream.stream(call, within());
      for (let items = await stream.next(); items !== undefined; items = await stream.next()) {
        seen.push(...items.map(({ type }: ChatEvent) => type));
      }
      seen.push("end");
    } catch (thrown) {
      seen.push((await faultOf(Promise.reject(thrown))).kind);
    }
  }, { wire: openaiWire });
  return seen;
}

Deno.test("a stream ends with its mark, or with the last answer's own end where the server writes no mark", async () => {
  deepStrictEqual(await ends(chunk({ content: "a" }), chunk({}, "stop"), "data: [DONE]\n\n"), [
    "text",
    "finish",
    "end",
  ]);
  deepStrictEqual(await ends(chunk({ content: "a" }), chunk({}, "stop")), ["text", "finish", "end"]);
});

Deno.test("a stream whose body ends before its answers do was broken off", async () => {
  deepStrictEqual(await ends(chunk({ content: "a" })), ["text", "upstream_unreachable"]);
});

Deno.test("the connection of a stream that ended well is used again, although its end mark comes after the figures that end it", async () => {
  await withUpstream({}, async ({ server, upstream }) => {
    const figures = eventOf({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 1 } });
    // Each apart, the end of the body as well.
    server.plays(async (reply) => {
      await reply.head(200, { "content-type": "text/event-stream" });
      for (const piece of [chunk({ content: "a" }), chunk({}, "stop"), figures, "data: [DONE]\n\n"]) {
        await reply.chunk(piece);
        await reply.pause(5);
      }
      await reply.endChunks();
    });
    await untilIdle();
    const before = server.connections;
    for (let round = 0; round < 5; round++) {
      const stream = await upstream.stream(
        openaiWire.stream<"chat">(CHAT, { model: "m", usageInStreams: true }),
        within(),
      );
      while (await stream.next() !== undefined);
      await untilIdle();
    }
    ok(server.connections - before <= 1, `${server.connections - before} connections for 5 streams`);
  }, { wire: openaiWire });
});

/** Long enough for what is left of an answer to come. */
const untilIdle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 60));
