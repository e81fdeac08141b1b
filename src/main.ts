// Main: read the settings, listen, assemble the server, serve, and close in order.
import { assemble, FIRST_USER, type Portcullis } from "./assemble.ts";
import { type Config, mistakeLines, outgoingHosts } from "./config/config.ts";
import { readEnvironment } from "./config/environment.ts";
import { newId } from "./encoding/ids.ts";
import { Fault, toFault } from "./faults/fault.ts";
import { standardHeaders } from "./http/middleware/standard_headers.ts";
import { type Listener, type ListenerApp, openListener, type PlainAnswer } from "./listener.ts";
import { printError, printLine } from "./telemetry/terminal.ts";
import { systemClock } from "./time/clock.ts";

/** Exit codes of sysexits.h: a mistake in the settings, and a part that is not available. */
const EXIT_CONFIG = 78;
const EXIT_UNAVAILABLE = 69;
/** Package runners pass Ctrl+C on twice; a person who means it twice takes longer. */
const SECOND_SIGNAL_MS_MIN = 1000;
/** The part of the time for stopping that running inferences may use to end by themselves. */
const FINISHING_SHARE = 0.6;
/** The part after which connections are waited for no more. */
const CLOSING_SHARE = 0.8;

/** Set by the first signal: from then on the listener ends by intent. */
let stopping = false;

async function main(): Promise<void> {
  const settings = readEnvironment();
  if (!settings.ok) {
    for (const line of mistakeLines("Cannot start: the settings are wrong.", settings.mistakes)) {
      printError(line);
    }
    Deno.exit(EXIT_CONFIG);
  }
  const { config } = settings;
  const closed = outgoingHosts(config).filter((host) => !mayReach(host));
  if (closed.length > 0) {
    printError(`Cannot start: the process may not reach ${closed.join(", ")}; ${OTHER_PERMISSIONS}`);
    Deno.exit(EXIT_UNAVAILABLE);
  }
  let portcullis: Portcullis | undefined;
  try {
    // The socket first: a start that cannot have it must leave nothing behind, no user whose password nobody saw.
    const server = await listen(
      config,
      (request, peer) => portcullis?.app(request, peer) ?? Promise.resolve(starting(config)),
    );
    stopOnSignals(config, server, () => portcullis);
    endWithListener(server, () => portcullis);
    portcullis = await assemble(config);
  } catch (thrown) {
    printError(`Cannot start: ${explain(thrown)}`);
    Deno.exit(EXIT_UNAVAILABLE);
  }
  surviveStrays(portcullis);
  await greet(config, portcullis);
}

/** For the moment between the socket and the server behind it. */
function starting(config: Config): PlainAnswer {
  const headers = standardHeaders(config.publicUrl, []).forAnswer(newId("req", systemClock.now()), null);
  return { status: 503, headers: { ...headers, "Retry-After": "1" }, body: null };
}

async function listen(config: Config, app: ListenerApp): Promise<Listener> {
  const { host: hostname, port } = config;
  try {
    return await openListener({
      hostname,
      port,
      app,
      headersTimeoutMs: config.headTimeoutMs,
      idleTimeoutMs: config.idleTimeoutMs,
      connectionsMax: config.connectionsMax,
    });
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    throw new Fault(
      "unavailable",
      `${hostname}:${port} is in use, perhaps by another Portcullis. On another port:\n` +
        `  PORTCULLIS_PORT=${port + 1} deno task serve`,
    );
  }
}

/** In words that hold the next step. */
function explain(thrown: unknown): string {
  return thrown instanceof Deno.errors.NotCapable ? OTHER_PERMISSIONS : toFault(thrown).message;
}

const OTHER_PERMISSIONS =
  "these settings need other permissions than this process was started with. The flags that fit them:\n" +
  "  deno task serve        (starts with them)\n" +
  "  deno task flags        (prints them)";

/** A host that is out of reach for good is a mistake of the start and no fault of that host. */
function mayReach(host: string): boolean {
  return Deno.permissions.querySync({ name: "net", host }).state === "granted";
}

/**
 * A process whose listener has died (no file descriptors left, say) answers nobody: it ends, so that whoever runs it
 * starts it again. Nothing acknowledged is lost by that.
 */
function endWithListener(server: Listener, opened: () => Portcullis | undefined): void {
  const end = async (why: string): Promise<void> => {
    if (stopping) return;
    const log = opened()?.log;
    log?.write("error", "server.listener_ended", { reason: why });
    await log?.flush();
    Deno.exit(EXIT_UNAVAILABLE);
  };
  server.finished.then(() => end("it was closed"), (thrown) => end(toFault(thrown).message));
}

/** Says what a person needs next. In production the log says it, for there nobody watches. */
async function greet(config: Config, portcullis: Portcullis): Promise<void> {
  const models = portcullis.catalog.list().filter(({ accepted }) => accepted);
  const modelIds = models.map(({ id }) => id);
  if (config.mode === "production") {
    const { log } = portcullis;
    log.write("info", "server.listening", { host: config.host, port: config.port });
    const failed = await portcullis.whenWarm();
    log.write(failed === 0 ? "info" : "error", "server.warm", { models: modelIds.length, failed });
    return;
  }
  const password = portcullis.generatedPassword;
  printLine(`\nPortcullis listens on ${config.publicUrl}`);
  printLine(`  sign in as   ${FIRST_USER}`);
  printLine(
    `  password     ${
      password === undefined ? "the one of the first start" : `${password}   (shown this once)`
    }`,
  );
  if (modelIds.length > 0) printLine(`  warming      ${modelIds.join(", ")} …`);
  const failed = await portcullis.whenWarm();
  printLine(
    failed === 0
      ? "  ready        stop with Ctrl+C"
      : "  started, but not every model could be opened: see the log",
  );
  const example = exampleCall(models);
  if (example === undefined) return;
  printLine(`
Try it, in another terminal:

PASSWORD='${password ?? "your password"}'
TOKEN=$(curl -s ${config.publicUrl}/v1/auth/login -H 'Content-Type: application/json' \\
  -d "{\\"username\\":\\"${FIRST_USER}\\",\\"password\\":\\"$PASSWORD\\"}" | sed -n 's/.*"access_token":"\\([^"]*\\)".*/\\1/p')
curl -s ${config.publicUrl}${example.path} -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
  -d '${example.body}'
`);
}

/** A call that a person can paste: of a model that chats, where there is one. */
function exampleCall(
  models: ReturnType<Portcullis["catalog"]["list"]>,
): { readonly path: string; readonly body: string } | undefined {
  const chats = models.find(({ capabilities }) => capabilities.includes("chat"));
  if (chats !== undefined) {
    const messages = [{ role: "user", content: "How old are you?" }];
    return { path: "/v1/chat/completions", body: JSON.stringify({ model: chats.id, messages }) };
  }
  const embeds = models.find(({ capabilities }) => capabilities.includes("embedding"));
  return embeds === undefined
    ? undefined
    : { path: "/v1/embeddings", body: JSON.stringify({ model: embeds.id, input: "How old are you?" }) };
}

/** The last net: a stray rejection is a defect to log, no reason to drop everybody's requests (ASVS V16.5.4). */
function surviveStrays({ log }: Portcullis): void {
  const stray = (event: Event, thrown: unknown): void => {
    event.preventDefault();
    log.write("error", "server.stray_error", { reason: toFault(thrown).message });
  };
  globalThis.addEventListener("unhandledrejection", (event) => stray(event, event.reason));
  globalThis.addEventListener("error", (event) => stray(event, event.error));
}

/**
 * SIGTERM and SIGINT: accept no more, let what runs end, record the stop, exit 0. A second signal, or the deadline, exits
 * at once.
 */
function stopOnSignals(config: Config, server: Listener, opened: () => Portcullis | undefined): void {
  let mayHurry = false;
  const stop = async (signal: string): Promise<void> => {
    stopping = true;
    const portcullis = opened();
    if (portcullis === undefined) Deno.exit(1);
    portcullis.drain();
    portcullis.log.write("info", "server.stopping", { signal });
    setTimeout(() => mayHurry = true, SECOND_SIGNAL_MS_MIN);
    const deadline = setTimeout(() => Deno.exit(1), config.shutdownTimeoutMs);
    // Most of the time is for what runs; what still runs then is ended in order, with an answer and a record.
    const last = setTimeout(() => portcullis.stopInferences(), config.shutdownTimeoutMs * FINISHING_SHARE);
    // Clients that take nothing of their answers must not keep the trail from being closed in order.
    const given = new Promise<void>((resolve) =>
      setTimeout(resolve, config.shutdownTimeoutMs * CLOSING_SHARE)
    );
    await Promise.race([server.shutdown(), given]);
    clearTimeout(last);
    await portcullis.close(signal);
    clearTimeout(deadline);
    if (config.mode === "development") printLine("stopped");
    Deno.exit(0);
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(signal, () => {
      if (mayHurry) Deno.exit(1);
      if (!stopping) void stop(signal);
    });
  }
}

if (import.meta.main) await main();
