// Tensor post: its headers are read from the plainest request that a listener gives, which is no Request of the platform.
import { strictEqual, throws } from "node:assert/strict";
import { Fault } from "../../../src/faults/fault.ts";
import { readTensorPost, requireTensorsAnnounced } from "../../../src/http/oip/tensor_post.ts";

const BOUNDS = { bodyBytesMax: 1000, bodyTimeoutMs: 60_000 };
const JSON_TEXT = '{"inputs":[]}';

/** What a listener gives of a request: no more than this. */
function plainRequest(fields: Readonly<Record<string, string>>, body: Uint8Array<ArrayBuffer>): Request {
  return {
    method: "POST",
    url: "http://127.0.0.1/v2/models/m/infer",
    headers: {
      get: (name: string) => fields[name.toLowerCase()] ?? null,
      has: (name: string) => name in fields,
    },
    signal: new AbortController().signal,
    body: new Blob([body]).stream(),
    arrayBuffer: () => Promise.resolve(body.buffer),
  } as unknown as Request;
}

const bytes = new TextEncoder().encode(`${JSON_TEXT}raw`);
const announced = {
  "inference-header-content-length": String(JSON_TEXT.length),
  "content-type": "application/octet-stream",
};

Deno.test("tensors are read from a request that has get and has of its headers and nothing else", async () => {
  for (const fields of [announced, { ...announced, "content-length": String(bytes.length) }]) {
    const request = plainRequest(fields, bytes);
    requireTensorsAnnounced(request, BOUNDS);
    const { json, raw } = await readTensorPost(request, BOUNDS);
    strictEqual(JSON.stringify(json), JSON_TEXT);
    strictEqual(new TextDecoder().decode(raw), "raw");
  }
});

Deno.test("coding, framing and length of tensors are refused by the rules of every body", () => {
  for (
    const [fields, kind] of [
      [{ "content-encoding": "gzip" }, "media_type_unsupported"],
      [{ "transfer-encoding": "gzip, chunked" }, "request_invalid"],
      [{ "content-length": "1001" }, "body_too_large"],
    ] as const
  ) {
    throws(
      () => requireTensorsAnnounced(plainRequest({ ...announced, ...fields }, bytes), BOUNDS),
      (thrown) => thrown instanceof Fault && thrown.kind === kind,
    );
  }
});
