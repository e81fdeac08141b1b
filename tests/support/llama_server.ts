// Llama server: llama.cpp's real engine in a process of its own, with the tiny model whose words are known.
import { freePort } from "./server_under_test.ts";
import { writeTinyLanguageModel } from "./tiny_language_model.ts";

const PROGRAM = `${import.meta.dirname}/../../.tools/llama-server/llama-server`;
const STARTS_WITHIN_TRIES = 300;

/** Why no engine can be started here; undefined where it can. */
export const llamaServerMissing: string | undefined = isFile(PROGRAM)
  ? undefined
  : "needs the real engine: run .ci/install_llama_server";

/** The real engine. */
export interface LlamaServer {
  /** `http://127.0.0.1:PORT` */
  readonly origin: string;
  /** The secret that it asks for; "" for none. */
  readonly key: string;
  /** All that it has printed so far. */
  output(): string;
  /** How many answers it is writing now. */
  answersUnderWay(): Promise<number>;
  /** Resolves when it writes nothing any more. */
  whenIdle(): Promise<void>;
  /** Ends it, answers under way included. Harmless when it has ended. */
  close(): Promise<void>;
}

/**
 * Starts one on a free port and waits until it serves the model, under the name "tiny". It has two slots: two answers at once.
 *
 * @param key the secret that it asks for; default: none
 * @param contextTokens of each slot
 * @throws Error when it does not come up, with what it said
 */
export async function openLlamaServer(
  { key = "", contextTokens = 8192 }: { readonly key?: string; readonly contextTokens?: number } = {},
): Promise<LlamaServer> {
  const folder = await Deno.makeTempDir({ prefix: "llama-server-" });
  await writeTinyLanguageModel(`${folder}/tiny.gguf`);
  const port = freePort();
  const origin = `http://127.0.0.1:${port}`;
  const slots = 2;
  const process = new Deno.Command(PROGRAM, {
    args: [
      ...["--model", `${folder}/tiny.gguf`, "--alias", "tiny", "--offline"],
      ...["--host", "127.0.0.1", "--port", String(port)],
      ...["--threads", "1", "--threads-batch", "1"],
      ...["--ctx-size", String(contextTokens * slots), "--parallel", String(slots)],
      ...["--embeddings", "--pooling", "mean", "--metrics"],
    ],
    // Where everybody on the machine could read it, no secret belongs: not among the arguments.
    env: key === "" ? {} : { LLAMA_API_KEY: key },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const chunks: string[] = [];
  const reading = [process.stdout, process.stderr].map((stream) => collect(stream, chunks));
  let hasEnded = false;
  let closing: Promise<void> | undefined;
  process.status.then(() => hasEnded = true);

  async function answersUnderWay(): Promise<number> {
    const response = await fetch(`${origin}/metrics`, { headers: { authorization: `Bearer ${key}` } });
    const found = /^llamacpp:requests_processing (\d+)$/m.exec(await response.text());
    if (found === null) throw new Error(`the engine tells no figures: status ${response.status}`);
    return Number(found[1]);
  }

  async function close(): Promise<void> {
    if (!hasEnded) process.kill("SIGKILL");
    await Promise.all([process.status, ...reading]);
    await Deno.remove(folder, { recursive: true });
  }

  const server: LlamaServer = {
    origin,
    key,
    output: () => chunks.join(""),
    answersUnderWay,
    async whenIdle() {
      for (let tries = 0; await answersUnderWay() > 0; tries++) {
        if (tries === 200) throw new Error("the engine is still busy");
        await pause(25);
      }
    },
    close: () => closing ??= close(),
  };
  for (let tries = 0; !await isUp(origin); tries++) {
    if (hasEnded || tries === STARTS_WITHIN_TRIES) {
      await server.close();
      throw new Error(`the engine did not come up; it said:\n${chunks.join("")}`);
    }
    await pause(50);
  }
  return server;
}

/** A test that needs the engine. Without one it is skipped, and fails on the machine that decides what ships. */
export function testWithEngine(name: string, run: (test: Deno.TestContext) => Promise<void>): void {
  const isFatal = Deno.env.get("CI") === "true";
  Deno.test({
    name: llamaServerMissing === undefined ? name : `${name} (${llamaServerMissing})`,
    ignore: llamaServerMissing !== undefined && !isFatal,
    async fn(test) {
      if (llamaServerMissing !== undefined) throw new Error(llamaServerMissing);
      await run(test);
    },
  });
}

async function isUp(origin: string): Promise<boolean> {
  try {
    const response = await fetch(`${origin}/health`);
    await response.body?.cancel();
    return response.status === 200;
  } catch {
    return false;
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

async function collect(stream: ReadableStream<Uint8Array>, chunks: string[]): Promise<void> {
  const decoder = new TextDecoder();
  for await (const bytes of stream) chunks.push(decoder.decode(bytes, { stream: true }));
}
