// Main: read the settings, assemble the server, serve, and close in order.
import { assemble, FIRST_USER, type Portcullis } from "./assemble.ts";
import type { Config } from "./config/config.ts";
import { readEnvironment } from "./config/environment.ts";
import { Fault, toFault } from "./faults/fault.ts";
import { printError, printLine } from "./telemetry/terminal.ts";

/** Exit codes of sysexits.h: a mistake in the settings, and a part that is not available. */
const EXIT_CONFIG = 78;
const EXIT_UNAVAILABLE = 69;

async function main(): Promise<void> {
  const settings = readEnvironment();
  if (!settings.ok) {
    printError("Cannot start: the settings are wrong.");
    for (const { where, what } of settings.mistakes) printError(`  ${where} ${what}`);
    printError("All settings: docs/settings.md");
    Deno.exit(EXIT_CONFIG);
  }
  const { config } = settings;
  let portcullis: Portcullis;
  let server: Deno.HttpServer;
  try {
    portcullis = await assemble(config);
    server = listen(config, portcullis);
  } catch (thrown) {
    printError(`Cannot start: ${toFault(thrown).message}`);
    Deno.exit(EXIT_UNAVAILABLE);
  }
  surviveStrays(portcullis);
  stopOnSignals(config, portcullis, server);
  await greet(config, portcullis);
}

function listen(config: Config, portcullis: Portcullis): Deno.HttpServer {
  const { host: hostname, port } = config;
  try {
    return Deno.serve({
      hostname,
      port,
      onListen: () => undefined,
      onError: () => new Response(null, { status: 500 }),
    }, (request, info) => portcullis.app(request, info as { remoteAddr: { hostname?: string } }));
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) {
      throw new Fault(
        "unavailable",
        `this process may not listen on ${hostname}:${port}. Start it with the flags that these settings need:\n` +
          "  deno run $(deno task --quiet flags) src/main.ts",
      );
    }
    if (error instanceof Deno.errors.AddrInUse) {
      throw new Fault(
        "unavailable",
        `${hostname}:${port} is in use. Choose another port with PORTCULLIS_PORT.`,
      );
    }
    throw error;
  }
}

/** Says what a person needs next. In production the log says it, for there nobody watches. */
async function greet(config: Config, portcullis: Portcullis): Promise<void> {
  const { log } = portcullis;
  log.write("info", "server.listening", { host: config.host, port: config.port, mode: config.mode });
  const modelIds = portcullis.catalog.list().filter(({ accepted }) => accepted).map(({ card }) => card.id);
  if (config.mode === "development") {
    printLine(`\nPortcullis listens on ${config.publicUrl}`);
    if (modelIds.length > 0) printLine(`  warming ${modelIds.join(", ")} …`);
  }
  const failed = await portcullis.whenWarm();
  log.write(failed === 0 ? "info" : "error", "server.warm", { models: modelIds.length, failed });
  if (config.mode !== "development") return;
  const password = portcullis.generatedPassword;
  const [model = "MODEL"] = modelIds;
  printLine(failed === 0 ? "  ready" : "  started, but not every model could be opened: see the log");
  printLine(
    password === undefined
      ? `\n  sign in as   ${FIRST_USER}, with the password of the first start`
      : `\n  sign in as   ${FIRST_USER}\n  password     ${password}   (shown this once)`,
  );
  printLine(`
  try it       TOKEN=$(curl -s ${config.publicUrl}/v1/auth/login -H 'Content-Type: application/json' \\
                 -d '{"username":"${FIRST_USER}","password":"${
    password ?? "…"
  }"}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/'); \\
               curl -s ${config.publicUrl}/v1/embeddings -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
                 -d '{"model":"${model}","input":"How old are you?"}'

  stop         Ctrl+C
`);
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

/** SIGTERM and SIGINT: accept no more, let what runs end, record the stop, exit 0; a second signal or the deadline exits at once. */
function stopOnSignals(config: Config, portcullis: Portcullis, server: Deno.HttpServer): void {
  let stopping = false;
  const stop = async (signal: string): Promise<void> => {
    if (stopping) Deno.exit(1);
    stopping = true;
    portcullis.drain();
    portcullis.log.write("info", "server.stopping", { signal });
    const deadline = setTimeout(() => Deno.exit(1), config.shutdownTimeoutMs);
    await server.shutdown();
    await portcullis.close(signal);
    clearTimeout(deadline);
    Deno.exit(0);
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(signal, () => void stop(signal));
  }
}

if (import.meta.main) await main();
