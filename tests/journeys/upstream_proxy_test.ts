// Proxies of the environment: calls to upstreams, with their keys and prompts, go to one only where the settings say so.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { answerJson, startScriptedUpstream } from "../support/scripted_upstream.ts";
import {
  environmentOfServers,
  flagsFor,
  freePort,
  startServerUnderTest,
} from "../support/server_under_test.ts";

const ROOT = `${import.meta.dirname}/../..`;
const KEY = "sk-of-the-upstream-9f3a";
const PROXY_PASSWORD = "password-of-the-proxy";

/** Settings with one model behind an upstream of plain http on loopback. */
function settingsFor(url: string): Record<string, string> {
  return {
    PORTCULLIS_UPSTREAMS: JSON.stringify([{ name: "a", kind: "openai", url: `${url}/v1` }]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([
      { id: "m", capabilities: ["chat"], servedBy: [{ upstream: "a" }] },
    ]),
    PORTCULLIS_UPSTREAM_A_KEY: KEY,
  };
}

const proxyAt = (url: string): string => url.replace("http://", `http://user:${PROXY_PASSWORD}@`);

Deno.test("with HTTP_PROXY set and upstreams in the settings the server exits with 78 and says the ways out; the proxy hears nothing", async () => {
  const [trap, upstream] = await Promise.all([startScriptedUpstream(), startScriptedUpstream()]);
  const folder = await Deno.makeTempDir();
  try {
    const settings = {
      ...settingsFor(upstream.url),
      PORTCULLIS_PORT: String(freePort()),
      PORTCULLIS_DATA_DIR: folder,
    };
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", ...flagsFor(settings), "src/main.ts"],
      cwd: ROOT,
      env: { ...environmentOfServers(), ...settings, HTTP_PROXY: proxyAt(trap.url), NO_COLOR: "1" },
      clearEnv: true,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    // A server that starts after all has to end some time.
    const timer = setTimeout(() => process.kill("SIGKILL"), 20_000);
    const { code, stdout, stderr } = await process.output();
    clearTimeout(timer);
    const said = new TextDecoder().decode(Uint8Array.from([...stdout, ...stderr]));
    strictEqual(code, 78, said);
    match(said, / HTTP_PROXY .*unset it.*PORTCULLIS_UPSTREAM_PROXY=environment/);
    for (const secret of [PROXY_PASSWORD, new URL(trap.url).host, KEY]) ok(!said.includes(secret), said);
    deepStrictEqual([...Deno.readDirSync(folder)], [], "something was left behind");
    deepStrictEqual([trap.connections, upstream.connections], [0, 0]);
  } finally {
    await Promise.all([trap.close(), upstream.close()]);
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("with upstreamProxy environment calls to upstreams go through the proxy that HTTP_PROXY names", async () => {
  const [proxy, upstream] = await Promise.all([startScriptedUpstream(), startScriptedUpstream()]);
  const message = { role: "assistant", content: "by the proxy" };
  proxy.plays(answerJson({ choices: [{ index: 0, message, finish_reason: "stop" }] }));
  const server = await startServerUnderTest({
    variables: { ...settingsFor(upstream.url), PORTCULLIS_UPSTREAM_PROXY: "environment" },
    environment: { HTTP_PROXY: proxyAt(proxy.url) },
  });
  try {
    await server.whenReady();
    const response = await fetch(`${server.origin}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${await server.signIn()}` },
      body: JSON.stringify({ model: "m", messages: [{ role: "user", content: "hello" }] }),
    });
    const answer = await response.json();
    strictEqual(answer.choices[0].message.content, "by the proxy");
    ok(proxy.requests.some(({ target }) => target === `${upstream.url}/v1/chat/completions`));
    strictEqual(upstream.requests.length, 0);
    ok(!server.output().includes(PROXY_PASSWORD));
  } finally {
    await server.stop();
    await Promise.all([proxy.close(), upstream.close()]);
  }
});
