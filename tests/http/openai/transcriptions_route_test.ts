// POST /v1/audio/transcriptions: forms of real clients, files that go through, files that wait, and all that is refused.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import OpenAI, { toFile } from "openai";
import type { Transcription, TranscriptionRequest } from "../../../src/engines/task.ts";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import type { Exchange } from "../../../src/http/exchange.ts";
import { transcriptionsRoute } from "../../../src/http/openai/transcriptions_route.ts";
import { BodyBudget } from "../../../src/http/middleware/body_budget.ts";
import { readTranscriptionUpload } from "../../../src/http/openai/transcription_upload.ts";
import type { Answer, AnyRoute } from "../../../src/http/route.ts";
import { fakeDoor } from "./fake_door.ts";

const BOUNDS = {
  bodyBytesMax: 100_000,
  bodyTimeoutMs: 60_000,
  uploadTimeoutMs: 60_000,
  smallFileBytesMax: 0,
};
const SAID: Transcription = {
  content: { json: { text: "hello" } },
  usage: { inputTokens: 0, outputTokens: 2, countedBy: "engine" },
};

const latin1 = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const wav = (bytes: number): Uint8Array<ArrayBuffer> => {
  const file = new Uint8Array(bytes).fill(0x0d);
  file.set(latin1("RIFF????WAVE"));
  return file;
};

async function bytesOf(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer());
}

type Engine = (request: TranscriptionRequest) => Promise<Transcription>;

/** What an engine got: the request without its stream, and the bytes of it. */
interface Heard {
  readonly asked: unknown;
  readonly bytes: Uint8Array;
}

/** A route whose engine reads every file to its end, unless another engine is given. */
function transcribing(
  engine?: Engine,
  answer = SAID,
  smallFileBytesMax = 0,
): { readonly route: AnyRoute; readonly heard: Heard[] } {
  const heard: Heard[] = [];
  const fake = fakeDoor({ model: { capabilities: ["transcription"] } });
  const listen: Engine = async ({ file: { bytes, ...named }, ...asked }) => {
    heard.push({ asked: { ...asked, file: named }, bytes: await bytesOf(bytes) });
    return answer;
  };
  const route = transcriptionsRoute({
    door: {
      ...fake.parts.door,
      async whole(exchange, modelId, request) {
        const model = fake.parts.door.find(exchange, modelId, "transcription");
        const said = await (engine ?? listen)(request as TranscriptionRequest);
        return { model, answer: said as never, servedBy: null };
      },
    },
    uploadBytesMax: BOUNDS.bodyBytesMax,
    smallFileBytesMax,
  });
  return { route, heard };
}

/** What the gate does with a request on its way to the route. */
async function post(route: AnyRoute, request: Request, bounds = BOUNDS, caller = "eve"): Promise<Answer> {
  ok(route.bodyForm !== undefined);
  route.bodyForm.requireAnnounced(request, bounds);
  const body = await route.bodyForm.read(request, bounds, caller);
  return await route.handle({ id: "req_1", request } as Exchange, body);
}

const requestOf = (body: BodyInit, contentType?: string): Request =>
  new Request("http://x/v1/audio/transcriptions", {
    method: "POST",
    body,
    ...(contentType === undefined ? {} : { headers: { "content-type": contentType } }),
  });

/** A form in this order; `file` is a file of sound unless it is said otherwise. */
function formOf(fields: readonly (readonly [string, string | File])[]): Request {
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  return requestOf(form);
}

/** Memory for files that wait; all of it for one caller unless a share is given. */
const openBudget = (bytesMax: number, callerBytesMax = bytesMax): BodyBudget =>
  new BodyBudget({ bytesMax, callerBytesMax, shareUsedUp: "share", allUsedUp: "all" });

const FILE = new File([wav(5000)], "speech.WAV", { type: "audio/x-wav" });

const raw = (text: string): Request => requestOf(latin1(text), "multipart/form-data; boundary=b");
const part = (name: string, value: string): string =>
  `--b\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const filePart = (bytes: string, name = "a.wav", type = ""): string =>
  `--b\r\nContent-Disposition: form-data; name="file"; filename="${name}"\r\n${type}\r\n${bytes}\r\n`;
const SOUND = "RIFF????WAVEabc";

async function faultOf(run: Promise<unknown>): Promise<Fault> {
  try {
    await run;
  } catch (thrown) {
    ok(thrown instanceof Fault, String(thrown));
    return thrown;
  }
  throw new Error("nothing was refused");
}

const isKind = (kind: FaultKind) => (thrown: unknown): boolean =>
  thrown instanceof Fault && thrown.kind === kind;

/** `openai` in front of a route. */
function clientOf(route: AnyRoute): OpenAI {
  return new OpenAI({
    apiKey: "k",
    baseURL: "http://x/v1",
    maxRetries: 0,
    fetch: async (url, init) => {
      const answer = await post(route, new Request(url as string, init));
      return answer.bytes !== undefined
        ? new Response(answer.bytes, { headers: answer.headers ?? {} })
        : Response.json(answer.body);
    },
  });
}

const ASKED = { task: "transcription", file: { name: "audio.wav", mediaType: "audio/wav" }, format: "json" };

Deno.test("POST /v1/audio/transcriptions answers OpenAI's own client, which sends its fields in the order they are written", async () => {
  const { route, heard } = transcribing(undefined, {
    ...SAID,
    content: { json: { text: "hello", words: [{ word: "hello", start: 0, end: 1 }] } },
  });
  const file = await toFile(wav(3000), "song.mp3");
  const answer = await clientOf(route).audio.transcriptions.create({
    file,
    model: "nick",
    language: "pt-BR",
    prompt: "Größe",
    response_format: "verbose_json",
    temperature: 0.5,
    timestamp_granularities: ["word", "segment"],
    stream: false,
  });
  deepStrictEqual([answer.text, answer.words?.length], ["hello", 1]);
  await clientOf(route).audio.transcriptions.create({ model: "m1", file });
  const named = { file: { name: "audio.mp3", mediaType: "audio/mpeg" } };
  deepStrictEqual(heard.map(({ asked }) => asked), [{
    ...ASKED,
    ...named,
    language: "pt-BR",
    prompt: "Größe",
    temperature: 0.5,
    format: "verbose_json",
    timestampGranularities: ["word", "segment"],
  }, { ...ASKED, ...named, timestampGranularities: [] }]);
  for (const { bytes } of heard) deepStrictEqual(bytes, wav(3000));
});

Deno.test("POST /v1/audio/transcriptions answers text where text was asked for", async () => {
  const { route } = transcribing(undefined, { ...SAID, content: { text: "1\n00:00 grüße\n" } });
  strictEqual(
    await clientOf(route).audio.transcriptions.create({ file: FILE, model: "m1", response_format: "srt" }),
    "1\n00:00 grüße\n",
  );
  const answer = await post(route, formOf([["model", "m1"], ["response_format", "text"], ["file", FILE]]));
  deepStrictEqual(answer.headers, { "Content-Type": "text/plain; charset=utf-8" });
});

const HAS_CURL = await new Deno.Command("curl", { args: ["--version"], stdout: "null", stderr: "null" })
  .output()
  .then(({ success }) => success, () => false);

Deno.test({
  name: "POST /v1/audio/transcriptions answers curl, whatever the order of the form",
  ignore: !HAS_CURL,
  async fn() {
    const { route, heard } = transcribing();
    const folder = await Deno.makeTempDir();
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
      const bounds = { ...BOUNDS, bodyBytesMax: 4_000_000 };
      return Response.json((await post(route, request, bounds)).body);
    });
    try {
      const path = `${folder}/so "ng".wav`;
      await Deno.writeFile(path, wav(3_000_000));
      const file = ["-F", `file=@"${path.replaceAll('"', '\\"')}"`];
      const model = ["-F", "model=m1"];
      const language = ["-F", "language=de"];
      const small = `${folder}/small.wav`;
      await Deno.writeFile(small, wav(50_000));
      for (
        const form of [[...model, ...language, ...file], ["-F", `file=@${small}`, ...language, ...model]]
      ) {
        const url = `http://127.0.0.1:${server.addr.port}/`;
        const { stdout } = await new Deno.Command("curl", { args: ["-sS", "--max-time", "20", url, ...form] })
          .output();
        strictEqual(new TextDecoder().decode(stdout), '{"text":"hello"}');
      }
      const asked = { ...ASKED, language: "de", timestampGranularities: [] };
      deepStrictEqual(heard.map((one) => [one.asked, one.bytes.length]), [[asked, 3_000_000], [
        asked,
        50_000,
      ]]);
    } finally {
      await server.shutdown();
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** A request whose body is written piece by piece by the test. */
function dripped(): {
  readonly request: Request;
  readonly write: (text: string) => void;
  readonly close: () => void;
  readonly state: { pulls: number; cancelled: boolean };
} {
  const state = { pulls: 0, cancelled: false };
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start(given) {
      controller = given;
    },
    pull() {
      state.pulls++;
    },
    cancel() {
      state.cancelled = true;
    },
  });
  return {
    request: requestOf(body, "multipart/form-data; boundary=b"),
    write: (text) => controller?.enqueue(latin1(text)),
    close: () => controller?.close(),
    state,
  };
}

Deno.test("a file goes on to the engine while it comes, where its model was named before it", async () => {
  const body = dripped();
  let engineHas = "";
  let heardStart = (): void => undefined;
  const started = new Promise<void>((resolve) => heardStart = resolve);
  const { route } = transcribing(async ({ file }) => {
    for await (const piece of file.bytes) {
      engineHas += String.fromCharCode(...piece);
      heardStart();
    }
    return SAID;
  });
  body.write(part("model", "m1") + filePart(SOUND).slice(0, -2));
  const answer = post(route, body.request);
  await started;
  strictEqual(engineHas, SOUND);
  body.write("def\r\n--b--");
  body.close();
  strictEqual((await answer).status, 200);
  strictEqual(engineHas, `${SOUND}def`);
});

Deno.test("nothing is read ahead of the engine: at its pace the body is read", async () => {
  let pulls = 0;
  const head = latin1(part("model", "m1") + filePart(SOUND).slice(0, -2));
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      pulls++;
      controller.enqueue(pulls === 1 ? head : new Uint8Array(1000).fill(0x61));
    },
  }, { highWaterMark: 0 });
  const { route } = transcribing(async ({ file }) => {
    const reader = file.bytes.getReader();
    await reader.read();
    await new Promise((resolve) => setTimeout(resolve, 20));
    strictEqual(pulls, 1);
    await reader.read();
    await new Promise((resolve) => setTimeout(resolve, 20));
    strictEqual(pulls, 2);
    await reader.cancel();
    return SAID;
  });
  await post(route, requestOf(body, "multipart/form-data; boundary=b"));
});

Deno.test("what is wrong behind a file that went on is what is answered, whatever the engine made of the broken upload", async () => {
  const before = part("model", "m1") + filePart(SOUND);
  const behind: readonly (readonly [string, FaultKind, string | undefined])[] = [
    [part("languag", "de") + "--b--", "fields_invalid", "/languag"],
    [part("model", "m1") + "--b--", "fields_invalid", "/model"],
    [part("language", "de") + "--b--", "fields_invalid", "/language"],
    [part("language", "??") + "--b--", "fields_invalid", "/language"],
    [part("response_format", "text") + "--b--", "fields_invalid", "/response_format"],
    [part("stream", "true") + "--b--", "fields_invalid", "/stream"],
    [filePart(SOUND) + "--b--", "fields_invalid", "/file"],
    ["", "request_invalid", undefined],
    ["--b--\r\nmore", "request_invalid", undefined],
    [part("prompt", "x".repeat(200_000)), "request_invalid", undefined],
  ];
  const swallowed: Engine = async ({ file }) => {
    await bytesOf(file.bytes).catch(() => undefined);
    return SAID;
  };
  const ownFault: Engine = async ({ file }) => {
    await bytesOf(file.bytes).catch(() => undefined);
    throw new Fault("upstream_unreachable", "Cannot go on: the connection broke");
  };
  for (const engine of [undefined, swallowed, ownFault]) {
    for (const [rest, kind, path] of behind) {
      let seen: unknown;
      const watched: Engine = (request) => {
        const [mine, theirs] = request.file.bytes.tee();
        bytesOf(mine).catch((thrown) => seen = thrown);
        return (engine ?? swallowed)({ ...request, file: { ...request.file, bytes: theirs } });
      };
      const fault = await faultOf(
        post(transcribing(watched).route, raw(before + rest), { ...BOUNDS, bodyBytesMax: 1e6 }),
      );
      deepStrictEqual([fault.kind, fault.details.fields?.[0]?.path], [kind, path], rest.slice(0, 80));
      strictEqual(seen, fault);
    }
  }
});

Deno.test("fields behind a file that went on are let pass where they say what was told already", async () => {
  const { route, heard } = transcribing();
  const before = part("model", "m1") + filePart(SOUND);
  await post(route, raw(before + part("response_format", "json") + part("stream", "false") + "--b--"));
  strictEqual(heard.length, 1);
});

Deno.test("a small file waits for the fields behind it, although its model is known: many clients write them there", async () => {
  for (const [smallFileBytesMax, status] of [[100_000, 200], [0, 422]] as const) {
    const { route, heard } = transcribing(undefined, SAID, smallFileBytesMax);
    const body = part("model", "m1") + filePart(SOUND) + part("language", "de") + "--b--";
    const outcome = await post(route, requestOf(body, "multipart/form-data; boundary=b")).then(
      (answer) => answer.status,
      (thrown) => thrown instanceof Fault && thrown.kind === "fields_invalid" ? 422 : thrown,
    );
    strictEqual(outcome, status);
    if (status === 200) strictEqual((heard[0]?.asked as TranscriptionRequest).language, "de");
  }
});

Deno.test("a form is refused by the path of what is wrong with it", async () => {
  const { route, heard } = transcribing();
  const end = "--b--\r\n";
  const model = part("model", "m1");
  const refused: readonly (readonly [string, string])[] = [
    [model + end, "/file"],
    [end, "/file"],
    [filePart(SOUND) + end, "/model"],
    [part("model", "") + filePart(SOUND) + end, "/model"],
    [filePart(SOUND) + part("model", "x".repeat(257)) + end, "/model"],
    [part("__proto__", "x") + end, "/__proto__"],
    [part("constructor", "x") + end, "/constructor"],
    [part("a/b~", "x") + end, "/a~1b~0"],
    [part("chunking_strategy", "auto") + end, "/chunking_strategy"],
    [model + model + end, "/model"],
    [filePart(SOUND) + filePart(SOUND) + model + end, "/file"],
    [filePart(SOUND).replace('name="file"', 'name="model"') + end, "/model"],
    [part("file", SOUND) + end, "/file"],
    [filePart(SOUND, "") + end, "/file"],
    [filePart(SOUND, "wav") + end, "/file"],
    [filePart(SOUND, "a.wav.exe") + end, "/file"],
    [filePart(SOUND, "a.toString") + end, "/file"],
    [filePart(SOUND, "a.wav", "Content-Type: text/html\r\n") + end, "/file"],
    [filePart("#!/bin/sh\nexec x") + end, "/file"],
    [filePart("RIFF????AVI ") + end, "/file"],
    [filePart("\xff\xf1\x50\x80") + end, "/file"],
    [filePart("") + end, "/file"],
    ...([
      ["language", "EN"],
      ["language", "english"],
      ["language", "en-"],
      ["prompt", "x".repeat(4097)],
      ["response_format", "diarized_json"],
      ["temperature", "1.01"],
      ["temperature", "-0"],
      ["temperature", "0x1"],
      ["temperature", ""],
      ["temperature", "NaN"],
      ["timestamp_granularities[]", "word"],
      ["timestamp_granularities", "word"],
      ["stream", "true"],
    ] as const).flatMap(([name, value]) => [
      [model + part(name, value) + filePart(SOUND) + end, `/${name}`] as const,
      [filePart(SOUND) + part(name, value) + model + end, `/${name}`] as const,
    ]),
    ...[["word", "word"], ["word", "segment", "word"], ["words"]].map((values) =>
      [
        model + part("response_format", "verbose_json") +
        values.map((value) => part("timestamp_granularities[]", value)).join("") + filePart(SOUND) + end,
        "/timestamp_granularities[]",
      ] as const
    ),
  ];
  for (const [body, path] of refused) {
    const fault = await faultOf(post(route, raw(body)));
    deepStrictEqual([fault.kind, fault.details.fields?.[0]?.path.replace(/\/\d+$/, "")], [
      "fields_invalid",
      path,
    ], body);
  }
  strictEqual(heard.length, 0);
});

Deno.test("every container that OpenAI lists is taken, and a file is called by a name of ours", async () => {
  const { route, heard } = transcribing();
  const files: readonly (readonly [string, string, string])[] = [
    ["a.flac", "fLaC", "audio/flac"],
    ["a.mp3", "ID3\x04", "audio/mpeg"],
    ["../../etc/x.MP3", "\xff\xfb\x90\x00", "audio/mpeg"],
    ["a.mpga", "\xff\xf3", "audio/mpeg"],
    ["a.mpeg", "\x00\x00\x01\xba", "audio/mpeg"],
    ["a.mp4", "\x00\x00\x00\x20ftypisom", "audio/mp4"],
    ["a.m4a", "\x00\x00\x00\x20ftypM4A ", "audio/mp4"],
    ["a.ogg", "OggS", "audio/ogg"],
    ["a.wav", "RF64????WAVE", "audio/wav"],
    ["a.webm", "\x1a\x45\xdf\xa3", "audio/webm"],
  ];
  for (const [name, start] of files) {
    await post(
      route,
      raw(
        part("model", "m1") + filePart(start, name, "Content-Type: application/octet-stream\r\n") + "--b--",
      ),
    );
  }
  deepStrictEqual(
    heard.map(({ asked }) => (asked as TranscriptionRequest).file),
    files.map(([name, , mediaType]) => ({
      name: `audio.${name.split(".").at(-1)?.toLowerCase()}`,
      mediaType,
    })),
  );
});

Deno.test("an upload is given up, and its body with it, when the model is not there", async () => {
  for (
    const order of [
      part("model", "none") + filePart(SOUND).slice(0, -2),
      filePart(SOUND) + part("model", "none"),
    ]
  ) {
    const body = dripped();
    body.write(order);
    if (order.startsWith(part("model", "none"))) {
      await rejects(post(transcribing().route, body.request), isKind("model_not_found"));
      ok(body.state.cancelled);
    } else {
      body.write("--b--");
      body.close();
      await rejects(post(transcribing().route, body.request), isKind("model_not_found"));
    }
  }
});

/** Lets everything happen that is about to. */
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

Deno.test("a failure of the engine is answered as it is, and ends the upload", async () => {
  const fault = new Fault("upstream_failed", "Cannot go on");
  const body = dripped();
  body.write(part("model", "m1") + filePart(SOUND).slice(0, -2));
  const engine: Engine = async ({ file }) => {
    const reader = file.bytes.getReader();
    await reader.read();
    // The read under way when the engine gives up must not become the reason.
    reader.read().catch(() => undefined);
    await turn();
    await reader.cancel();
    await turn();
    throw fault;
  };
  strictEqual(await faultOf(post(transcribing(engine).route, body.request)), fault);
  ok(body.state.cancelled);
});

Deno.test("a file that the engine left unread can be read no more once the request is over", async () => {
  for (const form of [part("model", "m1") + filePart(SOUND), filePart(SOUND) + part("model", "m1")]) {
    let kept: ReadableStream<Uint8Array> | undefined;
    const engine: Engine = ({ file }) => {
      kept = file.bytes;
      return Promise.resolve(SAID);
    };
    await post(transcribing(engine).route, raw(form + "--b--"));
    ok(kept !== undefined);
    await rejects(bytesOf(kept), isKind("client_left"));
  }
});

Deno.test("a body that is too large, too slow or broken off ends with that, whether it went on or waited", async () => {
  for (const form of [part("model", "m1") + filePart(SOUND).slice(0, -2), filePart(SOUND).slice(0, -2)]) {
    const large = dripped();
    large.write(form);
    for (let at = 0; at < 11; at++) large.write("x".repeat(10_000));
    strictEqual((await faultOf(post(transcribing().route, large.request))).kind, "body_too_large");
    const slow = dripped();
    slow.write(form);
    const fault = await faultOf(post(transcribing().route, slow.request, { ...BOUNDS, bodyTimeoutMs: 20 }));
    strictEqual(fault.kind, "body_timeout");
    const broken = dripped();
    broken.write(form);
    broken.close();
    strictEqual((await faultOf(post(transcribing().route, broken.request))).kind, "request_invalid");
    ok(large.state.cancelled && slow.state.cancelled);
  }
});

Deno.test("a form that drips on and on is given up before its model is known", async () => {
  const body = dripped();
  body.write(filePart(SOUND).slice(0, -2));
  const dripping = setInterval(() => body.write("x".repeat(300)), 5);
  try {
    await rejects(
      readTranscriptionUpload(body.request, { ...BOUNDS, uploadTimeoutMs: 40 }, openBudget(1e6), "eve"),
      isKind("body_timeout"),
    );
  } finally {
    clearInterval(dripping);
  }
});

Deno.test("files that wait for the name of their model share a budget, and give it back however it ends", async () => {
  const held = openBudget(100);
  const form = (bytes: number, model: string): Request =>
    raw(filePart(SOUND + "x".repeat(bytes - SOUND.length)) + part("model", model) + "--b--");
  const first = await readTranscriptionUpload(form(60, "m1"), BOUNDS, held, "eve");
  strictEqual(held.bytes, 60);
  const fault = await faultOf(readTranscriptionUpload(form(41, "m1"), BOUNDS, held, "eve"));
  deepStrictEqual([fault.kind, fault.details.retryAfterSeconds], ["rate_limited", 1]);
  strictEqual(held.bytes, 60);
  const second = await readTranscriptionUpload(form(40, "m1"), BOUNDS, held, "eve");
  strictEqual(held.bytes, 100);
  first.close();
  first.close();
  strictEqual(held.bytes, 40);
  second.close();
  await rejects(readTranscriptionUpload(form(60, ""), BOUNDS, held, "eve"), isKind("fields_invalid"));
  await rejects(
    readTranscriptionUpload(raw(filePart(SOUND)), BOUNDS, held, "eve"),
    isKind("request_invalid"),
  );
  const gone = await readTranscriptionUpload(
    raw(part("model", "m1") + filePart(SOUND) + "--b--"),
    BOUNDS,
    held,
    "eve",
  );
  strictEqual(held.bytes, 0);
  gone.close();
  strictEqual(held.bytes, 0);
});

Deno.test("the route holds one of the largest files for a user and four for all, and takes more when one of them is done", async () => {
  let done = (): void => undefined;
  const waiting = new Promise<void>((resolve) => done = resolve);
  let arrived = 0;
  const { route } = transcribing(async () => {
    arrived++;
    await waiting;
    return SAID;
  });
  const file = new File([wav(BOUNDS.bodyBytesMax - 1000)], "a.wav");
  const send = (caller: string): Promise<Answer> =>
    post(route, formOf([["file", file], ["model", "m1"]]), BOUNDS, caller);
  const first = ["a", "b", "c"].map(send);
  while (arrived < 3) await new Promise((resolve) => setTimeout(resolve, 1));
  const ofOne = await faultOf(send("a"));
  deepStrictEqual([ofOne.kind, ofOne.details.retryAfterSeconds], ["rate_limited", 1]);
  match(ofOne.details.detail ?? "", /^Too many of your uploads .* Send the field model before the file/);
  first.push(send("d"));
  while (arrived < 4) await new Promise((resolve) => setTimeout(resolve, 1));
  const ofAll = await faultOf(send("e"));
  deepStrictEqual([ofAll.kind, ofAll.details.retryAfterSeconds], ["overloaded", 1]);
  done();
  await Promise.all(first);
  strictEqual((await send("a")).status, 200);
});

Deno.test("a file that is small waits for the name of its model however many large ones wait", async () => {
  const held = openBudget(60, 50);
  const bounds = { ...BOUNDS, smallFileBytesMax: 40 };
  const form = (bytes: number): Request =>
    raw(filePart(SOUND + "x".repeat(bytes - SOUND.length)) + part("model", "m1") + "--b--");
  const uploads = [await readTranscriptionUpload(form(90), bounds, held, "eve")];
  // Only what is beyond a small file's size is counted here.
  strictEqual(held.bytes, 50);
  strictEqual((await faultOf(readTranscriptionUpload(form(41), bounds, held, "eve"))).kind, "rate_limited");
  strictEqual((await faultOf(readTranscriptionUpload(form(51), bounds, held, "bob"))).kind, "overloaded");
  for (const caller of ["eve", "bob"]) {
    uploads.push(await readTranscriptionUpload(form(40), bounds, held, caller));
  }
  strictEqual(held.bytes, 50);
  uploads.forEach((upload) => upload.close());
  strictEqual(held.bytes, 0);
  const route = transcribing(undefined, SAID, 1000).route;
  strictEqual(route.bodyForm?.heldBytesMax, 1000);
});

Deno.test("an upstream never takes a file for whole whose form turns out wrong", async () => {
  const begun: Promise<number>[] = [];
  let heardBegin = (): void => undefined;
  const upstream = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const bytes = request.arrayBuffer().then(({ byteLength }) => byteLength, () => -1);
    begun.push(bytes);
    heardBegin();
    await bytes;
    return new Response("ok");
  });
  try {
    const { route } = transcribing(async ({ file }) => {
      const url = `http://127.0.0.1:${upstream.addr.port}/`;
      const body = file.bytes as ReadableStream<Uint8Array<ArrayBuffer>>;
      const response = await fetch(url, { method: "POST", body });
      await response.body?.cancel();
      return SAID;
    });
    for (const end of ["--b--", part("tongue", "de") + "--b--"]) {
      const begin = new Promise<void>((resolve) => heardBegin = resolve);
      const body = dripped();
      body.write(part("model", "m1") + filePart(SOUND + "x".repeat(80_000)));
      const answer = post(route, body.request).then(({ status }) => status, (thrown) => thrown);
      await begin;
      body.write(end);
      body.close();
      const outcome = await answer;
      if (end === "--b--") strictEqual(outcome, 200);
      else strictEqual((outcome as Fault).details.fields?.[0]?.path, "/tongue");
    }
    deepStrictEqual(await Promise.all(begun), [SOUND.length + 80_000, -1]);
  } finally {
    await upstream.shutdown();
  }
});

Deno.test("any form gives the same however it is split, and nothing but Faults; no memory stays taken", () => {
  const likeAForm = fc.array(
    fc.oneof(
      fc.constantFrom(
        part("model", "m1"),
        filePart(SOUND),
        filePart(SOUND, "a.mp3"),
        part("language", "de"),
        "--b--",
      ),
      fc.constantFrom(
        "--b--\r\n",
        part("x", "y"),
        part("response_format", "text"),
        filePart("x"),
        "\r\n",
        "--b",
      ),
      fc.uint8Array({ maxLength: 4 }).map((bytes) => String.fromCharCode(...bytes)),
    ),
    { maxLength: 6 },
  ).map((pieces) => pieces.join(""));
  const held = openBudget(1e6);
  const outcome = async (text: string, pieceBytes: number): Promise<unknown> => {
    const bytes = latin1(text);
    let at = 0;
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull(controller) {
        if (at >= bytes.length) return controller.close();
        controller.enqueue(bytes.slice(at, at += pieceBytes));
      },
    }, { highWaterMark: 0 });
    try {
      const request = requestOf(body, "multipart/form-data; boundary=b");
      const upload = await readTranscriptionUpload(request, BOUNDS, held, "eve");
      try {
        return [upload.fields, upload.file.name, String.fromCharCode(...await bytesOf(upload.file.bytes))];
      } finally {
        upload.close();
      }
    } catch (thrown) {
      ok(thrown instanceof Fault, String(thrown));
      return [thrown.kind, thrown.details];
    } finally {
      strictEqual(held.bytes, 0);
    }
  };
  return fc.assert(
    fc.asyncProperty(likeAForm, fc.integer({ min: 1, max: 40 }), async (text, pieceBytes) => {
      deepStrictEqual(await outcome(text, pieceBytes), await outcome(text, text.length + 1));
    }),
    { numRuns: 200 },
  );
});
