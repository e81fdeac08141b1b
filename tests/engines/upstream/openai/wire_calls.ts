// Wire calls: the smallest neutral requests, and answers as an upstream would give them, for the tests of the wire.
import { ok, strictEqual, throws } from "node:assert/strict";
import type { ChatRequest, CompletionRequest } from "../../../../src/engines/chat.ts";
import type { TranscriptionRequest } from "../../../../src/engines/task.ts";
import type { WireAnswer, WireOptions, WireRequest } from "../../../../src/engines/upstream/wire.ts";
import { encodeUtf8 } from "../../../../src/encoding/utf8.ts";
import { Fault, type FaultKind } from "../../../../src/faults/fault.ts";

export const OPTIONS: WireOptions = { model: "upstream-model", usageInStreams: true };

const SAMPLING = { stop: [], choices: 1, extra: {} } as const;

export function chatRequest(besides: Partial<ChatRequest> = {}): ChatRequest {
  return {
    task: "chat",
    messages: [{ role: "user", parts: [{ type: "text", text: "Hello" }] }],
    tools: [],
    ...SAMPLING,
    ...besides,
  };
}

export function completionRequest(besides: Partial<CompletionRequest> = {}): CompletionRequest {
  return { task: "completion", prompts: ["Once"], ...SAMPLING, ...besides };
}

export function transcriptionRequest(besides: Partial<TranscriptionRequest> = {}): TranscriptionRequest {
  return {
    task: "transcription",
    file: { name: "audio.wav", mediaType: "audio/wav", bytes: ReadableStream.from([encodeUtf8("RIFF")]) },
    format: "json",
    timestampGranularities: [],
    ...besides,
  };
}

/** A good answer with a JSON body. */
export function jsonAnswer(body: unknown): WireAnswer {
  return textAnswer(JSON.stringify(body), "application/json");
}

/** A good answer with any body. */
export function textAnswer(text: string, mediaType: string): WireAnswer {
  return { mediaType, headers: new Headers(), bytes: encodeUtf8(text) };
}

/** A request's JSON body. */
export function bodyOf(request: WireRequest): unknown {
  strictEqual(request.method, "POST");
  strictEqual(request.headers["Content-Type"], "application/json");
  ok(typeof request.body === "string");
  return JSON.parse(request.body);
}

/** Holds where the act throws a Fault of this kind, whose private reason quotes nothing of the answer. */
export function refuses(act: () => unknown, kind: FaultKind = "upstream_answer_invalid", about = ""): void {
  throws(act, (thrown) => {
    ok(thrown instanceof Fault, `${about}: threw ${thrown}`);
    strictEqual(thrown.kind, kind, about);
    ok(!thrown.message.includes("SECRET"), `${about}: quotes the answer`);
    strictEqual(thrown.cause, undefined);
    return true;
  }, about);
}
