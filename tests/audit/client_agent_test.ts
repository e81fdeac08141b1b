// Tests of what a client calls itself: one short, visible, well-formed line without secrets, whatever it sends.
import { ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { AGENT_CHARACTERS_MAX, clientAgent } from "../../src/audit/client_agent.ts";
import { eventText } from "../../src/audit/trail/event_text.ts";

Deno.test("usual agents stand as they are sent", () => {
  const agents = [
    "curl/8.14.1",
    "OpenAI/Python 1.30.1",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "ai-sdk/openai-compatible/3.0.92 ai-sdk/provider-utils/4.0.1 runtime/deno/2.9.6",
  ];
  for (const agent of agents) strictEqual(clientAgent(agent), agent);
});

Deno.test("none, and nothing that can be seen, is null", () => {
  for (const header of [null, "", "   ", "\t", "\u200b"]) strictEqual(clientAgent(header), null);
});

Deno.test("what looks like a secret is masked, also at the end of what is kept", () => {
  const secrets = [
    "pck_01k9zzzzzzzzzzzzzzzzzzzzzz_3q2-7wAdZfN4XbYh0kQmRsTuVgWc1iLjE5oPlC8y9zA",
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl",
    "Bearer abcdefgh12345678",
    "3q2-7wAdZfN4XbYh0kQmRsTuVgWc1iLjE5oPlC8y9zA",
  ];
  for (const secret of secrets) {
    for (const before of ["", "app/1.0 ", "x ".repeat(95), "x ".repeat(98)]) {
      const agent = clientAgent(`${before}${secret} more`) ?? "";
      const bare = secret.replace("Bearer ", "");
      ok(!agent.includes(bare.slice(0, 12)), agent);
    }
  }
});

Deno.test("property: it is well-formed, on one line, without invisible characters, and at most as long as is said", () => {
  const header = fc.string({
    unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)),
  });
  fc.assert(fc.property(header, fc.integer({ min: 1, max: 400 }), (text, times) => {
    const agent = clientAgent(text.repeat(times));
    if (agent === null) return;
    ok(agent.isWellFormed() && agent.length <= AGENT_CHARACTERS_MAX);
    ok(/^[^\p{C}\p{Zl}\p{Zp}]+$/u.test(agent), JSON.stringify(agent));
    ok(eventText({ type: "server.stopped", reason: agent }).length > 0);
  }));
});
