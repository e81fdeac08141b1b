// Tests of speech over the OpenAI wire: the exact request, and bytes that are passed on.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { bodyOf, OPTIONS, refuses } from "./wire_calls.ts";

Deno.test("text and voice are sent, sound of any kind is accepted as bytes", () => {
  const call = openaiWire.stream<"speech">({
    task: "speech",
    text: "Hello",
    voice: "alloy",
    format: "opus",
    speed: 1.5,
    instructions: "Whisper",
  }, OPTIONS);
  strictEqual(call.framing, "bytes");
  strictEqual(call.request.path, "/audio/speech");
  deepStrictEqual(call.request.accept, ["audio/*", "application/octet-stream"]);
  deepStrictEqual(bodyOf(call.request), {
    model: "upstream-model",
    input: "Hello",
    voice: "alloy",
    response_format: "opus",
    speed: 1.5,
    instructions: "Whisper",
  });
  refuses(() => call.openReader(), "internal");
});
