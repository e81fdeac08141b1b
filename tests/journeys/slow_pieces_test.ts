// Bodies in tiny pieces: what a client sends may not cost many times its size.
import { match, ok } from "node:assert/strict";
import { rawRequest, startServerUnderTest } from "../support/server_under_test.ts";

const CONNECTIONS = 8;
const PIECES = 200_000;
/** What the bodies may cost at most, all together; kept as a list of pieces they cost 12 GiB. */
const GROWTH_MIB_MAX = 150;

Deno.test({
  name:
    `${CONNECTIONS} bodies of ${PIECES} pieces of one byte are refused, and cost less than ${GROWTH_MIB_MAX} MiB`,
  ignore: Deno.build.os !== "linux",
}, async () => {
  const server = await startServerUnderTest();
  try {
    await server.whenReady();
    const before = await residentMib(server.process.pid);
    const head = `POST /v1/auth/login HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\n` +
      "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    const request = head + "1\r\n \r\n".repeat(PIECES);
    const answers = await Promise.all(
      Array.from({ length: CONNECTIONS }, () => rawRequest(server.port, request, 10_000)),
    );
    for (const answer of answers) match(answer, /^HTTP\/1\.1 (400[\s\S]*too many small pieces|413)/);
    const growth = await residentMib(server.process.pid) - before;
    ok(growth < GROWTH_MIB_MAX, `${Math.round(growth)} MiB more`);
  } finally {
    await server.stop();
  }
});

/** By `ps`: Deno reads below /proc only with every permission. */
async function residentMib(pid: number): Promise<number> {
  const { stdout } = await new Deno.Command("ps", { args: ["-o", "rss=", "-p", String(pid)] }).output();
  return Number(new TextDecoder().decode(stdout)) / 1024;
}
