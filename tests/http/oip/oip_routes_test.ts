// Open Inference Protocol routes: what they answer and refuse.
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { DIMENSIONS, getAs, openAppUnderTest, postJson } from "../../support/app_under_test.ts";

const tensor = (data: unknown, shape: unknown = [Array.isArray(data) ? data.length : 1]) => ({
  name: "text",
  shape,
  datatype: "BYTES",
  data,
});

Deno.test("POST /v2/models/{id}/infer answers one FP32 tensor, row-major, and echoes the id", async () => {
  const app = await openAppUnderTest();
  try {
    const token = await app.tokenFor("user");
    const body = { id: "mine", inputs: [tensor(["ab", "cde"])], outputs: [{ name: "embedding" }] };
    const response = await app.call("/v2/models/open/infer", postJson(body, token));
    deepStrictEqual(await response.json(), {
      model_name: "open",
      id: "mine",
      outputs: [{
        name: "embedding",
        shape: [2, DIMENSIONS],
        datatype: "FP32",
        data: [2, 0, 0, 0, 3, 0, 0, 0],
      }],
    });
  } finally {
    await app.close();
  }
});

Deno.test("GET /v2/models/{id} names the tensors that infer takes and gives", async () => {
  const app = await openAppUnderTest();
  try {
    const response = await app.call("/v2/models/open", getAs(await app.tokenFor("auditor")));
    deepStrictEqual(await response.json(), {
      name: "open",
      platform: "onnx",
      inputs: [{ name: "text", datatype: "BYTES", shape: [-1] }],
      outputs: [{ name: "embedding", datatype: "FP32", shape: [-1, DIMENSIONS] }],
    });
  } finally {
    await app.close();
  }
});

Deno.test("readiness of server and model follows the engines, and a server that drains is not ready", async () => {
  const app = await openAppUnderTest();
  try {
    const token = await app.tokenFor("user");
    const statuses = async (): Promise<number[]> => {
      const found = [];
      for (
        const [path, init] of [["/readyz", {}], ["/v2/health/ready", {}], [
          "/v2/models/open/ready",
          getAs(token),
        ], ["/healthz", {}]] as const
      ) {
        const response = await app.call(path, init);
        await response.body?.cancel();
        found.push(response.status);
      }
      return found;
    };
    deepStrictEqual(await statuses(), [200, 200, 200, 200]);
    const engine = app.engines.get("open");
    if (engine !== undefined) engine.stateNow = "warming";
    deepStrictEqual(await statuses(), [503, 503, 503, 200]);
    if (engine !== undefined) engine.stateNow = "ready";
    app.portcullis.drain();
    deepStrictEqual(await statuses(), [503, 503, 200, 200]);
  } finally {
    await app.close();
  }
});

for (
  const [what, body, words] of [
    [
      "a shape that is not the data's",
      { inputs: [tensor(["a"], [2])] },
      /\/inputs\/0\/data: has 1 elements where the shape says 2/,
    ],
    ["another datatype", { inputs: [{ ...tensor(["a"]), datatype: "FP32" }] }, /\/inputs\/0\/datatype/],
    ["another tensor", { inputs: [{ ...tensor(["a"]), name: "indices" }] }, /\/inputs\/0\/name/],
    ["two tensors", { inputs: [tensor(["a"]), tensor(["a"])] }, /inputs/],
    ["no tensor", { inputs: [] }, /inputs/],
    ["numbers as data", { inputs: [tensor([1])] }, /\/inputs\/0\/data\/0/],
    ["a shape of two dimensions", { inputs: [tensor(["a"], [1, 1])] }, /\/inputs\/0\/shape/],
    [
      "an output that there is not",
      { inputs: [tensor(["a"])], outputs: [{ name: "logits" }] },
      /\/outputs\/0\/name/,
    ],
    [
      "parameters",
      { inputs: [tensor(["a"])], parameters: { sequence_id: 1 } },
      /\/parameters\/sequence_id: is not a known field/,
    ],
  ] as const
) {
  Deno.test(`POST /v2/models/{id}/infer refuses ${what}, naming the place`, async () => {
    const app = await openAppUnderTest();
    try {
      const response = await app.call("/v2/models/open/infer", postJson(body, await app.tokenFor("user")));
      strictEqual(response.status, 422);
      match((await response.json()).error, words);
      deepStrictEqual(app.engines.get("open")?.asked, []);
    } finally {
      await app.close();
    }
  });
}
