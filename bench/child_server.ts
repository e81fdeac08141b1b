// Child server: a server in a process of its own, on a free port of loopback.
import { systemClock } from "../src/time/clock.ts";

export interface ChildServer {
  readonly port: number;
  readonly pid: number;
  /** Resolves when `path` answers 200; milliseconds since the process was started. */
  answers(path: string): Promise<number>;
  stop(): Promise<void>;
}

/** The folder of this checkout. */
export const CHECKOUT = `${import.meta.dirname}/..`;
const POLL_MS = 10;
const ANSWER_MS_MAX = 60_000;
export const PASSWORD = "correct horse battery staple";
/**
 * What every server of the bench is set to: the limits are not what is measured. A server refuses settings that it does not
 * know: none may stand here that an older checkout lacks.
 */
const OPEN_LIMITS = {
  PORTCULLIS_RATE_ADDRESS_PER_MINUTE: "1000000000",
  PORTCULLIS_RATE_SIGN_IN_PER_MINUTE: "1000000000",
  PORTCULLIS_RATE_USER_PER_MINUTE: "1000000000",
  PORTCULLIS_REQUESTS_AT_ONCE_PER_USER: "1000000",
  PORTCULLIS_TOKEN_TTL_SECONDS: "3600",
  PORTCULLIS_ADMIN_PASSWORD: PASSWORD,
};

/** For servers of the bench's own. */
export function benchFlags(): string[] {
  return ["-P=bench", "--no-prompt", "--cached-only", "--frozen", "--no-remote"];
}

/**
 * Starts `deno run FLAGS FILE PORT PARAMETERS`.
 *
 * @param settings variables by their whole names; a function gets the port that was chosen
 * @param flags under these settings
 * @param checkout the folder that FILE is in, with a deno.json and dependencies of its own
 */
export function startChildServer(
  file: string,
  settings: Readonly<Record<string, string>>,
  flags: (variables: Record<string, string>) => string[],
  checkout: string = CHECKOUT,
  parameters: readonly string[] = [],
): ChildServer {
  const port = freePort();
  const variables = { ...OPEN_LIMITS, ...settings, PORTCULLIS_PORT: String(port) };
  const others = Object.entries(Deno.env.toObject()).filter(([name]) => !name.startsWith("PORTCULLIS_"));
  const startedMs = systemClock.monotonic();
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", ...flags(variables), file, String(port), ...parameters],
    cwd: checkout,
    clearEnv: true,
    env: { ...Object.fromEntries(others), ...variables, NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const complaint = new Response(process.stderr).text();
  let running = true;
  process.status.then(() => running = false);

  return {
    port,
    pid: process.pid,
    async answers(path) {
      while (running && systemClock.monotonic() - startedMs < ANSWER_MS_MAX) {
        if (await answers200(`http://127.0.0.1:${port}${path}`)) return systemClock.monotonic() - startedMs;
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
      if (running) process.kill("SIGKILL");
      throw new Error(`Cannot measure ${file}: it does not answer ${path}. It said:\n${await complaint}`);
    },
    async stop() {
      if (running) process.kill("SIGTERM");
      await process.status;
      await complaint;
    },
  };
}

/** An access token; of the first user, where nobody is named. */
export async function signIn({ port }: ChildServer, username = "admin"): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/auth/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username, password: PASSWORD }),
  });
  const body = await response.json();
  if (response.status !== 200) throw new Error(`Cannot sign in: ${response.status} ${JSON.stringify(body)}`);
  return body.access_token;
}

async function answers200(url: string): Promise<boolean> {
  try {
    const response = await fetch(url);
    await response.body?.cancel();
    return response.status === 200;
  } catch {
    return false;
  }
}

/** Of loopback; nobody listens there at this moment. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
