// Syslog sink: entries as messages of RFC 5424, counted in octets, over TCP (RFC 6587) or TLS (RFC 5425).
import { encodeUtf8 } from "../../encoding/utf8.ts";
import type { Severity, ShippedEntry } from "./shipped_entry.ts";
import { type Sink, SinkFault } from "./sink.ts";
import type { SyslogOptions } from "./sink_options.ts";

/** RFC 5424 §6.2.1. */
const SEVERITY: Readonly<Record<Severity, number>> = { warning: 4, notice: 5, informational: 6 };
const CONNECT_MS = 10_000;
/** A receiver that takes nothing for so long is given up. */
const WRITE_MS = 15_000;
/** At the end the receiver has so long to read the rest. */
const FAREWELL_MS = 400;

interface Connection {
  readonly socket: Deno.Conn;
  /** Resolves with why it has ended. */
  readonly ended: Promise<string>;
  reason: string | undefined;
}

/**
 * A sink of a syslog receiver. The protocol has no acknowledgement: what the receiver's machine has taken may still be lost with it.
 */
export function openSyslogSink(options: SyslogOptions): Sink<ShippedEntry> {
  let connection: Connection | undefined;

  return {
    acknowledges: false,
    async send(entries) {
      // Over a new connection these would come, and nobody would know that those before have not.
      const reason = lost();
      if (reason !== undefined) throw new SinkFault(reason);
      connection ??= await connect(options);
      const { socket } = connection;
      try {
        await within(WRITE_MS, "it takes nothing", writeAll(socket, frames(entries, options)));
      } catch (thrown) {
        drop();
        throw asSinkFault(thrown);
      }
    },
    lost,
    async close() {
      if (connection === undefined) return true;
      const { socket, ended, reason } = connection;
      let hasCome = false;
      if (reason === undefined) {
        try {
          // Whoever reads the end has read all before it, and then ends its own side.
          await socket.closeWrite();
          hasCome = await within(FAREWELL_MS, "it does not end", ended) === CLOSED;
        } catch {
          // Sent again.
        }
      }
      drop();
      return hasCome;
    },
  };

  function lost(): string | undefined {
    const reason = connection?.reason;
    if (reason !== undefined) drop();
    return reason;
  }

  function drop(): void {
    try {
      connection?.socket.close();
    } catch {
      // It has closed by itself.
    }
    connection = undefined;
  }
}

/** `LENGTH SP MESSAGE` for each (RFC 6587 §3.4.1, RFC 5425 §4.3). */
export function frames(
  entries: readonly ShippedEntry[],
  sender: Pick<SyslogOptions, "facility" | "sender">,
): Uint8Array<ArrayBuffer> {
  // All of it is ASCII, so characters are octets.
  return encodeUtf8(
    entries.map((entry) => {
      const message = syslogMessage(entry, sender);
      return `${message.length} ${message}`;
    }).join(""),
  );
}

/**
 * `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG` (RFC 5424 §6). The message is ASCII, so it needs no byte order
 * mark (§6.4), which would only be in the way of whoever parses the JSON.
 */
export function syslogMessage(
  { time, type, severity, line }: ShippedEntry,
  { facility, sender }: Pick<SyslogOptions, "facility" | "sender">,
): string {
  // A MSGID has 32 characters at most (§6).
  return `<${facility * 8 + SEVERITY[severity]}>1 ${time} ${sender} portcullis - ${
    type.slice(0, 32)
  } - ${line}`;
}

async function connect({ host, port, tls, caCertificates }: SyslogOptions): Promise<Connection> {
  const address = { hostname: host, port };
  const opening: Promise<Deno.Conn> = tls
    ? Deno.connectTls({ ...address, ...(caCertificates === undefined ? {} : { caCerts: [caCertificates] }) })
      .then(
        async (socket) => {
          try {
            // Else a certificate is refused with the first write only.
            await socket.handshake();
            return socket;
          } catch (thrown) {
            socket.close();
            throw thrown;
          }
        },
      )
    : Deno.connect(address);
  let socket: Deno.Conn;
  try {
    socket = await within(CONNECT_MS, "no connection came to stand", opening);
  } catch (thrown) {
    opening.then((late) => late.close(), () => {});
    throw asSinkFault(thrown);
  }
  const connection: Connection = { socket, ended: watchEnd(socket), reason: undefined };
  connection.ended.then((reason) => connection.reason = reason);
  return connection;
}

const CLOSED = "it closed the connection";

/** Receivers say nothing; reading shows when they leave. */
async function watchEnd(socket: Deno.Conn): Promise<string> {
  const buffer = new Uint8Array(1024);
  try {
    while (await socket.read(buffer) !== null) {
      // Whatever it says means nothing.
    }
    return CLOSED;
  } catch (thrown) {
    return plainWords(thrown);
  }
}

async function writeAll(socket: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await socket.write(bytes.subarray(written));
}

async function within<Value>(ms: number, otherwise: string, act: Promise<Value>): Promise<Value> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new SinkFault(`${otherwise} within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([act, late]);
  } finally {
    clearTimeout(timer);
  }
}

function asSinkFault(thrown: unknown): SinkFault {
  return thrown instanceof SinkFault ? thrown : new SinkFault(plainWords(thrown));
}

function plainWords(thrown: unknown): string {
  if (thrown instanceof Deno.errors.ConnectionRefused) return "it refuses connections";
  if (thrown instanceof Deno.errors.NotCapable) return "this process may not connect to it";
  if (thrown instanceof Deno.errors.ConnectionReset || thrown instanceof Deno.errors.BrokenPipe) {
    return "it reset the connection";
  }
  if (thrown instanceof Deno.errors.UnexpectedEof) return CLOSED;
  const text = thrown instanceof Error ? thrown.message : "";
  if (/certificate|UnknownIssuer|NotValidForName/i.test(text)) return "its certificate is not trusted";
  if (/lookup|resolve|name/i.test(text)) return "its name is not known";
  return "the connection failed";
}
