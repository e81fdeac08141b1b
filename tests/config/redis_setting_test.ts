// The address of a Redis: its forms, what is percent-encoded, and everything that is none.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { parseRedisAddress, type RedisAddress, redisUrlType } from "../../src/config/redis_setting.ts";

const PLAIN: RedisAddress = {
  topology: "single",
  tls: false,
  hosts: [{ host: "localhost", port: 6379 }],
  username: null,
  password: null,
  database: 0,
  masterName: null,
};

const FORMS: readonly [text: string, parts: Partial<RedisAddress>][] = [
  ["redis://localhost", {}],
  ["redis://localhost/", {}],
  ["redis://localhost:6380/3", { hosts: [{ host: "localhost", port: 6380 }], database: 3 }],
  ["redis://LOCALHOST", {}],
  ["rediss://redis.example.com", { tls: true, hosts: [{ host: "redis.example.com", port: 6379 }] }],
  ["redis://10.1.2.3:1", { hosts: [{ host: "10.1.2.3", port: 1 }] }],
  ["redis://[::1]:65535", { hosts: [{ host: "::1", port: 65_535 }] }],
  ["redis://[FE80::1]", { hosts: [{ host: "fe80::1", port: 6379 }] }],
  ["redis://:secret@localhost", { password: "secret" }],
  ["redis://app:secret@localhost", { username: "app", password: "secret" }],
  ["redis://app:a:b@localhost", { username: "app", password: "a:b" }],
  ["redis://a%3Ab:%40%2F%25%20%C3%A9@localhost", { username: "a:b", password: "@/% é" }],
  ["redis+cluster://a,b:7001", {
    topology: "cluster",
    hosts: [{ host: "a", port: 6379 }, { host: "b", port: 7001 }],
  }],
  ["rediss+cluster://app:secret@a/0", {
    topology: "cluster",
    tls: true,
    hosts: [{ host: "a", port: 6379 }],
    username: "app",
    password: "secret",
  }],
  ["redis+sentinel://a,[::1]:5000/my-master", {
    topology: "sentinel",
    hosts: [{ host: "a", port: 26_379 }, { host: "::1", port: 5000 }],
    masterName: "my-master",
  }],
  ["rediss+sentinel://:secret@a/main.1_x:12", {
    topology: "sentinel",
    tls: true,
    hosts: [{ host: "a", port: 26_379 }],
    password: "secret",
    masterName: "main.1_x",
    database: 12,
  }],
];

const NO_ADDRESSES: readonly string[] = [
  "",
  "localhost",
  "localhost:6379",
  "http://localhost",
  "REDIS://localhost",
  "redis:/localhost",
  "redis://",
  "redis:///0",
  "redis:// localhost",
  "redis://localhost\n",
  "redis://localhost:0",
  "redis://localhost:65536",
  "redis://localhost:",
  "redis://localhost:123456",
  "redis://-host",
  "redis://host-",
  "redis://ho_st",
  "redis://[::1",
  "redis://::1",
  "redis://[localhost]",
  `redis://${"a".repeat(255)}`,
  // Several hosts, a database or a name where there is none.
  "redis://a,b",
  "redis+cluster://a,",
  "redis+cluster://a,,b",
  "redis+cluster://a/1",
  "redis+sentinel://a",
  "redis+sentinel://a/",
  "redis+sentinel://a/:1",
  "redis+sentinel://a/my master",
  "redis+sentinel://a/m:x",
  `redis+sentinel://a/${"m".repeat(65)}`,
  "redis+unix://a",
  "redis://localhost/x",
  "redis://localhost/-1",
  "redis://localhost/12345",
  "redis://localhost/0/1",
  "redis://localhost?db=1",
  "redis://localhost#0",
  "redis://localhost/0#0",
  // Credentials by half, or not well encoded.
  "redis://secret@localhost",
  "redis://app:@localhost",
  "redis://:@localhost",
  "redis://@localhost",
  "redis://:%@localhost",
  "redis://:%zz@localhost",
  "redis://:%ff@localhost",
  "redis://:a@b@localhost",
  "redis://:a/b@localhost",
];

for (const [text, parts] of FORMS) {
  Deno.test(`${text} is an address of a Redis`, () => {
    deepStrictEqual(parseRedisAddress(text), { ...PLAIN, ...parts });
  });
}

for (const text of NO_ADDRESSES) {
  Deno.test(`${JSON.stringify(text.slice(0, 50))} is no address of a Redis`, () => {
    strictEqual(parseRedisAddress(text), undefined);
    strictEqual(redisUrlType.read(text).ok, false);
  });
}

Deno.test("any user name and password survive their percent-encoding", () => {
  const text = fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 });
  fc.assert(fc.property(text, text, (username, password) => {
    const encoded = [username, password].map(encodeURIComponent).join(":");
    deepStrictEqual(parseRedisAddress(`redis://${encoded}@localhost`), { ...PLAIN, username, password });
  }));
});

Deno.test("no text at all makes the parser throw", () => {
  const part = fc.constantFrom(
    "redis",
    "rediss",
    "+cluster",
    "+sentinel",
    "://",
    ":",
    "@",
    "/",
    ",",
    "[",
    "]",
    "%",
    "a",
    "1",
  );
  fc.assert(fc.property(fc.oneof(fc.string(), fc.array(part).map((parts) => parts.join(""))), (text) => {
    parseRedisAddress(text);
  }));
});

Deno.test("the setting keeps the text, and takes nothing but texts", () => {
  deepStrictEqual(redisUrlType.read("redis://localhost"), { ok: true, value: "redis://localhost" });
  for (const raw of [undefined, null, 6379, true, ["redis://localhost"]]) {
    strictEqual(redisUrlType.read(raw).ok, false);
  }
});
