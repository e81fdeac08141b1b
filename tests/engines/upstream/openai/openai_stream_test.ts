// Tests of OpenAI streams over a real connection: how servers end them.
import { deepStrictEqual } from "node:assert/strict";
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
