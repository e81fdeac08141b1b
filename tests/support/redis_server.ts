// Redis server: real redis-servers for tests, alone, as a cluster of three, or as master and replica under a sentinel.
import { freePort } from "./server_under_test.ts";

/** Whether this machine has redis-server and redis-cli; without them the tests that need them are ignored. */
export const hasRedisServer: boolean = ["redis-server", "redis-cli"].every((binary) => {
  try {
    return new Deno.Command(binary, { args: ["--version"], stdout: "null", stderr: "null" }).outputSync()
      .success;
  } catch {
    return false;
  }
});

export interface RedisServer {
  /** Port of 127.0.0.1 without TLS. */
  readonly port: number;
  /** `redis://127.0.0.1:PORT`. */
  readonly url: string;
  /** Port of 127.0.0.1 with TLS, if it was asked for. */
  readonly tlsPort: number | undefined;
  readonly dir: string;
  /** The one that runs now, or ran last. */
  readonly process: Deno.ChildProcess;
  /** redis-cli against it: trimmed stdout. Throws where redis-cli fails or Redis answers an error. */
  cli(...args: readonly string[]): Promise<string>;
  /** SIGKILL; resolves when it has ended. */
  kill(): Promise<void>;
  /** SIGSTOP: connections stay open, nobody answers. */
  pause(): void;
  resume(): void;
  /** Starts it again on the same port and dir, after a SIGKILL where it still runs. Data survive only if it is persistent. */
  restart(): Promise<void>;
  /** Ends it and removes its dir. */
  stop(): Promise<void>;
}

export interface RedisServerOptions {
  /** Further arguments, word by word, such as `--requirepass`, `secret` or `--user`, `app`, `on`, `>secret`, `~*`, `+@all`. */
  readonly args?: readonly string[];
  readonly port?: number;
  /** An append-only file, written at every command: what was answered survives a kill. */
  readonly persistent?: boolean;
  /** What redis-cli needs besides, such as `--user` and `--pass`. */
  readonly cliArgs?: readonly string[];
  /** Listens with TLS as well, on a port of its own, with this certificate; it asks for none. */
  readonly tls?: { readonly certificatePem: string; readonly privateKeyPem: string };
}

/** Starts one on 127.0.0.1 and waits until it answers. */
export async function startRedisServer(options: RedisServerOptions = {}): Promise<RedisServer> {
  const port = options.port ?? freePort();
  const dir = await Deno.makeTempDir({ prefix: "portcullis-redis-" });
  const tlsPort = options.tls === undefined ? undefined : freePort();
  const args = ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", dir, "--save", ""];
  if (options.persistent === true) args.push("--appendonly", "yes", "--appendfsync", "always");
  if (options.tls !== undefined) {
    await Deno.writeTextFile(`${dir}/tls.crt`, options.tls.certificatePem);
    await Deno.writeTextFile(`${dir}/tls.key`, options.tls.privateKeyPem);
    args.push("--tls-port", `${tlsPort}`, "--tls-auth-clients", "no");
    args.push("--tls-cert-file", `${dir}/tls.crt`, "--tls-key-file", `${dir}/tls.key`);
    args.push("--tls-ca-cert-file", `${dir}/tls.crt`);
  }
  args.push(...options.args ?? []);
  return await start({ port, tlsPort }, dir, args, options.cliArgs ?? []);
}

async function start(
  { port, tlsPort }: { readonly port: number; readonly tlsPort?: number | undefined },
  dir: string,
  args: readonly string[],
  cliArgs: readonly string[],
): Promise<RedisServer> {
  const spawn = () =>
    new Deno.Command("redis-server", {
      args: [...args, "--logfile", `${dir}/redis.log`],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  let process = spawn();
  const untilRuns = async () => {
    let ended = false;
    process.status.then(() => ended = true);
    await untilAnswers(port, dir, () => ended);
  };
  const server: RedisServer = {
    port,
    url: `redis://127.0.0.1:${port}`,
    tlsPort,
    dir,
    get process() {
      return process;
    },
    cli: (...words) => redisCli(port, [...cliArgs, ...words]),
    async kill() {
      signal("SIGKILL");
      await process.status;
    },
    pause: () => signal("SIGSTOP"),
    resume: () => signal("SIGCONT"),
    async restart() {
      await server.kill();
      process = spawn();
      await untilRuns();
    },
    async stop() {
      await server.kill();
      // A child that writes a snapshot may outlive it for a moment, and put a file where the last one went.
      await until(
        () => Deno.remove(dir, { recursive: true }).then(() => true, () => false),
        () => `${dir} cannot be removed`,
      );
    },
  };
  const signal = (name: Deno.Signal) => {
    try {
      process.kill(name);
    } catch {
      // It has ended.
    }
  };
  try {
    await untilRuns();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

async function redisCli(port: number, words: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("redis-cli", {
    // -e: an error that Redis answers is a failure.
    args: ["-e", "-h", "127.0.0.1", "-p", `${port}`, "--no-auth-warning", ...words],
    stdin: "null",
  }).output();
  const said = new TextDecoder().decode(stdout).trim();
  if (!success) throw new Error(`redis-cli ${words.join(" ")}: ${said} ${new TextDecoder().decode(stderr)}`);
  return said;
}

/** Until a PING is answered, be it with the demand for a password. */
async function untilAnswers(port: number, dir: string, hasEnded: () => boolean): Promise<void> {
  await until(async () => {
    if (hasEnded()) throw new Error(`redis-server on port ${port} ended; it said:\n${await readLog(dir)}`);
    try {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port });
      try {
        await connection.write(new TextEncoder().encode("PING\r\n"));
        const buffer = new Uint8Array(64);
        const read = await connection.read(buffer) ?? 0;
        return /^(\+PONG|-NOAUTH)/.test(new TextDecoder().decode(buffer.subarray(0, read)));
      } finally {
        connection.close();
      }
    } catch {
      return false;
    }
  }, async () => `redis-server on port ${port} did not answer; it said:\n${await readLog(dir)}`);
}

async function readLog(dir: string): Promise<string> {
  try {
    return await Deno.readTextFile(`${dir}/redis.log`);
  } catch {
    return "nothing";
  }
}

async function until(
  holds: () => Promise<boolean>,
  otherwise: () => Promise<string> | string,
): Promise<void> {
  for (let tries = 0; tries < 1200; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(await otherwise());
}

export interface RedisCluster {
  /** Three masters; each carries a third of the slots. */
  readonly nodes: readonly RedisServer[];
  /** `redis+cluster://127.0.0.1:PORT,…` with all nodes. */
  readonly url: string;
  /** The node that carries a key now. */
  nodeOf(key: string): Promise<RedisServer>;
  /** Moves the slot of a key, and all keys in it, to another node; clients that ask the old one are told. */
  moveSlotOf(key: string, to: RedisServer): Promise<void>;
  stop(): Promise<void>;
}

const SLOTS = 16_384;

/** Starts a cluster of three masters without replicas and waits until all nodes find it whole. */
export async function startRedisCluster(args: readonly string[] = []): Promise<RedisCluster> {
  const busPorts = [freePort(), freePort(), freePort()];
  const nodes = await startAll(busPorts.map((busPort) => () =>
    startRedisServer({
      args: [
        ...["--cluster-enabled", "yes", "--cluster-port", `${busPort}`],
        ...["--cluster-announce-ip", "127.0.0.1", "--cluster-node-timeout", "2000", ...args],
      ],
    })
  ));
  const stop = async () => void await Promise.all(nodes.map((node) => node.stop()));
  const ids = new Map<RedisServer, string>();
  const cluster: RedisCluster = {
    nodes,
    url: `redis+cluster://${nodes.map((node) => `127.0.0.1:${node.port}`).join(",")}`,
    async nodeOf(key) {
      const slot = Number(await nodes[0]?.cli("CLUSTER", "KEYSLOT", key));
      for (const [node, id] of ids) {
        const line = (await node.cli("CLUSTER", "NODES")).split("\n").find((each) => each.startsWith(id)) ??
          "";
        const owns = line.split(" ").slice(8).some((range) => {
          const [first, last = first] = range.split("-").map(Number);
          return first !== undefined && last !== undefined && first <= slot && slot <= last;
        });
        if (owns) return node;
      }
      throw new Error(`nobody carries slot ${slot}`);
    },
    async moveSlotOf(key, to) {
      const slot = await to.cli("CLUSTER", "KEYSLOT", key);
      const from = await cluster.nodeOf(key);
      await to.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids.get(from) ?? "");
      await from.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids.get(to) ?? "");
      const keys = (await from.cli("CLUSTER", "GETKEYSINSLOT", slot, "10000")).split("\n").filter(Boolean);
      if (keys.length > 0) {
        await from.cli("MIGRATE", "127.0.0.1", `${to.port}`, "", "0", "5000", "KEYS", ...keys);
      }
      for (const node of [to, ...nodes.filter((each) => each !== to)]) {
        await node.cli("CLUSTER", "SETSLOT", slot, "NODE", ids.get(to) ?? "");
      }
    },
    stop,
  };
  try {
    for (const [index, node] of nodes.entries()) {
      const [first, last] = [index, index + 1].map((part) => Math.ceil(part * SLOTS / nodes.length));
      await node.cli("CLUSTER", "ADDSLOTSRANGE", `${first}`, `${(last ?? 0) - 1}`);
      await node.cli("CLUSTER", "SET-CONFIG-EPOCH", `${index + 1}`);
      ids.set(node, await node.cli("CLUSTER", "MYID"));
    }
    for (const [index, node] of nodes.entries()) {
      await nodes[0]?.cli("CLUSTER", "MEET", "127.0.0.1", `${node.port}`, `${busPorts[index]}`);
    }
    for (const node of nodes) {
      await until(async () => {
        const info = await node.cli("CLUSTER", "INFO");
        return /cluster_state:ok/.test(info) && /cluster_known_nodes:3/.test(info);
      }, () => "the cluster did not come up");
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return cluster;
}

export interface RedisSentinel {
  /** `redis+sentinel://127.0.0.1:PORT/MASTER`. */
  readonly url: string;
  readonly port: number;
  readonly masterName: string;
  /** Whoever is master now by what the sentinel says. */
  master(): Promise<RedisServer>;
  /** Both servers, in the order of their start: at first the master, then its replica. */
  readonly servers: readonly RedisServer[];
  /**
   * Kills the master and waits until the other server is it, with all that the dead one answered. Once only, unless that one
   * is started again.
   */
  failOver(): Promise<void>;
  /** The two change places, both alive; waits until the old master is a replica. */
  switchOver(): Promise<void>;
  stop(): Promise<void>;
}

export interface RedisSentinelOptions {
  /** The master's and the replica's. */
  readonly password?: string;
  readonly sentinelPassword?: string;
}

/** Starts a master, its replica and one sentinel. */
export async function startRedisSentinel(options: RedisSentinelOptions = {}): Promise<RedisSentinel> {
  const { password, sentinelPassword } = options;
  const masterName = "portcullis";
  const port = freePort();
  const ports = [freePort(), freePort()];
  // No waiting for more replicas that might come, or a replica needs seconds to become one.
  const serverArgs = ["--repl-diskless-sync-delay", "0"];
  if (password !== undefined) serverArgs.push("--requirepass", password, "--masterauth", password);
  const cliArgsOf = (secret: string | undefined) => secret === undefined ? [] : ["--pass", secret];
  const servers = await startAll(ports.map((each, index) => () =>
    startRedisServer({
      port: each,
      cliArgs: cliArgsOf(password),
      args: index === 0 ? serverArgs : [...serverArgs, "--replicaof", `127.0.0.1 ${ports[0]}`],
    })
  ));
  let sentinel: RedisServer | undefined;
  const stop = async () => {
    await Promise.all([...servers, ...sentinel === undefined ? [] : [sentinel]].map((each) => each.stop()));
  };
  try {
    // Before the sentinel looks for the first time: it looks again after ten seconds.
    await until(
      async () => /\nconnected\n/.test(await servers[1]?.cli("ROLE") ?? ""),
      () => "the replica did not connect",
    );
    const dir = await Deno.makeTempDir({ prefix: "portcullis-sentinel-" });
    // The sentinel writes what it learns into its file.
    await Deno.writeTextFile(
      `${dir}/sentinel.conf`,
      [
        `port ${port}`,
        "bind 127.0.0.1",
        `dir ${dir}`,
        `sentinel monitor ${masterName} 127.0.0.1 ${ports[0]} 1`,
        `sentinel down-after-milliseconds ${masterName} 1000`,
        `sentinel failover-timeout ${masterName} 3000`,
        ...password === undefined ? [] : [`sentinel auth-pass ${masterName} ${password}`],
        ...sentinelPassword === undefined ? [] : [`requirepass ${sentinelPassword}`],
        "",
      ].join("\n"),
    );
    sentinel = await start(
      { port },
      dir,
      [`${dir}/sentinel.conf`, "--sentinel"],
      cliArgsOf(sentinelPassword),
    );
    // Ten times as fast as a sentinel is by itself (Redis 7). Not so for pings: what it knows is thrown away after five.
    const periods = { "info-period": 500, "publish-period": 100, "ask-period": 100 };
    await sentinel.cli("SENTINEL", "DEBUG", ...Object.entries(periods).flat().map(String));
    return await watchedBy(sentinel, servers, masterName, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function watchedBy(
  sentinel: RedisServer,
  servers: readonly RedisServer[],
  masterName: string,
  stop: () => Promise<void>,
): Promise<RedisSentinel> {
  /** Undefined while the server is about to change it: then it closes connections. */
  const role = (server: RedisServer) =>
    server.cli("ROLE").then((answer) => answer.split("\n")[0], () => undefined);
  /** Until the sentinel would promote the replica, and that one has all that the master answered. */
  const untilFit = async () => {
    await until(async () => {
      const master = await sentinel.cli("SENTINEL", "MASTER", masterName);
      const replicas = await sentinel.cli("SENTINEL", "REPLICAS", masterName);
      return /\nflags\nmaster\n/.test(master) && /master-link-status\nok\n/.test(replicas);
    }, () => "the sentinel finds no replica fit");
    await until(async () => {
      const master = await self.master();
      const [, offset, , , replicaOffset = "-1"] = (await master.cli("ROLE").catch(() => "")).split("\n");
      return Number(replicaOffset) >= Number(offset);
    }, () => "the replica lags behind");
  };
  const self: RedisSentinel = {
    url: `redis+sentinel://127.0.0.1:${sentinel.port}/${masterName}`,
    port: sentinel.port,
    masterName,
    servers,
    async master() {
      const [, port] = (await sentinel.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName)).split("\n");
      const found = servers.find((server) => server.port === Number(port));
      if (found === undefined) throw new Error(`the sentinel names port ${port}`);
      return found;
    },
    async failOver() {
      await untilFit();
      const old = await self.master();
      await old.kill();
      await until(async () => {
        const now = await self.master();
        return now !== old && await role(now) === "master";
      }, () => "nobody took over");
    },
    async switchOver() {
      await untilFit();
      const old = await self.master();
      await sentinel.cli("SENTINEL", "FAILOVER", masterName);
      await until(
        async () => await self.master() !== old && await role(old) === "slave",
        () => "they did not change places",
      );
      await untilFit();
    },
    stop,
  };
  await untilFit();
  return self;
}

/** All of them, or none is left running. */
async function startAll(starts: readonly (() => Promise<RedisServer>)[]): Promise<readonly RedisServer[]> {
  const settled = await Promise.allSettled(starts.map((each) => each()));
  const servers = settled.flatMap((each) => each.status === "fulfilled" ? [each.value] : []);
  const failed = settled.find((each) => each.status === "rejected");
  if (failed === undefined) return servers;
  await Promise.all(servers.map((server) => server.stop()));
  throw failed.reason;
}
