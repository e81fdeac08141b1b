// Proxy servers: the gate, a bare Hono proxy, and the stub upstream behind both.
import { benchFlags, type ChildServer, signIn, startChildServer } from "./child_server.ts";
import type { LoadTarget } from "./load_generator.ts";
import { startRealServer } from "./real_server.ts";
import { chatBody, STUB_PACES, type StubModel } from "./stub_answers.ts";

export interface ProxyServers {
  readonly stub: ChildServer;
  readonly bare: ChildServer;
  readonly gate: ChildServer;
  /** One chat, whole or as a stream. */
  target(name: "bare" | "gate", model: StubModel, stream: boolean): LoadTarget;
  stop(): Promise<void>;
}

/** More than the bench ever has under way. */
const REQUESTS_AT_ONCE_MAX = 10_000;

/** @param folder does not exist yet */
export async function startProxyServers(folder: string): Promise<ProxyServers> {
  await Deno.mkdir(`${folder}/no-models`, { recursive: true });
  const stub = startChildServer("bench/stub_upstream.ts", {}, benchFlags);
  const url = `http://127.0.0.1:${stub.port}/v1`;
  const bare = startChildServer("bench/bare_hono_proxy.ts", { BENCH_UPSTREAM: url }, benchFlags);
  const gate = startRealServer(`${folder}/data`, {
    PORTCULLIS_MODELS_DIR: `${folder}/no-models`,
    PORTCULLIS_LOG_LEVEL: "error",
    PORTCULLIS_UPSTREAMS: JSON.stringify([
      { name: "stub", kind: "openai", url, requestsAtOnceMax: REQUESTS_AT_ONCE_MAX },
    ]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify(
      Object.keys(STUB_PACES).map((id) => ({ id, capabilities: ["chat"], servedBy: [{ upstream: "stub" }] })),
    ),
  });
  const stop = async (): Promise<void> => {
    await Promise.all([gate, bare, stub].map((server) => server.stop()));
  };
  try {
    await stub.answers("/v1/models");
    await bare.answers("/healthz");
    await gate.answers("/readyz");
    const token = await signIn(gate);
    return {
      stub,
      bare,
      gate,
      target: (name, model, stream) => ({
        port: name === "gate" ? gate.port : bare.port,
        path: "/v1/chat/completions",
        bodies: [chatBody(model, stream)],
        ...(name === "gate" ? { token } : {}),
      }),
      stop,
    };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}
