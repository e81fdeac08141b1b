// Rsyslog server: a real rsyslogd for tests, in the foreground, with a configuration of its own; it writes what came into a file.
import { freePort } from "./server_under_test.ts";

/** Whether this machine has rsyslogd, and what it needs for TLS; without them the tests that need them are ignored. */
export const hasRsyslog: boolean = hasModule("imtcp") && hasModule("lmnsd_gtls");

function hasModule(name: string): boolean {
  const folders = [
    "/usr/lib/rsyslog",
    "/usr/lib/x86_64-linux-gnu/rsyslog",
    "/usr/lib/aarch64-linux-gnu/rsyslog",
  ];
  return folders.some((folder) => {
    try {
      return Deno.statSync(`${folder}/${name}.so`).isFile;
    } catch {
      return false;
    }
  });
}

/** A message as rsyslogd understood it. */
export interface SyslogMessage {
  readonly pri: string;
  readonly version: string;
  readonly time: string;
  readonly host: string;
  readonly app: string;
  readonly msgid: string;
  readonly data: string;
  readonly msg: string;
}

export interface RsyslogServer {
  readonly port: number;
  /** All that it has written so far; a line that a kill left half written is left out. */
  messages(): SyslogMessage[];
  /** SIGKILL; resolves when it has ended. */
  kill(): Promise<void>;
  /** Starts it again on the same port, after a kill. */
  restart(): Promise<void>;
  /** Ends it and removes its folder. */
  stop(): Promise<void>;
}

/** Starts one on 127.0.0.1 and waits until it listens. */
export async function startRsyslogServer(
  tls?: { readonly certificatePem: string; readonly privateKeyPem: string },
): Promise<RsyslogServer> {
  const port = freePort();
  const dir = await Deno.makeTempDir({ prefix: "portcullis-rsyslog-" });
  if (tls !== undefined) {
    await Deno.writeTextFile(`${dir}/tls.crt`, tls.certificatePem);
    await Deno.writeTextFile(`${dir}/tls.key`, tls.privateKeyPem);
  }
  const field = (name: string, property: string) =>
    `property(outname="${name}" name="${property}" format="jsonf")`;
  await Deno.writeTextFile(
    `${dir}/rsyslog.conf`,
    [
      `global(workDirectory="${dir}" maxMessageSize="1m"${
        tls === undefined ? "" : ` defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="${dir}/tls.crt"
          defaultNetstreamDriverCertFile="${dir}/tls.crt" defaultNetstreamDriverKeyFile="${dir}/tls.key"`
      })`,
      `module(load="imtcp"${
        tls === undefined
          ? ""
          : ' streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon"'
      })`,
      `template(name="fields" type="list" option.jsonf="on") {`,
      ...[
        field("pri", "pri"),
        field("version", "protocol-version"),
        field("time", "timereported").replace("format=", 'dateFormat="rfc3339" format='),
        field("host", "hostname"),
        field("app", "app-name"),
        field("msgid", "msgid"),
        field("data", "structured-data"),
        field("msg", "msg"),
      ],
      "}",
      // A ruleset without a queue: what was read is in the file.
      `ruleset(name="out" queue.type="Direct") { action(type="omfile" file="${dir}/out" template="fields") }`,
      `input(type="imtcp" address="127.0.0.1" port="${port}" ruleset="out")`,
      "",
    ].join("\n"),
  );
  const spawn = () =>
    new Deno.Command("/usr/sbin/rsyslogd", {
      args: ["-n", "-f", `${dir}/rsyslog.conf`, "-i", `${dir}/pid`],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
  let process = spawn();
  let said = collect(process);
  const server: RsyslogServer = {
    port,
    messages() {
      let text = "";
      try {
        text = Deno.readTextFileSync(`${dir}/out`);
      } catch {
        // Nothing yet.
      }
      return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
    },
    async kill() {
      try {
        process.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await process.status;
      await said;
    },
    async restart() {
      await server.kill();
      await Deno.remove(`${dir}/pid`).catch(() => {});
      process = spawn();
      said = collect(process);
      await untilListens(port);
    },
    async stop() {
      await server.kill();
      await Deno.remove(dir, { recursive: true });
    },
  };
  try {
    await untilListens(port);
  } catch (error) {
    await server.kill();
    throw new Error(`${error instanceof Error ? error.message : ""}; it said:\n${await said}`);
  }
  return server;
}

async function collect(process: Deno.ChildProcess): Promise<string> {
  return await new Response(process.stderr).text();
}

async function untilListens(port: number): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    try {
      (await Deno.connect({ hostname: "127.0.0.1", port })).close();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
  throw new Error(`rsyslogd did not listen on port ${port}`);
}
