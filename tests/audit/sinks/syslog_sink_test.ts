// Tests of the syslog sink: the real worker and a real rsyslogd, over TCP and TLS, also one that is killed.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { shippedEntry } from "../../../src/audit/sinks/shipped_entry.ts";
import { SinkFault } from "../../../src/audit/sinks/sink.ts";
import type { SinkOptions } from "../../../src/audit/sinks/sink_options.ts";
import { openSyslogSink } from "../../../src/audit/sinks/syslog_sink.ts";
import { hasRsyslog, startRsyslogServer } from "../../support/rsyslog_server.ts";
import { makeSelfSignedCertificate } from "../../support/self_signed_certificate.ts";
import { freePort } from "../../support/server_under_test.ts";
import { numberedUpTo, TrailFolder, until } from "../trail_folder.ts";
import { openSinksUnderTest } from "./opened_sinks.ts";

type SyslogOptions = Extract<SinkOptions, { kind: "syslog" }>;

function syslog(port: number, more: Partial<SyslogOptions> = {}): SyslogOptions {
  return {
    name: "syslog",
    from: "start",
    kind: "syslog",
    classes: undefined,
    host: "127.0.0.1",
    port,
    tls: false,
    caCertificates: undefined,
    facility: 13,
    sender: "ai.example.com",
    ...more,
  };
}

const ignore = !hasRsyslog; // apt-get install rsyslog rsyslog-gnutls
const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);
const numbersOf = (messages: readonly { readonly msg: string }[]) =>
  messages.map(({ msg }) => JSON.parse(msg).seq);

Deno.test({
  name: "rsyslogd over TCP gets every entry, once and in order, and understands all fields",
  ignore,
  async fn() {
    const server = await startRsyslogServer();
    try {
      await using folder = new TrailFolder();
      folder.write([...numberedUpTo(999), {
        type: "server.stopped",
        reason: `é\u2028\n${"x".repeat(60_000)}`,
      }]);
      const sinks = openSinksUnderTest(folder, [syslog(server.port)], [`127.0.0.1:${server.port}`]);
      await until(() => server.messages().length >= 1000);
      await sinks.close();
      const messages = server.messages();
      deepStrictEqual(numbersOf(messages), upTo(1000));
      const { msg, ...fields } = messages[0] ?? { msg: "" };
      deepStrictEqual(fields, {
        // 13 × 8 + 5: log audit, notice.
        pri: "109",
        version: "1",
        time: JSON.parse(msg).time,
        host: "ai.example.com",
        app: "portcullis",
        msgid: "server.stopped",
        data: "-",
      });
      strictEqual(JSON.parse(messages[999]?.msg ?? "").event.reason, `é\u2028\n${"x".repeat(60_000)}`);
    } finally {
      await server.stop();
    }
  },
});

Deno.test({
  name: "rsyslogd over TLS gets every entry where its certificate is trusted, and nothing where it is not",
  ignore,
  async fn() {
    const certificate = await makeSelfSignedCertificate();
    const server = await startRsyslogServer(certificate);
    try {
      await using folder = new TrailFolder();
      folder.write(numberedUpTo(300));
      const at = { host: "localhost", tls: true };
      const trusting = { ...at, caCertificates: certificate.certificatePem };
      const sinks = openSinksUnderTest(folder, [
        syslog(server.port, trusting),
        syslog(server.port, { ...at, name: "other" }),
      ], [`localhost:${server.port}`]);
      await until(() => server.messages().length >= 300 && sinks.logged.length >= 2);
      await sinks.close();
      deepStrictEqual(numbersOf(server.messages()), upTo(300));
      deepStrictEqual(
        sinks.logged.map(({ fields }) => [fields.sink, fields.state, fields.reason]).sort(),
        [["other", "down", "its certificate is not trusted"], ["syslog", "up", null]],
      );
    } finally {
      await server.stop();
    }
  },
});

Deno.test({
  name: "what rsyslogd had taken when it was killed is sent again: nothing is missing",
  ignore,
  async fn() {
    const server = await startRsyslogServer();
    try {
      await using folder = new TrailFolder();
      const sinks = openSinksUnderTest(folder, [syslog(server.port)], [`127.0.0.1:${server.port}`]);
      let last = 0;
      for (let round = 0; round < 3; round++) {
        folder.write(numberedUpTo(last + 400, last + 1));
        last += 400;
        await until(() => server.messages().length > last - 300);
        await server.kill();
        folder.write(numberedUpTo(last + 10, last + 1));
        last += 10;
        await server.restart();
      }
      await until(() => new Set(numbersOf(server.messages())).size === last);
      await sinks.close();
      deepStrictEqual([...new Set(numbersOf(server.messages()))].sort((a, b) => a - b), upTo(last));
      ok(sinks.logged.some(({ fields }) => fields.state === "down"));
    } finally {
      await server.stop();
    }
  },
});

Deno.test("a receiver that closes without having read gets what it was sent again, and after a restart too", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  const port = freePort();
  const listener = Deno.listen({ hostname: "127.0.0.1", port });
  const accepted: string[] = [];
  // The first connection is accepted, read once and reset without an answer; the second one is kept open; the last read to its end.
  const serving = (async () => {
    for (let count = 0; count < 3; count++) {
      const connection = await listener.accept();
      const buffer = new Uint8Array(10_000);
      const read = await connection.read(buffer) ?? 0;
      accepted.push(new TextDecoder().decode(buffer.subarray(0, read)));
      if (count === 1) await new Promise<void>((resolve) => release = resolve);
      if (count === 2) { while (await connection.read(buffer) !== null); }
      connection.close();
    }
  })();
  let release = () => {};
  const hosts = [`127.0.0.1:${port}`];
  const first = openSinksUnderTest(folder, [syslog(port)], hosts);
  await until(() => accepted.length === 2);
  strictEqual(accepted[1], accepted[0]);
  // It does not end its side: nobody knows whether it has read all.
  await first.close();
  release();
  const second = openSinksUnderTest(folder, [syslog(port)], hosts);
  await until(() => accepted.length === 3);
  strictEqual(accepted[2], accepted[0]);
  await second.close();
  await serving;
  // That one did: the cursor has moved.
  const cursor = JSON.parse(Deno.readTextFileSync(`${folder.root}/sinks/syslog.cursor`));
  strictEqual(cursor.seq, 2);
  listener.close();
});

Deno.test("a sink whose connection has ended says so before it connects again: what it was given before may be lost", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const sink = openSyslogSink(syslog(listener.addr.port));
  const entry = shippedEntry("trail", {
    seq: 1,
    time: "2026-01-02T03:04:05.006Z",
    hash: "0".repeat(64),
    class: "security",
    event: { type: "server.stopped" },
  });
  const [first] = await Promise.all([listener.accept(), sink.send([entry])]);
  // It has read nothing.
  first.close();
  await new Promise((resolve) => setTimeout(resolve, 100));
  // Where the news comes later than that, what was written meanwhile is in question as well.
  await rejects(async () => {
    for (let time = 0; time < 500; time++) await sink.send([entry]);
  }, SinkFault);
  const [second] = await Promise.all([listener.accept(), sink.send([entry])]);
  strictEqual(sink.lost?.(), undefined);
  second.close();
  // Told once: whoever was told begins anew.
  await until(() => sink.lost?.() !== undefined);
  strictEqual(sink.lost?.(), undefined);
  const [third] = await Promise.all([listener.accept(), sink.send([entry])]);
  third.close();
  await sink.close();
  listener.close();
});
