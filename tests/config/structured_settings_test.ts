// Tests of the structured settings: upstreams, the models they serve, their secrets, caps by role.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type ConfigMistake, parseConfig, upstreamHost } from "../../src/config/config.ts";
import { permissionFlags } from "../../src/cli/permission_flags.ts";

const OLLAMA = { name: "ollama", kind: "openai", url: "http://127.0.0.1:11434/v1" };
const CHAT = { id: "llama3.2:3b", capabilities: ["chat"], servedBy: [{ upstream: "ollama" }] };

function parse(file: unknown, variables: Record<string, string> = {}) {
  return parseConfig({ variables, file, cores: 2, storeExists: () => true });
}

function mistakesOf(file: unknown, variables: Record<string, string> = {}): readonly ConfigMistake[] {
  const outcome = parse(file, variables);
  return outcome.ok ? [] : outcome.mistakes;
}

function refused(file: unknown, words: RegExp): void {
  const mistakes = mistakesOf(file);
  strictEqual(mistakes.length, 1, JSON.stringify(mistakes));
  match(mistakes[0]?.what ?? "", words);
}

Deno.test("five lines name an upstream and its model; everything else has a default", () => {
  const outcome = parse({ upstreams: [OLLAMA], upstreamModels: [CHAT] });
  ok(outcome.ok, JSON.stringify(outcome));
  const [upstream] = outcome.config.upstreams;
  const [model] = outcome.config.upstreamModels;
  deepStrictEqual([upstream?.connectTimeoutMs, upstream?.requestsAtOnceMax, upstream?.usageInStreams], [
    3000,
    64,
    true,
  ]);
  deepStrictEqual([model?.routing, model?.use, model?.servedBy], [
    "least-busy",
    ["admin", "operator", "user"],
    [{ upstream: "ollama", weight: 1 }],
  ]);
});

Deno.test("upstreams can come from variables as JSON text", () => {
  const outcome = parse(undefined, {
    PORTCULLIS_UPSTREAMS: JSON.stringify([OLLAMA]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([CHAT]),
    PORTCULLIS_UPSTREAM_OLLAMA_KEY: "sk-0123456789",
  });
  ok(outcome.ok, JSON.stringify(outcome));
  deepStrictEqual({ ...outcome.config.upstreamKeys }, { ollama: "sk-0123456789" });
});

Deno.test("a base address cannot hold a user, a query or a fragment, and loses the slash at its end", () => {
  for (
    const url of [
      "http://user@127.0.0.1/v1",
      "http://user:pass@127.0.0.1/v1",
      "http://127.0.0.1/v1?x=1",
      "http://127.0.0.1/v1?",
      "http://127.0.0.1/v1#x",
      "http://127.0.0.1/v1#",
      "ftp://127.0.0.1/",
      "file:///etc/passwd",
      "127.0.0.1:11434",
      "",
    ]
  ) {
    refused({ upstreams: [{ ...OLLAMA, url }] }, /^\[0\]\.url: /);
  }
  const outcome = parse({ upstreams: [{ ...OLLAMA, url: "http://127.0.0.1:11434/v1///" }] });
  strictEqual(outcome.ok && outcome.config.upstreams[0]?.url, "http://127.0.0.1:11434/v1");
});

Deno.test("plain HTTP to another machine is refused unless the settings say that the network is trusted", () => {
  refused({ upstreams: [{ ...OLLAMA, url: "http://gpu.example.com/v1" }] }, /plain HTTP to another machine/);
  refused({ upstreams: [{ ...OLLAMA, url: "http://127.0.0.1.example.com/v1" }] }, /plain HTTP/);
  for (
    const url of [
      "http://localhost:1/v1",
      "http://[::1]:1/v1",
      "http://127.9.9.9/v1",
      "https://gpu.example.com/v1",
    ]
  ) {
    deepStrictEqual(mistakesOf({ upstreams: [{ ...OLLAMA, url }] }), [], url);
  }
  deepStrictEqual(
    mistakesOf({ upstreams: [{ ...OLLAMA, url: "http://gpu.example.com/v1", plainHttp: true }] }),
    [],
  );
});

Deno.test("a model's name can be no path: no dots or slashes in a row, no encoded forms, no marks of an address", () => {
  for (
    const id of [
      "../x",
      "a/../b",
      "a..b",
      "a//b",
      "/a",
      "a/",
      "a?b",
      "a#b",
      "a@b",
      "a%2fb",
      "a b",
      "a\\b",
      "a\nb",
      "",
      "ä",
    ]
  ) {
    refused({ upstreams: [OLLAMA], upstreamModels: [{ ...CHAT, id }] }, /^\[0\]\.id: is no model name/);
    refused(
      { upstreams: [OLLAMA], upstreamModels: [{ ...CHAT, servedBy: [{ upstream: "ollama", model: id }] }] },
      /model: is no model name/,
    );
  }
  for (const id of ["llama3.2:3b", "meta-llama/Llama-3.1-8B-Instruct", "a", "gpt-4o-mini_2024"]) {
    deepStrictEqual(mistakesOf({ upstreams: [OLLAMA], upstreamModels: [{ ...CHAT, id }] }), [], id);
  }
});

Deno.test("names are unique: upstreams, models and their aliases", () => {
  refused({ upstreams: [OLLAMA, OLLAMA] }, /"ollama" stands twice/);
  refused({ upstreams: [OLLAMA], upstreamModels: [CHAT, CHAT] }, /"llama3.2:3b" is taken/);
  refused(
    { upstreams: [OLLAMA], upstreamModels: [CHAT, { ...CHAT, id: "other", aliases: ["llama3.2:3b"] }] },
    /"llama3.2:3b" is taken/,
  );
});

Deno.test("what one setting says of another is checked: unknown upstreams, protocols without the capability, fallbacks", () => {
  const around = (model: object) => ({
    upstreams: [OLLAMA, { ...OLLAMA, name: "triton", kind: "openinference" }],
    upstreamModels: [{ ...CHAT, ...model }],
  });
  refused(around({ servedBy: [{ upstream: "nobody" }] }), /names the upstream "nobody"/);
  refused(
    around({ servedBy: [{ upstream: "triton" }] }),
    /does "chat", for which "triton" \(openinference\) has no protocol/,
  );
  refused(around({ fallbacks: ["llama3.2:3b"] }), /is its own fallback/);
});

Deno.test("an unknown field anywhere is a mistake with its place", () => {
  refused({ upstreams: [{ ...OLLAMA, apiKey: "x" }] }, /^\[0\]: .*"apiKey"/);
  refused({
    upstreams: [OLLAMA],
    upstreamModels: [{ ...CHAT, servedBy: [{ upstream: "ollama", url: "http://x" }] }],
  }, /servedBy\[0\]: /);
  refused({ roleCaps: { nobody: {} } }, /"nobody"/);
});

Deno.test("a secret of an upstream is read from its variable only, is checked, and is never repeated", () => {
  const named = { upstreams: [{ ...OLLAMA, name: "big-gpu" }] };
  const good = parse(named, { PORTCULLIS_UPSTREAM_BIG_GPU_KEY: "sk-secret" });
  deepStrictEqual({ ...good.ok && good.config.upstreamKeys }, { "big-gpu": "sk-secret" });
  for (const wrong of ["", "two words", "line\nend", "ä", "x".repeat(4097)]) {
    const mistakes = mistakesOf(named, { PORTCULLIS_UPSTREAM_BIG_GPU_KEY: wrong });
    deepStrictEqual(mistakes.map(({ where }) => where), ["PORTCULLIS_UPSTREAM_BIG_GPU_KEY"]);
    ok(wrong === "" || !JSON.stringify(mistakes).includes(wrong.slice(0, 8)));
  }
  // A name that every object knows has no secret all the same.
  const inherited = parse({ upstreams: [{ ...OLLAMA, name: "constructor" }] });
  ok(inherited.ok);
  strictEqual(Object.hasOwn(inherited.config.upstreamKeys, "constructor"), false);
  // Of an upstream that there is not, the variable is a mistake and not silently dead.
  deepStrictEqual(mistakesOf({}, { PORTCULLIS_UPSTREAM_OTHER_KEY: "x" }).map(({ where }) => where), [
    "PORTCULLIS_UPSTREAM_OTHER_KEY",
  ]);
});

Deno.test("the permission flags name each upstream's host and port, and the certificates to be read", () => {
  const outcome = parse({
    upstreams: [
      OLLAMA,
      { ...OLLAMA, name: "b", url: "https://gpu.example.com/v1", caFile: "ca.pem" },
      { ...OLLAMA, name: "c", url: "http://[::1]/v1" },
    ],
  });
  ok(outcome.ok);
  const flags = permissionFlags(outcome.config, []);
  ok(
    flags.includes("--allow-net=127.0.0.1:8000,127.0.0.1:11434,gpu.example.com:443,[::1]:80"),
    flags.join(" "),
  );
  ok(flags.some((flag) => flag.startsWith("--allow-read=") && flag.endsWith(",ca.pem")));
  strictEqual(upstreamHost("https://gpu.example.com:8443/x"), "gpu.example.com:8443");
});
