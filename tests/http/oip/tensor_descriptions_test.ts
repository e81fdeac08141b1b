// Tensor descriptions: when an upstream is asked, and who hears the answer; and the routes that tell of it.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import type { TensorMetadata } from "../../../src/engines/tensor.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { openTensorDescriptions } from "../../../src/http/oip/tensor_descriptions.ts";
import { manualClock } from "../../support/manual_clock.ts";
import { MODELS, openOipUnderTest } from "./oip_under_test.ts";

const METADATA: TensorMetadata = {
  platform: "theirs",
  inputs: [{ name: "x", datatype: "FP32", shape: [-1, 3] }],
  outputs: [{ name: "y", datatype: "BYTES", shape: [] }],
};
const path = (id: string) => `/v2/models/${id}`;

/** Descriptions of `tensors` and `both`, whose answers come when the test says so. */
function openAsked(clock = manualClock()) {
  const waiting: PromiseWithResolvers<TensorMetadata>[] = [];
  const deadlines: number[] = [];
  const engine = {
    state: () => "ready",
    run(_request: unknown, { deadlineMs }: { readonly deadlineMs: number }) {
      const answer = Promise.withResolvers<TensorMetadata>();
      waiting.push(answer);
      deadlines.push(deadlineMs);
      return answer.promise;
    },
  };
  const describe = openTensorDescriptions({ engines: { get: () => engine as never }, clock });
  const model = (id: string) => {
    const found = MODELS.find((each) => each.id === id);
    if (found === undefined) throw new Error(id);
    return found;
  };
  return { describe: (id = "tensors") => describe(model(id)), waiting, deadlines, clock };
}

Deno.test("many who ask at once are one question, and each model is a question of its own", async () => {
  const { describe, waiting } = openAsked();
  const answers = [describe(), describe(), describe("both")];
  strictEqual(waiting.length, 2);
  for (const each of waiting) each.resolve(METADATA);
  deepStrictEqual(await Promise.all(answers), [METADATA, METADATA, METADATA]);
});

for (
  const [what, settle, freshMs] of [
    ["an answer", (each: PromiseWithResolvers<TensorMetadata>) => each.resolve(METADATA), 10_000],
    [
      "a failure",
      (each: PromiseWithResolvers<TensorMetadata>) => each.reject(new Fault("upstream_failed", "away")),
      1000,
    ],
  ] as const
) {
  Deno.test(`${what} is good for ${freshMs} ms after it came, and no longer`, async () => {
    const { describe, waiting, clock } = openAsked();
    const settled = async (): Promise<string> => await describe().then(() => "answered", () => "failed");
    const first = settled();
    // It counts from the answer on, however long that took.
    clock.advance(60_000);
    waiting.forEach(settle);
    await first;
    clock.advance(freshMs - 1);
    strictEqual(await settled(), await first);
    strictEqual(waiting.length, 1);
    clock.advance(1);
    const second = settled();
    strictEqual(waiting.length, 2);
    waiting.forEach(settle);
    await second;
  });
}

Deno.test("a question has 5 seconds", async () => {
  const { describe, waiting, deadlines, clock } = openAsked();
  clock.advance(7);
  const answer = describe();
  for (const each of waiting) each.resolve(METADATA);
  await answer;
  deepStrictEqual(deadlines, [5007]);
});

Deno.test("a model whose engine is not ready is not asked", async () => {
  const model = MODELS[0];
  if (model === undefined) throw new Error("no model");
  const clock = manualClock();
  for (const engine of [undefined, { state: () => "down" }]) {
    const describe = openTensorDescriptions({ engines: { get: () => engine as never }, clock });
    await rejects(describe(model), (thrown: Fault) => thrown.kind === "unavailable");
  }
});

Deno.test("GET /v2/models/{id} tells what the upstream says of a model's tensors, to readers too, and runs nothing", async () => {
  const test = openOipUnderTest(() => METADATA);
  for (const role of ["user", "auditor"]) {
    const response = await test.call(path("nick"), {}, role);
    deepStrictEqual(await response.json(), {
      name: "tensors",
      platform: "upstream",
      inputs: [{ name: "x", datatype: "FP32", shape: [-1, 3] }],
      outputs: [{ name: "y", datatype: "BYTES", shape: [] }],
    });
  }
  deepStrictEqual(test.asked, [{ task: "tensor_metadata" }]);
  deepStrictEqual(
    test.events.map((event) => event.type === "request.allowed" ? [event.action, event.object] : event.type),
    [["model:read", "tensors"], ["model:read", "tensors"]],
  );
});

for (const [id, platform] of [["embeds", "upstream"], ["embeds-here", "onnx"]] as const) {
  Deno.test(`GET /v2/models/{id} tells of ${id} without asking anyone, platform ${platform}`, async () => {
    const test = openOipUnderTest();
    deepStrictEqual(await (await test.call(path(id))).json(), {
      name: id,
      platform,
      inputs: [{ name: "text", datatype: "BYTES", shape: [-1] }],
      outputs: [{ name: "embedding", datatype: "FP32", shape: [-1, 2] }],
    });
    deepStrictEqual(test.asked, []);
  });
}

for (
  const [what, id, role, status] of [
    ["a model that there is not", "none", "user", 404],
    ["a model that is hidden", "hidden", "user", 404],
    ["a caller without a role", "tensors", "nobody", 403],
    ["a model that does neither tensors nor embeddings", "chats", "user", 400],
    ["an upstream that fails", "tensors", "user", 502],
  ] as const
) {
  Deno.test(`GET /v2/models/{id} answers ${status} for ${what}, in the protocol's form`, async () => {
    const test = openOipUnderTest(() => {
      throw new Fault("upstream_failed", "Cannot ask: it answered 500");
    });
    const response = await test.call(path(id), {}, role);
    strictEqual(response.status, status);
    deepStrictEqual(Object.keys(await response.json()), ["error"]);
  });
}

Deno.test("GET /v2 names the binary extension as Triton does", async () => {
  const response = await openOipUnderTest().call("/v2");
  deepStrictEqual(await response.json(), {
    name: "portcullis",
    version: "1",
    extensions: ["binary_tensor_data"],
  });
});
