// Redis as instances use it, against real servers: what comes back, and what every way of failing looks like.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../../src/faults/fault.ts";
import { parseRedisAddress } from "../../../src/config/redis_setting.ts";
import { openRedis } from "../../../src/store/redis/open_redis.ts";
import type { Redis, RedisReply } from "../../../src/store/redis/redis.ts";
import {
  hasRedisServer,
  type RedisServer,
  type RedisServerOptions,
  startRedisCluster,
  startRedisSentinel,
  startRedisServer,
} from "../../support/redis_server.ts";
import { makeSelfSignedCertificate } from "../../support/self_signed_certificate.ts";
import { freePort } from "../../support/server_under_test.ts";

const INCREMENT = { lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" };

interface Opened {
  readonly redis: Redis;
  /** All that the watch was told. */
  readonly told: readonly string[];
}

async function open(url: string, caCertificates?: string): Promise<Opened> {
  const address = parseRedisAddress(url);
  if (address === undefined) throw new Error(`${url} is no address`);
  const told: string[] = [];
  const redis = await openRedis({ address, prefix: "portcullis", caCertificates, timeoutMs: 250 }, {
    stateChanged: (state, reason) => told.push(reason === null ? state : `${state}: ${reason}`),
    warn: (text) => told.push(`warning: ${text}`),
  });
  return { redis, told };
}

/** One server, and one client of it. */
function testRedis(
  name: string,
  test: (opened: Opened & { readonly server: RedisServer }) => Promise<void>,
  options: RedisServerOptions = {},
): void {
  testServers(name, async () => {
    const server = await startRedisServer(options);
    try {
      const opened = await open(server.url);
      try {
        await test({ ...opened, server });
      } finally {
        await opened.redis.close();
      }
    } finally {
      await server.stop();
    }
  });
}

function testServers(name: string, fn: () => Promise<void>): void {
  Deno.test({
    name: hasRedisServer ? name : `${name} (ignored: no redis-server here)`,
    ignore: !hasRedisServer,
    fn,
  });
}

/** A Fault whose private reason fits, without a secret or a value. */
function unavailable(reason: RegExp) {
  return (error: unknown) => {
    ok(error instanceof Fault, String(error));
    strictEqual(error.kind, "unavailable");
    strictEqual(error.details.retryAfterSeconds, 1);
    match(error.message, /^Cannot use Redis: /);
    match(error.message, reason);
    ok(!/hunter2|the value/.test(Deno.inspect(error)), error.message);
    return true;
  };
}

/** Whether a Fault says that nothing was sent. */
const saysNotSent = (error: unknown) => error instanceof Fault && error.details.notSent === true;

/** Tries until Redis works again. */
async function untilWorks(redis: Redis, name = "again"): Promise<RedisReply> {
  for (let tries = 0; tries < 400; tries++) {
    try {
      return await redis.run(INCREMENT, [redis.key(name)], ["1"]);
    } catch (error) {
      if (!(error instanceof Fault) || error.kind !== "unavailable") throw error;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
  throw new Error("it did not come back");
}

testRedis("every byte comes back as it was, in memory of its own", async ({ redis }) => {
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  const key = redis.key("bytes");
  strictEqual(await redis.call(key, ["SET", key, bytes]), "OK");
  const [read, echoed] = await Promise.all([
    redis.call(key, ["GET", key]),
    redis.run({ lua: "return {ARGV[1], redis.call('GET', KEYS[1]), 'é'}" }, [key], [bytes]),
  ]);
  deepStrictEqual(read, bytes);
  deepStrictEqual(echoed, [bytes, bytes, new TextEncoder().encode("é")]);
  ok(read instanceof Uint8Array && read.constructor === Uint8Array);
  strictEqual(read.buffer.byteLength, 256);
});

testRedis("bytes are sent as they were at the call", async ({ redis }) => {
  const bytes = Uint8Array.of(1, 2, 3);
  const key = redis.key("bytes");
  const setting = redis.call(key, ["SET", key, bytes]);
  bytes.fill(0);
  await setting;
  deepStrictEqual(await redis.call(key, ["GET", key]), Uint8Array.of(1, 2, 3));
});

testRedis("integers, texts, lists and nothing come as the port says", async ({ redis }) => {
  const key = redis.key("none");
  const script = {
    lua: "return {1, -9007199254740928, redis.call('GET', KEYS[1]), {}, redis.status_reply('FINE')}",
  };
  deepStrictEqual(await redis.run(script, [key], []), [1, -9007199254740928, null, [], "FINE"]);
  strictEqual(await redis.call(key, ["GET", key]), null);
  strictEqual(await redis.call(key, ["LPOP", key, "2"]), null);
  // The client's own arithmetic is wrong above that.
  await rejects(redis.run({ lua: "return 9007199254740991" }, [], []), unavailable(/it answers ERR$/));
});

testRedis("a script works after Redis has forgotten all scripts", async ({ redis, server }) => {
  const key = redis.key("count");
  strictEqual(await redis.run(INCREMENT, [key], ["2"]), 2);
  await server.cli("SCRIPT", "FLUSH");
  strictEqual(await redis.run(INCREMENT, [key], ["3"]), 5);
  strictEqual(await redis.run(INCREMENT, [key], ["4"]), 9);
  match(await server.cli("INFO", "commandstats"), /cmdstat_evalsha:calls=3,/);
});

testRedis(
  "a script's mistake tells its line and none of its values, and the connection stays",
  async (opened) => {
    const { redis, told } = opened;
    const key = redis.key("text");
    await rejects(
      redis.run({ lua: "local text = ARGV[1]\nreturn redis.call('SET', KEYS[1], text, text)" }, [key], [
        "the value",
      ]),
      unavailable(/it answers ERR in line 2 of the script$/),
    );
    await redis.call(key, ["SET", key, "the value"]);
    await rejects(redis.call(key, ["HGETALL", key]), unavailable(/it answers WRONGTYPE$/));
    await rejects(redis.call(key, ["NOSUCHCOMMAND", "the value"]), unavailable(/it answers ERR$/));
    await rejects(
      redis.run({ lua: "return {1, redis.error_reply('ODD the value')}" }, [key], []),
      unavailable(/it answers ODD$/),
    );
    deepStrictEqual(told.filter((each) => !each.startsWith("warning")), []);
  },
);

testRedis(
  "a server that is killed answers Faults until it is back, then everything works",
  async (opened) => {
    const { redis, server, told } = opened;
    await redis.run(INCREMENT, [redis.key("again")], ["1"]);
    await server.kill();
    await rejects(
      redis.run(INCREMENT, [redis.key("again")], ["1"]),
      unavailable(/connection (closed|refused)/),
    );
    await rejects(
      redis.call(redis.key("x"), ["GET", redis.key("x")]),
      unavailable(/connection (closed|refused)/),
    );
    await server.restart();
    // The scripts were forgotten as well.
    strictEqual(await untilWorks(redis), 2);
    deepStrictEqual(told, [`down: 127.0.0.1:${server.port}: connection closed`, "up"]);
  },
  { persistent: true },
);

testRedis(
  "a server that hangs answers Faults in bounded time, also for what is under way",
  async (opened) => {
    const { redis, server } = opened;
    server.pause();
    const calls = Array.from({ length: 50 }, () => redis.run(INCREMENT, [redis.key("x")], ["1"]));
    for (const call of await Promise.allSettled(calls)) {
      ok(call.status === "rejected" && unavailable(/no answer within 250 ms/)(call.reason));
      ok(!saysNotSent(call.reason), "Redis may do it later");
    }
    const next = redis.run(INCREMENT, [redis.key("x")], ["1"]);
    await rejects(next, unavailable(/no answer within 250 ms/));
    await rejects(next, saysNotSent);
    server.resume();
    strictEqual(await untilWorks(redis), 1);
  },
);

testRedis("a process that was held up itself does not take Redis for late", async ({ redis, told }) => {
  const answer = redis.run(INCREMENT, [redis.key("x")], ["1"]);
  await new Promise((resolve) => setTimeout(resolve, 0));
  const until = performance.now() + 600;
  while (performance.now() < until);
  strictEqual(await answer, 1);
  deepStrictEqual(told.filter((each) => !each.startsWith("warning")), []);
});

testRedis(
  "more commands than may wait are refused at once, and the others keep their place",
  async (opened) => {
    const { redis, server, told } = opened;
    server.pause();
    const calls = Array.from({ length: 10_000 }, () => redis.call("", ["GET", redis.key("x")]));
    const settled = Promise.allSettled(calls);
    const more = redis.call("", ["GET", redis.key("x")]);
    await rejects(more, unavailable(/10000 commands wait for an answer/));
    await rejects(more, saysNotSent);
    deepStrictEqual(told.filter((each) => !each.startsWith("warning")), []);
    server.resume();
    ok((await settled).every((each) => each.status === "fulfilled"));
    strictEqual(await redis.call("", ["GET", redis.key("x")]), null);
  },
);

testRedis(
  "a server without memory answers Faults, and the connection stays",
  async ({ redis, server, told }) => {
    const key = redis.key("x");
    await server.cli("CONFIG", "SET", "maxmemory", "1");
    const refused = redis.call(key, ["SET", key, "the value"]);
    await rejects(refused, unavailable(/it answers OOM$/));
    ok(!await refused.catch(saysNotSent));
    await rejects(
      redis.run(INCREMENT, [key], ["1"]),
      unavailable(/it answers OOM( in line 1 of the script)?$/),
    );
    strictEqual(await redis.call(key, ["GET", key]), null);
    await server.cli("CONFIG", "SET", "maxmemory", "0");
    strictEqual(await redis.run(INCREMENT, [key], ["1"]), 1);
    deepStrictEqual(told.filter((each) => !each.startsWith("warning")), []);
  },
);

testRedis("a master that has become a replica is not used until it is a master again", async (opened) => {
  const { redis, server, told } = opened;
  const key = redis.key("x");
  await server.cli("REPLICAOF", "127.0.0.1", `${freePort()}`);
  await rejects(redis.run(INCREMENT, [key], ["1"]), unavailable(/it answers READONLY|MASTERDOWN/));
  // Also reading: what a replica says may be old.
  await rejects(redis.call(key, ["GET", key]), unavailable(/replica|READONLY/));
  await server.cli("REPLICAOF", "NO", "ONE");
  strictEqual(await untilWorks(redis), 1);
  deepStrictEqual(told.filter((each) => !each.startsWith("warning")), ["down: it answers READONLY", "up"]);
});

testRedis("what makes a Redis forget is told at the opening", async ({ server, told }) => {
  strictEqual(told.length, 1);
  match(told[0] ?? "", /^warning: Redis keeps no append-only file/);
  await server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru");
  await server.cli("CONFIG", "SET", "appendonly", "yes");
  const second = await open(server.url);
  await second.redis.close();
  deepStrictEqual(second.told.length, 1);
  match(second.told[0] ?? "", /maxmemory-policy allkeys-lru.*set noeviction/);
});

testRedis(
  "after its close every call is a Fault, and a second close does nothing",
  async ({ redis, told }) => {
    const calls = [redis.call("", ["GET", redis.key("x")]), redis.run(INCREMENT, [redis.key("x")], ["1"])];
    const settled = Promise.allSettled(calls);
    await redis.close();
    for (const call of await settled) ok(call.status === "rejected" && unavailable(/closed$/)(call.reason));
    await rejects(redis.call("", ["GET", redis.key("x")]), unavailable(/closed$/));
    await redis.close();
    deepStrictEqual(told.filter((each) => !each.startsWith("warning")), []);
  },
);

testRedis("it can be closed while Redis is away", async ({ redis, server }) => {
  await server.kill();
  await rejects(redis.run(INCREMENT, [redis.key("x")], ["1"]), unavailable(/connection/));
});

testRedis("keys of one prefix are in the one slot of a cluster", ({ redis }) => {
  strictEqual(redis.key("user:1"), "{portcullis}:user:1");
  return Promise.resolve();
});

Deno.test("the opening says why in plain words: nobody listens", async () => {
  const port = freePort();
  await rejects(
    open(`redis://127.0.0.1:${port}`),
    unavailable(new RegExp(`127.0.0.1:${port}: connection refused$`)),
  );
});

Deno.test("the opening says why in plain words: a name that is not known", async () => {
  await rejects(open("redis://portcullis.invalid"), unavailable(/portcullis\.invalid:6379: /));
});

Deno.test("the opening says why in plain words: nobody answers", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    await rejects(
      open(`redis://:hunter2@127.0.0.1:${listener.addr.port}`),
      unavailable(/no answer within 2000 ms$/),
    );
  } finally {
    listener.close();
  }
});

Deno.test({
  name: "the opening says which setting is missing where the permissions do not reach",
  permissions: { net: ["127.0.0.1:1"], read: true, env: true },
  fn: async () => {
    await rejects(open("redis://127.0.0.1:2"), unavailable(/127\.0\.0\.1:2: .*PORTCULLIS_REDIS_HOSTS$/));
    await rejects(open("redis://localhost:2"), unavailable(/localhost:2: .*PORTCULLIS_REDIS_HOSTS$/));
  },
});

testServers("a password that is wrong, missing or too much is told apart, and never told", async () => {
  const server = await startRedisServer({
    args: ["--requirepass", "hunter2hunter2"],
    cliArgs: ["--pass", "hunter2hunter2"],
  });
  const address = `127.0.0.1:${server.port}`;
  try {
    await rejects(open(`redis://:hunter2@${address}`), unavailable(/: wrong user name or password$/));
    await rejects(open(`redis://somebody:hunter2@${address}`), unavailable(/: wrong user name or password$/));
    await rejects(open(`redis://${address}`), unavailable(/: it demands a password$/));
    await server.cli("CONFIG", "SET", "requirepass", "");
    await rejects(open(`redis://:hunter2@${address}`), unavailable(/: it has no password for this user/));
  } finally {
    await server.stop();
  }
});

testServers("a user with no more than the adapter's commands and the prefix's keys can do all", async () => {
  const rule = ["portcullis", "on", ">hunter2", "resetkeys", "~{portcullis}:*", "-@all"];
  const server = await startRedisServer({
    args: ["--user", ...rule, "+del", "+eval", "+evalsha", "+incrby"],
  });
  const url = `redis://portcullis:hunter2@127.0.0.1:${server.port}`;
  try {
    const { redis, told } = await open(url);
    try {
      strictEqual(await redis.run(INCREMENT, [redis.key("x")], ["1"]), 1);
      await rejects(redis.run(INCREMENT, ["{other}:x"], ["1"]), unavailable(/it answers NOPERM/));
      await rejects(redis.call("", ["GET", redis.key("x")]), unavailable(/it answers NOPERM$/));
      // INFO is not allowed: nothing is known, so nothing is warned of.
      deepStrictEqual(told, []);
    } finally {
      await redis.close();
    }
    await server.cli("ACL", "SETUSER", "portcullis", "-del");
    await rejects(open(url), unavailable(/: the user lacks a permission$/));
  } finally {
    await server.stop();
  }
});

testServers("databases are kept apart, and one that is not there is refused", async () => {
  const server = await startRedisServer();
  try {
    const [first, second] = await Promise.all([open(`${server.url}/1`), open(`${server.url}/2`)]);
    await first.redis.run(INCREMENT, [first.redis.key("x")], ["1"]);
    strictEqual(await second.redis.call("", ["GET", second.redis.key("x")]), null);
    await Promise.all([first.redis.close(), second.redis.close()]);
    await rejects(open(`${server.url}/99`), unavailable(/: it answers ERR$/));
  } finally {
    await server.stop();
  }
});

testServers("TLS works with the authority that is named", async () => {
  const [certificate, other] = await Promise.all([makeSelfSignedCertificate(), makeSelfSignedCertificate()]);
  const server = await startRedisServer({ tls: certificate });
  try {
    const url = `rediss://localhost:${server.tlsPort}`;
    const { redis } = await open(url, certificate.certificatePem);
    strictEqual(await redis.run(INCREMENT, [redis.key("x")], ["1"]), 1);
    await redis.close();
    await rejects(open(url), unavailable(/: certificate refused \(/));
    await rejects(open(url, other.certificatePem), unavailable(/: certificate refused \(/));
    // The certificate is for localhost only.
    await rejects(
      open(`rediss://127.0.0.1:${server.tlsPort}`, certificate.certificatePem),
      unavailable(/: certificate refused \(/),
    );
    await rejects(open(`redis://127.0.0.1:${server.tlsPort}`), unavailable(/: connection closed$/));
  } finally {
    await server.stop();
  }
});

Deno.test("a server with a certificate that nobody vouches for gets no byte of the password", async () => {
  const [certificate, other] = await Promise.all([makeSelfSignedCertificate(), makeSelfSignedCertificate()]);
  const listener = Deno.listenTls({
    hostname: "127.0.0.1",
    port: 0,
    cert: certificate.certificatePem,
    key: certificate.privateKeyPem,
  });
  /** How many bytes come over the next connection first. */
  const receive = async () => {
    const connection = await listener.accept();
    try {
      return await connection.read(new Uint8Array(1024)) ?? 0;
    } catch {
      // The handshake failed.
      return 0;
    } finally {
      connection.close();
    }
  };
  const url = `rediss://:hunter2@localhost:${listener.addr.port}`;
  try {
    const [received] = await Promise.all([
      receive(),
      rejects(open(url, other.certificatePem), unavailable(/: certificate refused \(/)),
    ]);
    strictEqual(received, 0);
    // With the right one the password does come.
    const [receivedThen] = await Promise.all([
      receive(),
      rejects(open(url, certificate.certificatePem), unavailable(/: connection closed$/)),
    ]);
    ok(receivedThen > 0);
  } finally {
    listener.close();
  }
});

testServers("a cluster's node that carries the keys is found, also after the slot has moved", async () => {
  const cluster = await startRedisCluster();
  const [first, second, third] = await Promise.all(
    cluster.nodes.map((node) => open(`redis+cluster://127.0.0.1:${node.port}`)),
  );
  ok(first && second && third);
  try {
    const key = first.redis.key("x");
    strictEqual(await first.redis.run(INCREMENT, [key, second.redis.key("y")], ["1"]), 1);
    strictEqual(await second.redis.run(INCREMENT, [key], ["1"]), 2);
    strictEqual(await third.redis.run(INCREMENT, [key], ["1"]), 3);
    const old = await cluster.nodeOf(key);
    const next = cluster.nodes.find((node) => node !== old);
    ok(next);
    await cluster.moveSlotOf(key, next);
    await rejects(first.redis.run(INCREMENT, [key], ["1"]), unavailable(/it answers MOVED/));
    strictEqual(await untilWorks(first.redis, "x"), 4);
    strictEqual(await untilWorks(second.redis, "x"), 5);
    // A node of a cluster is no single server.
    const [wrong] = cluster.nodes.filter((node) => node !== next);
    await rejects(open(wrong?.url ?? ""), unavailable(/it belongs to a cluster; write redis\+cluster:\/\/$/));
    // A node that is away does not matter while the one that carries the keys is there.
    await old.kill();
    const fourth = await open(cluster.url);
    strictEqual(new TextDecoder().decode(await fourth.redis.call(key, ["GET", key]) as Uint8Array), "5");
    await fourth.redis.close();
  } finally {
    await Promise.all([first, second, third].map(({ redis }) => redis.close()));
    await cluster.stop();
  }
});

testServers(
  "the master that a sentinel names is followed when it changes its place and when it dies",
  async () => {
    const sentinel = await startRedisSentinel();
    try {
      const { redis } = await open(sentinel.url);
      try {
        strictEqual(await redis.run(INCREMENT, [redis.key("again")], ["1"]), 1);
        await sentinel.switchOver();
        const before = await untilWorks(redis);
        ok(before === 2, `${before}`);
        await sentinel.failOver();
        strictEqual(await untilWorks(redis), 3);
      } finally {
        await redis.close();
      }
      await rejects(
        open(`redis+sentinel://127.0.0.1:${sentinel.port}/other`),
        unavailable(/this sentinel knows no master "other"$/),
      );
      // The first that is named does not have to be there.
      const away = freePort();
      const second = await open(`redis+sentinel://127.0.0.1:${away},127.0.0.1:${sentinel.port}/portcullis`);
      await second.redis.close();
      await rejects(
        open(`redis+sentinel://127.0.0.1:${away},127.0.0.1:${sentinel.port}/other`),
        unavailable(
          new RegExp(`:${away}: connection refused; .*:${sentinel.port}: this sentinel knows no master`),
        ),
      );
    } finally {
      await sentinel.stop();
    }
  },
);

testServers("a sentinel gets the password only if it demands one", async () => {
  for (const sentinelPassword of [undefined, "hunter2"]) {
    const sentinel = await startRedisSentinel({
      password: "hunter2",
      ...sentinelPassword === undefined ? {} : { sentinelPassword },
    });
    try {
      const { redis } = await open(sentinel.url.replace("//", "//:hunter2@"));
      strictEqual(await redis.run(INCREMENT, [redis.key("x")], ["1"]), 1);
      await redis.close();
      await rejects(open(sentinel.url), unavailable(/: it demands a password$/));
    } finally {
      await sentinel.stop();
    }
  }
});
