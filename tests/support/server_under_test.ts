// The server under test: src/main.ts in a process of its own, with exactly the flags that its settings need.
import { permissionFlags } from "../../src/cli/permission_flags.ts";
import { parseConfig } from "../../src/config/config.ts";
import { PROXY_VARIABLES } from "../../src/config/environment.ts";
import { type SettingName, SETTINGS, variableOf } from "../../src/config/schema.ts";

const ROOT = `${import.meta.dirname}/../..`;
export const ADMIN_PASSWORD = "correct horse battery staple";

export interface ServerUnderTest {
  readonly origin: string;
  readonly port: number;
  readonly dataDir: string;
  readonly process: Deno.ChildProcess;
  /** All that it has printed so far, both streams. */
  output(): string;
  /** Resolves when /readyz says so. */
  whenReady(): Promise<void>;
  signIn(username?: string, password?: string): Promise<string>;
  /** Sends a signal and waits for the end; the exit status. */
  stop(signal?: Deno.Signal): Promise<Deno.CommandStatus>;
}

export interface ServerOptions {
  /** A folder that outlives the server; default: a new one that `stop` removes. */
  readonly dataDir?: string;
  readonly variables?: Record<string, string>;
  /** Settings of the test's own that are left out. */
  readonly omit?: readonly string[];
  /** Variables that are not settings, such as DENO_AUDIT_PERMISSIONS. */
  readonly environment?: Record<string, string>;
}

/** Starts one on a free port and waits until it listens. */
export async function startServerUnderTest(options: ServerOptions = {}): Promise<ServerUnderTest> {
  const dataDir = options.dataDir ?? await Deno.makeTempDir({ prefix: "portcullis-server-" });
  const port = Number(options.variables?.PORTCULLIS_PORT ?? freePort());
  const variables: Record<string, string> = {
    PORTCULLIS_PORT: String(port),
    PORTCULLIS_DATA_DIR: dataDir,
    PORTCULLIS_ADMIN_PASSWORD: ADMIN_PASSWORD,
    PORTCULLIS_RATE_ADDRESS_PER_MINUTE: "1000000",
    PORTCULLIS_RATE_SIGN_IN_PER_MINUTE: "1000000",
    PORTCULLIS_RATE_USER_PER_MINUTE: "1000000",
    PORTCULLIS_REQUESTS_AT_ONCE_PER_USER: "1000000",
    ...options.variables,
  };
  for (const name of options.omit ?? []) delete variables[name];
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", ...flagsFor(variables), "src/main.ts"],
    cwd: ROOT,
    env: { ...environmentOfServers(), ...variables, ...options.environment, NO_COLOR: "1" },
    clearEnv: true,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let hasEnded = false;
  process.status.then(() => hasEnded = true);
  const chunks: string[] = [];
  const reading = [process.stdout, process.stderr].map((stream) => collect(stream, chunks));
  const origin = `http://127.0.0.1:${port}`;

  const server: ServerUnderTest = {
    origin,
    port,
    dataDir,
    process,
    output: () => chunks.join(""),
    whenReady: () => poll(() => probe(`${origin}/readyz`), () => hasEnded, chunks),
    async signIn(username = "admin", password = ADMIN_PASSWORD) {
      const response = await fetch(`${origin}/v1/auth/login`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ username, password }),
      });
      const body = await response.json();
      if (response.status !== 200) {
        throw new Error(`sign-in answered ${response.status}: ${JSON.stringify(body)}`);
      }
      return body.access_token;
    },
    async stop(signal = "SIGTERM") {
      try {
        process.kill(signal);
      } catch {
        // It has ended by itself.
      }
      const status = await process.status;
      await Promise.all(reading);
      if (options.dataDir === undefined) await Deno.remove(dataDir, { recursive: true });
      return status;
    },
  };
  try {
    await poll(() => probe(`${origin}/healthz`), () => hasEnded, chunks);
  } catch (error) {
    await server.stop("SIGKILL");
    throw error;
  }
  return server;
}

/** This process's variables, less those that name proxies: with them no server would start that has upstreams. */
export function environmentOfServers(): Record<string, string> {
  const variables = Deno.env.toObject();
  for (const name of PROXY_VARIABLES) delete variables[name];
  return variables;
}

/**
 * A port of loopback that is free now, and stays so until somebody asks for it by number: it lies below the range that
 * systems hand out by themselves, so no connection and no other listener gets it by accident, and it is given once.
 */
export function freePort(): number {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (givenPorts.has(port)) continue;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) continue;
      throw error;
    }
    givenPorts.add(port);
    return port;
  }
}

const givenPorts = new Set<number>();

/** Sends raw bytes to the server and reads until it closes the connection, or for at most `waitMs`. */
export async function rawRequest(port: number, request: string, waitMs = 2000): Promise<string> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const decoder = new TextDecoder();
  let answer = "";
  const timer = setTimeout(() => connection.close(), waitMs);
  try {
    // Not awaited: a server that refuses early does not read the rest.
    const sending = writeAll(connection, new TextEncoder().encode(request));
    const buffer = new Uint8Array(16_384);
    for (;;) {
      const read = await connection.read(buffer);
      if (read === null) break;
      answer += decoder.decode(buffer.subarray(0, read), { stream: true });
      if (/^connection: close\r$/im.test(answer) && isWhole(answer)) break;
    }
    connection.close();
    await sending;
  } catch {
    // Closed by the timer or reset by the peer: what came until then is the answer.
  } finally {
    clearTimeout(timer);
    try {
      connection.close();
    } catch {
      // The timer was first.
    }
  }
  return answer;
}

async function writeAll(connection: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
  try {
    for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
  } catch {
    // The server closed first; what it said is what counts.
  }
}

/** Whether an answer with a length has come as a whole. */
function isWhole(answer: string): boolean {
  const [head = "", ...rest] = answer.split("\r\n\r\n");
  const announced = /^content-length: (\d+)/im.exec(head)?.[1];
  return announced !== undefined && rest.join("\r\n\r\n").length >= Number(announced);
}

/** Variables that name a file with a secret. */
const SECRET_FILES = new Set(
  (Object.keys(SETTINGS) as SettingName[]).filter((name) => SETTINGS[name].secret).map((name) =>
    `${variableOf(name)}_FILE`
  ),
);

/** The flags of `deno task flags` under these settings. */
export function flagsFor(variables: Record<string, string>): string[] {
  const settings = Object.fromEntries(
    Object.entries(variables).flatMap(([name, value]): [string, string][] =>
      SECRET_FILES.has(name)
        ? [[name.slice(0, -"_FILE".length), Deno.readTextFileSync(value).trimEnd()]]
        : name.endsWith("_FILE")
        ? []
        : [[name, value]]
    ),
  );
  const parsed = parseConfig({ variables: settings, file: undefined, cores: 2, storeExists: () => true });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.mistakes));
  return permissionFlags(
    parsed.config,
    Object.entries(variables).filter(([name]) => name.endsWith("_FILE")).map(([, file]) => file),
  );
}

async function probe(url: string): Promise<boolean> {
  try {
    const response = await fetch(url);
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

async function poll(
  check: () => Promise<boolean>,
  hasEnded: () => boolean,
  chunks: readonly string[],
): Promise<void> {
  for (let tries = 0; tries < 600 && !hasEnded(); tries++) {
    if (await check()) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`the server did not come up; it said:\n${chunks.join("")}`);
}

async function collect(stream: ReadableStream<Uint8Array>, chunks: string[]): Promise<void> {
  for await (
    const text of stream.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)
  ) chunks.push(text);
}
