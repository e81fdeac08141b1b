// Canaries: a mark in every input, and none of it in data/, in logs or in answers.
import { deepStrictEqual, ok } from "node:assert/strict";
import { ADMIN_PASSWORD, startServerUnderTest } from "../support/server_under_test.ts";

Deno.test("what clients send and what is secret is found nowhere at rest, in no log line and in no answer", async () => {
  const dataDir = await Deno.makeTempDir();
  const answers: string[] = [];
  const canary = (where: string): string => `canary-${where}-${crypto.randomUUID().slice(0, 8)}`;
  const planted: string[] = [];
  const plant = (where: string): string => {
    const mark = canary(where);
    planted.push(mark);
    return mark;
  };
  try {
    const server = await startServerUnderTest({ dataDir });
    await server.whenReady();
    const token = await server.signIn();
    const send = async (path: string, init: RequestInit): Promise<void> => {
      const headers = new Headers(init.headers);
      for (
        const name of [
          "user-agent",
          "referer",
          "cookie",
          "x-api-key",
          "x-forwarded-for",
          "x-request-id",
          "traceparent",
          "accept-language",
        ]
      ) headers.set(name, plant(`header-${name}`));
      const response = await fetch(`${server.origin}${path}`, { ...init, headers });
      answers.push(JSON.stringify([...response.headers]), await response.text());
    };
    const json = { "content-type": "application/json" };
    const bearer = { ...json, authorization: `Bearer ${token}` };
    const post = (body: unknown, headers: Record<string, string> = bearer): RequestInit => ({
      method: "POST",
      headers,
      body: typeof body === "string" ? body : JSON.stringify(body),
    });

    await send(
      "/v1/embeddings",
      post({ model: "use-lite", input: [plant("prompt"), plant("prompt-2")], user: plant("user-field") }),
    );
    await send("/v1/embeddings", post({ model: plant("model"), input: plant("prompt-unknown-model") }));
    await send("/v1/embeddings", post({ model: "use-lite", input: "x", encoding_format: plant("enum") }));
    await send("/v1/embeddings", post(`{"model": "${plant("broken-json")}"`));
    await send("/v1/embeddings", post({ model: "use-lite", input: `${plant("long")} `.repeat(500) }));
    await send("/v1/embeddings", {
      method: "POST",
      headers: { ...bearer, "content-type": `text/${plant("media-type")}` },
      body: plant("text-body"),
    });
    await send(
      "/v2/models/use-lite/infer",
      post({ inputs: [{ name: "text", shape: [1], datatype: "BYTES", data: [plant("tensor")] }] }),
    );
    await send(
      "/v2/models/use-lite/infer",
      post({ inputs: [{ name: plant("tensor-name"), shape: [1], datatype: "BYTES", data: ["x"] }] }),
    );
    await send("/v1/auth/login", post({ username: plant("username"), password: plant("password") }, json));
    await send("/v1/auth/login", post({ username: "admin", password: plant("password-of-admin") }, json));
    await send("/v1/models", { headers: { authorization: `Bearer ${plant("bearer")}` } });
    await send("/v1/models", { headers: { authorization: `Basic ${btoa(plant("basic"))}` } });
    await send(`/v1/models/${plant("model-path")}`, { headers: bearer });
    await send(`/${plant("path")}`, {});
    await send(`/v1/models?access_token=${plant("query")}`, { headers: bearer });
    await send("/v1/auth/logout", { method: "POST", headers: { authorization: `Bearer ${token}` } });
    await server.stop();

    // The id that a caller chose for its own tensor request is echoed by the protocol; it is the only echo and not planted.
    const masterKey = Deno.readTextFileSync(`${dataDir}/master.key`).trim();
    const places = { answers: answers.join("\n"), log: server.output(), ...filesBelow(dataDir) };
    const found: string[] = [];
    for (const [place, content] of Object.entries(places)) {
      for (
        const mark of [
          ...planted,
          btoa(planted.find((each) => each.includes("basic")) ?? ""),
          ADMIN_PASSWORD,
        ]
      ) if (content.includes(mark)) found.push(`${mark} in ${place}`);
      if (content.includes(token) || content.includes(token.split(".")[2] ?? token)) {
        found.push(`the access token in ${place}`);
      }
      if (place !== `${dataDir}/master.key` && content.includes(masterKey)) {
        found.push(`the master key in ${place}`);
      }
      if (/BEGIN PRIVATE KEY/.test(content)) found.push(`a private key in ${place}`);
      if (place !== "log" && place !== "answers" && /\badmin\b/.test(content) && !place.includes("/audit/")) {
        found.push(`a user name in ${place}`);
      }
    }
    deepStrictEqual(found, []);
    ok(planted.length > 100 && Object.keys(places).length >= 6, "too little was planted or searched");
    ok(places.log.includes('"event":"request"'));
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

/** Every file below a folder, its bytes as Latin-1 so that any ASCII mark is found. */
function filesBelow(folder: string): Record<string, string> {
  return Object.fromEntries([...Deno.readDirSync(folder)].flatMap((entry): [string, string][] => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory
      ? Object.entries(filesBelow(path))
      : [[path, new TextDecoder("latin1").decode(Deno.readFileSync(path))]];
  }));
}
