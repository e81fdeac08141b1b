// Tests of transcription over the OpenAI wire: the upload streams through, and its text is read in every format.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import type { Transcription, TranscriptionRequest } from "../../../../src/engines/task.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { encodeUtf8 } from "../../../../src/encoding/utf8.ts";
import { Fault } from "../../../../src/faults/fault.ts";
import { anyText } from "../../../support/any_text.ts";
import { jsonAnswer, OPTIONS, refuses, textAnswer, transcriptionRequest } from "./wire_calls.ts";

interface Upload {
  readonly contentType: string;
  readonly body: ReadableStream<Uint8Array>;
}

function uploadOf(request: TranscriptionRequest): Upload {
  const { request: sent } = openaiWire.whole<"transcription">(request, OPTIONS);
  strictEqual(sent.method, "POST");
  strictEqual(sent.path, "/audio/transcriptions");
  ok(sent.body instanceof ReadableStream);
  return { contentType: sent.headers["Content-Type"] ?? "", body: sent.body };
}

function fileOf(bytes: ReadableStream<Uint8Array>): TranscriptionRequest["file"] {
  return { name: "audio.mp3", mediaType: "audio/mpeg", bytes };
}

function read(
  answer: Parameters<typeof textAnswer> | unknown,
  format: TranscriptionRequest["format"],
): Transcription {
  const call = openaiWire.whole<"transcription">(transcriptionRequest({ format }), OPTIONS);
  return call.read(
    Array.isArray(answer) ? textAnswer(String(answer[0]), String(answer[1])) : jsonAnswer(answer),
  );
}

Deno.test("an upload is the fields and then the file, byte for byte", async () => {
  const { contentType, body } = uploadOf(transcriptionRequest({ language: "de", temperature: 0 }));
  const [, boundary = ""] = /^multipart\/form-data; boundary=(portcullis-[0-9a-f]{48})$/.exec(contentType) ??
    [];
  notStrictEqual(boundary, "");
  const field = (name: string, value: string) =>
    `--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
  strictEqual(
    await new Response(body).text(),
    field("model", "upstream-model") + field("response_format", "json") + field("language", "de") +
      field("temperature", "0") +
      `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="audio.wav"\r\n` +
      `Content-Type: audio/wav\r\n\r\nRIFF\r\n--${boundary}--\r\n`,
  );
  notStrictEqual(
    uploadOf(transcriptionRequest()).contentType,
    contentType,
    "every upload has its own boundary",
  );
});

Deno.test("property: any prompt and any pieces of a file are read back by a form parser", async () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(anyText, pieces, async (prompt, pieces) => {
      const { contentType, body } = uploadOf(transcriptionRequest({
        prompt,
        format: "verbose_json",
        timestampGranularities: ["word", "segment"],
        file: fileOf(ReadableStream.from(pieces)),
      }));
      const form = await new Response(body, { headers: { "Content-Type": contentType } }).formData();
      deepStrictEqual([...form.keys()], [
        "model",
        "response_format",
        "prompt",
        "timestamp_granularities[]",
        "timestamp_granularities[]",
        "file",
      ]);
      strictEqual(form.get("prompt"), prompt);
      deepStrictEqual(form.getAll("timestamp_granularities[]"), ["word", "segment"]);
      const file = form.get("file");
      ok(file instanceof File);
      deepStrictEqual([file.name, file.type], ["audio.mp3", "audio/mpeg"]);
      deepStrictEqual([...await file.bytes()], pieces.flatMap((piece) => [...piece]));
    }),
    { numRuns: 50 },
  );
});

Deno.test("the file is read at the pace of whoever sends it, one piece at a time", async () => {
  let pulled = 0;
  const source = new ReadableStream<Uint8Array>({
    pull(controller) {
      pulled++;
      controller.enqueue(new Uint8Array(10).fill(pulled));
    },
  }, { highWaterMark: 0 });
  const reader = uploadOf(transcriptionRequest({ file: fileOf(source) })).body.getReader();
  const settle = () => new Promise((resolve) => setTimeout(resolve, 0));
  await reader.read(); // the fields
  await settle();
  strictEqual(pulled, 0, "nothing is read before it is sent");
  for (const count of [1, 2, 3]) {
    const { value } = await reader.read();
    strictEqual(value?.[0], count);
    await settle();
    strictEqual(pulled, count, "nothing is read ahead");
  }
  await reader.cancel();
  strictEqual(pulled, 3);
});

Deno.test("empty pieces of a file are left out", async () => {
  const pieces = [0, 1, 0, 0, 2, 0].map((length) => new Uint8Array(length));
  const { body } = uploadOf(transcriptionRequest({ file: fileOf(ReadableStream.from(pieces)) }));
  const lengths = (await Array.fromAsync(body)).map(({ length }) => length);
  deepStrictEqual(lengths.slice(1, -1), [1, 2]);
});

Deno.test("a cancelled upload cancels the source, begun or not", async () => {
  for (const reads of [0, 2]) {
    const cancelled: unknown[] = [];
    const source = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(1)),
      cancel: (reason) => void cancelled.push(reason),
    });
    const reader = uploadOf(transcriptionRequest({ file: fileOf(source) })).body.getReader();
    for (let count = 0; count < reads; count++) await reader.read();
    await reader.cancel("gone");
    deepStrictEqual(cancelled, ["gone"]);
  }
});

Deno.test("what the source errors with errors the upload", async () => {
  const fault = new Fault("body_too_large", "Cannot read the upload: too large");
  let pieces = 0;
  const source = new ReadableStream<Uint8Array>({
    pull: (controller) => pieces++ === 0 ? controller.enqueue(new Uint8Array(1)) : controller.error(fault),
  });
  const { body } = uploadOf(transcriptionRequest({ file: fileOf(source) }));
  await rejects(new Response(body).bytes(), (thrown) => thrown === fault);
});

Deno.test("a file's name and media type can add no header line", async () => {
  const file = fileOf(ReadableStream.from([encodeUtf8("x")]));
  throws(
    () => uploadOf(transcriptionRequest({ file: { ...file, name: 'a"\r\nX-Evil: 1' } })),
    (thrown) => thrown instanceof Fault && thrown.kind === "internal",
  );
  await file.bytes.cancel();
  const { body } = uploadOf(transcriptionRequest({
    file: { ...fileOf(ReadableStream.from([encodeUtf8("x")])), mediaType: "audio/wav\r\nX-Evil: 1" },
  }));
  const text = await new Response(body).text();
  match(text, /\r\nContent-Type: application\/octet-stream\r\n\r\nx\r\n/);
  ok(!text.includes("X-Evil"));
});

Deno.test("json is the text alone; verbose_json also tells of language, length, segments and words", () => {
  const body = {
    task: "transcribe",
    language: "german",
    duration: 1.5,
    text: "Hallo",
    segments: [{ id: 0, seek: 0, start: 0, end: 1.5, text: "Hallo", tokens: [1, 2] }],
    words: [{ word: "Hallo", start: 0, end: 1.5 }],
    x_engine: { id: "internal" },
    usage: { type: "duration", seconds: 2 },
  };
  const usage = { inputTokens: 0, outputTokens: 0, countedBy: "estimate" };
  deepStrictEqual(read(body, "json"), { content: { json: { text: "Hallo" } }, usage });
  const { x_engine: _, usage: __, ...told } = body;
  deepStrictEqual(read(body, "verbose_json"), { content: { json: told }, usage });
});

Deno.test("figures in tokens are taken where an engine gives them", () => {
  const usage = { type: "tokens", input_tokens: 14, output_tokens: 45, total_tokens: 59 };
  deepStrictEqual(read({ text: "Hallo", usage }, "json").usage, {
    inputTokens: 14,
    outputTokens: 45,
    countedBy: "engine",
  });
});

Deno.test("text, srt and vtt are text, also where an engine wraps them in JSON", () => {
  for (const format of ["text", "srt", "vtt"] as const) {
    const textOf = (answer: unknown) => read(answer, format).content;
    deepStrictEqual(textOf(["1\n{Hallo}\n", "text/plain"]), { text: "1\n{Hallo}\n" });
    deepStrictEqual(textOf(['"Hallo"', "application/json"]), { text: "Hallo" });
    deepStrictEqual(textOf(['{"text":"Hallo"}', "application/json"]), { text: "Hallo" });
    deepStrictEqual(textOf(["", "text/plain"]), { text: "" });
  }
});

Deno.test("a malformed answer is refused", () => {
  const deep = JSON.parse(`${"[".repeat(5000)}${"]".repeat(5000)}`);
  for (
    const body of [null, [], "SECRET", {}, { text: null }, { text: 5 }, { text: ["a"] }, { error: "SECRET" }]
  ) {
    refuses(() => read([JSON.stringify(body), "application/json"], "json"));
    if (body !== "SECRET") refuses(() => read([JSON.stringify(body), "application/json"], "text"));
  }
  refuses(() => read({ text: "a", segments: deep }, "verbose_json"));
  refuses(() => read(["SECRET", "text/plain"], "json"));
  refuses(() => read(["SECRET", "application/json"], "srt"));
  refuses(() => read(["a".repeat(8_000_001), "text/plain"], "text"));
  const call = openaiWire.whole<"transcription">(transcriptionRequest({ format: "text" }), OPTIONS);
  refuses(() => call.read({ mediaType: "text/plain", headers: new Headers(), bytes: Uint8Array.of(0xff) }));
});
