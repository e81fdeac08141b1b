// Tests of the Redis stream sink: the real worker and a real redis-server; each entry is in the stream exactly once.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { SinkOptions } from "../../../src/audit/sinks/sink_options.ts";
import {
  hasRedisServer,
  type RedisServer,
  startRedisCluster,
  startRedisServer,
} from "../../support/redis_server.ts";
import { numbered, numberedUpTo, TrailFolder, until } from "../trail_folder.ts";
import { openSinksUnderTest } from "./opened_sinks.ts";

type RedisStreamOptions = Extract<SinkOptions, { kind: "redis_stream" }>;
const ignore = !hasRedisServer;
const STREAM = "portcullis:audit";

function stream(ports: readonly number[], more: Partial<RedisStreamOptions> = {}): RedisStreamOptions {
  return {
    name: "stream",
    from: "start",
    kind: "redis_stream",
    classes: undefined,
    stream: STREAM,
    entriesMax: 1_000_000,
    caCertificates: undefined,
    address: {
      topology: ports.length === 1 ? "single" : "cluster",
      tls: false,
      hosts: ports.map((port) => ({ host: "127.0.0.1", port })),
      username: null,
      password: null,
      database: 0,
      masterName: null,
    },
    ...more,
  };
}

/** The entries of the stream, by their ids. */
async function entriesIn(server: RedisServer): Promise<{ readonly id: string; readonly seq: number }[]> {
  const lines = (await server.cli("XRANGE", STREAM, "-", "+")).split("\n");
  return lines.flatMap((line, index) =>
    /^\d+-0$/.test(line) ? [{ id: line, seq: JSON.parse(lines[index + 2] ?? "").seq }] : []
  );
}

const length = async (server: RedisServer) => Number(await server.cli("XLEN", STREAM));

async function untilLength(server: RedisServer, entries: number): Promise<void> {
  for (let tries = 0; await length(server).catch(() => 0) < entries; tries++) {
    if (tries === 400) throw new Error(`the stream has ${await length(server)} entries of ${entries}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

Deno.test({
  name:
    "every entry is in the stream once, under its number, also when it is sent again: the cursor lost, Redis killed on the way",
  ignore,
  async fn() {
    const server = await startRedisServer({ persistent: true });
    try {
      await using folder = new TrailFolder();
      const hosts = [`127.0.0.1:${server.port}`];
      folder.write(numberedUpTo(1500));
      const first = openSinksUnderTest(folder, [stream([server.port])], hosts);
      await untilLength(server, 700);
      await server.restart();
      await untilLength(server, 1500);
      await first.close();
      await Deno.remove(`${folder.root}/sinks/stream.cursor`);
      folder.write([numbered(1501)]);
      const second = openSinksUnderTest(folder, [stream([server.port])], hosts);
      await untilLength(server, 1501);
      await second.close();
      const entries = await entriesIn(server);
      deepStrictEqual(
        entries.map(({ id }) => id),
        Array.from({ length: 1501 }, (_, index) => `${index + 1}-0`),
      );
      ok(entries.every(({ id, seq }) => id === `${seq}-0`));
      match(await server.cli("XRANGE", STREAM, "17", "17"), /"reason":"17"/);
    } finally {
      await server.stop();
    }
  },
});

Deno.test({
  name:
    "a stream that another trail fills is left alone: the sink waits and says so, and takes nobody's entry for its own",
  ignore,
  async fn() {
    const server = await startRedisServer();
    try {
      const hosts = [`127.0.0.1:${server.port}`];
      await using one = new TrailFolder();
      one.write(numberedUpTo(5));
      const first = openSinksUnderTest(one, [stream([server.port])], hosts);
      await untilLength(server, 5);
      await first.close();
      await using other = new TrailFolder();
      other.write(numberedUpTo(9));
      const second = openSinksUnderTest(other, [stream([server.port])], hosts);
      await until(() => second.logged.length > 0);
      await second.close();
      strictEqual(
        second.logged[0]?.fields.reason,
        "another entry stands in the stream where entry 1 belongs: name another stream",
      );
      strictEqual(await length(server), 5);
    } finally {
      await server.stop();
    }
  },
});

Deno.test({
  name: "a Redis without memory takes nothing for a while, and then all that was held",
  ignore,
  async fn() {
    const server = await startRedisServer({ args: ["--maxmemory", "1"] });
    try {
      await using folder = new TrailFolder();
      folder.write(numberedUpTo(20));
      const sinks = openSinksUnderTest(folder, [stream([server.port])], [`127.0.0.1:${server.port}`]);
      await until(() => sinks.logged.length > 0);
      strictEqual(sinks.logged[0]?.fields.state, "down");
      await server.cli("CONFIG", "SET", "maxmemory", "0");
      await untilLength(server, 20);
      await sinks.close();
      deepStrictEqual(
        (await entriesIn(server)).map(({ seq }) => seq),
        Array.from({ length: 20 }, (_, i) => i + 1),
      );
    } finally {
      await server.stop();
    }
  },
});

Deno.test({
  name:
    "the stream keeps about as many entries as it was told, and the user needs no more rights than the documentation says",
  ignore,
  async fn() {
    const document = Deno.readTextFileSync(new URL("../../../docs/audit.md", import.meta.url));
    const [, rules = ""] = /^ *user audit on >PASSWORD (.+)$/m.exec(document) ?? [];
    ok(rules.includes("+xadd"));
    const server = await startRedisServer({
      args: ["--user", "audit", "on", ">secret", ...rules.split(" ")],
    });
    try {
      await using folder = new TrailFolder();
      folder.write(numberedUpTo(2500));
      const options = stream([server.port], { entriesMax: 1000 });
      const sinks = openSinksUnderTest(
        folder,
        [{ ...options, address: { ...options.address, username: "audit", password: "secret" } }],
        [`127.0.0.1:${server.port}`],
      );
      await until(() => sinks.logged.length > 0);
      deepStrictEqual(sinks.logged.map(({ fields }) => [fields.state, fields.reason]), [["up", null]]);
      for (;;) if ((await server.cli("XRANGE", STREAM, "2500", "2500")) !== "") break;
      await sinks.close();
      const kept = await length(server);
      ok(kept >= 1000 && kept < 1300, `${kept} entries`);
    } finally {
      await server.stop();
    }
  },
});

Deno.test({
  name: "in a cluster the stream is found on whichever node carries it",
  ignore,
  async fn() {
    const cluster = await startRedisCluster();
    try {
      const ports = cluster.nodes.map(({ port }) => port);
      const owner = await cluster.nodeOf(STREAM);
      await using folder = new TrailFolder();
      folder.write(numberedUpTo(5));
      // The one that carries it is asked last.
      const order = [...ports.filter((port) => port !== owner.port), owner.port];
      const sinks = openSinksUnderTest(folder, [stream(order)], ports.map((port) => `127.0.0.1:${port}`));
      await untilLength(owner, 5);
      await sinks.close();
    } finally {
      await cluster.stop();
    }
  },
});
