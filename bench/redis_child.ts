// Redis child: a real redis-server on a free port of loopback, keeping nothing on disk.
import { freePort } from "./child_server.ts";

export interface RedisChild {
  readonly port: number;
  readonly pid: number;
  /** `redis://127.0.0.1:PORT`. */
  readonly url: string;
  stop(): Promise<void>;
}

/** What to say where `startRedisChild` finds none. */
export const NO_REDIS = "Redis is left out: there is no redis-server on this machine.";

const TRIES_MAX = 400;
const POLL_MS = 10;

/**
 * Starts one and waits until it answers; undefined where this machine has none.
 *
 * @param folder its working folder
 * @throws Error when it does not come up
 */
export async function startRedisChild(folder: string): Promise<RedisChild | undefined> {
  const port = freePort();
  const process = spawn(port, folder);
  if (process === undefined) return undefined;
  let running = true;
  process.status.then(() => running = false);
  const child: RedisChild = {
    port,
    pid: process.pid,
    url: `redis://127.0.0.1:${port}`,
    async stop() {
      if (running) process.kill("SIGTERM");
      await process.status;
    },
  };
  for (let tries = 0; running && tries < TRIES_MAX; tries++) {
    if (await answersPing(port)) return child;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await child.stop();
  throw new Error("Cannot measure with Redis: redis-server does not answer");
}

function spawn(port: number, folder: string): Deno.ChildProcess | undefined {
  try {
    return new Deno.Command("redis-server", {
      args: ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no"],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return undefined;
    throw thrown;
  }
}

async function answersPing(port: number): Promise<boolean> {
  try {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(new TextEncoder().encode("PING\r\n"));
    const buffer = new Uint8Array(64);
    const count = await connection.read(buffer) ?? 0;
    return new TextDecoder().decode(buffer.subarray(0, count)).startsWith("+PONG");
  } catch {
    return false;
  }
}
