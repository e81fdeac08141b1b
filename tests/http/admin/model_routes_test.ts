// Tests of the model routes, over the whole app: what is told of models, and that a disabled one is not there until it is enabled.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  type AppUnderTest,
  getAs,
  openAppUnderTest,
  postJson,
  stubEmbeddings,
} from "../../support/app_under_test.ts";

const PATH = "/admin/v1/models";

async function withApp(run: (app: AppUnderTest, token: string) => Promise<void>): Promise<void> {
  const app = await openAppUnderTest();
  try {
    await run(app, await app.tokenFor("admin"));
  } finally {
    await app.close();
  }
}

const post = (app: AppUnderTest, path: string, token: string) =>
  app.call(path, { method: "POST", headers: { authorization: `Bearer ${token}` } });
const embed = (app: AppUnderTest, model: string, token: string) =>
  app.call("/v1/embeddings", postJson({ model, input: "hello" }, token));
const changes = (app: AppUnderTest) =>
  app.auditEvents().filter(({ type, object }) =>
    type === "object.changed" && String(object).startsWith("model/")
  )
    .map(({ action, object, before, after }) => [action, object, before, after]);

Deno.test("every model is told with how it stands: served, refused with the reason, or of an upstream", () =>
  withApp(async (app, token) => {
    const response = await app.call(PATH, getAs(token));
    strictEqual(response.status, 200);
    const { data } = await response.json();
    const told = data.map((
      { id, kind, state, ready, reasons }: Record<string, unknown>,
    ) => [id, kind, state, ready, reasons]);
    deepStrictEqual(told, [
      ["broken", "local", "refused", false, ["digest_mismatch: graph.onnx"]],
      ["generalist", "upstream", "served", true, []],
      ["guarded", "local", "served", true, []],
      ["hidden", "local", "served", true, []],
      ["open", "local", "served", true, []],
      ["tensors", "upstream", "served", true, []],
    ]);
    const { sha256, ...open } = data.find(({ id }: { id: string }) => id === "open");
    ok(/^[0-9a-f]{64}$/.test(sha256));
    deepStrictEqual(open, {
      id: "open",
      kind: "local",
      state: "served",
      ready: true,
      reasons: [],
      sealed: false,
      signer: null,
      serial: null,
      added_at: null,
      license: "Apache-2.0",
      see: ["admin", "operator", "auditor", "user"],
      use: ["admin", "operator", "user"],
    });
  }));

Deno.test("a disabled model is not there for anybody, what runs on it ends well, and the change is on record before it holds", () =>
  withApp(async (app, token) => {
    const engine = app.engines.get("open");
    ok(engine);
    let finish = () => {};
    const held = new Promise<void>((resolve) => finish = resolve);
    engine.behave = async (texts) => {
      await held;
      return stubEmbeddings(texts);
    };
    const running = embed(app, "open", token);
    while (engine.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));

    const disabled = await post(app, `${PATH}/open/disable`, token);
    strictEqual(disabled.status, 200);
    const { state, ready } = await disabled.json();
    deepStrictEqual([state, ready], ["disabled", false]);
    for (
      const response of [
        await embed(app, "open", token),
        await app.call("/v1/models/open", getAs(token)),
        await app.call("/v2/models/open/ready", getAs(token)),
      ]
    ) strictEqual(response.status, 404, await response.text());
    const listed = await (await app.call("/v1/models", getAs(token))).json();
    strictEqual(listed.data.some(({ id }: { id: string }) => id === "open"), false);
    strictEqual((await app.call("/readyz")).status, 200);
    finish();
    strictEqual((await running).status, 200);

    strictEqual((await post(app, `${PATH}/open/enable`, token)).status, 200);
    strictEqual((await embed(app, "open", token)).status, 200);
    deepStrictEqual(changes(app), [
      ["model:write", "model/open", { state: "served", serial: null }, { enabled: false }],
      ["model:write", "model/open", { state: "disabled", serial: null }, { enabled: true }],
    ]);
  }));

Deno.test("a model of an upstream is disabled and enabled like one of this machine", () =>
  withApp(async (app, token) => {
    const chat = () =>
      app.call(
        "/v1/chat/completions",
        postJson({ model: "any/model:1", messages: [{ role: "user", content: "hi" }] }, token),
      );
    strictEqual((await chat()).status, 200);
    strictEqual((await post(app, `${PATH}/generalist/disable`, token)).status, 200);
    strictEqual((await chat()).status, 404);
    strictEqual((await post(app, `${PATH}/generalist/enable`, token)).status, 200);
    strictEqual((await chat()).status, 200);
  }));

Deno.test("a model that is refused cannot be enabled: 409 with the reason, which the trail has as well", () =>
  withApp(async (app, token) => {
    const response = await post(app, `${PATH}/broken/enable`, token);
    strictEqual(response.status, 409);
    strictEqual((await response.json()).detail, "The model was refused: digest_mismatch: graph.onnx.");
    const types = app.auditEvents().slice(-3).map(({ type }) => type);
    deepStrictEqual(types, ["object.changed", "model.refused", "request.refused"]);
  }));

Deno.test("a model that nobody has heard of is not found, and nobody but admins and operators is told of models", () =>
  withApp(async (app, token) => {
    for (const id of ["nobody", "..", "%2e%2e%2fopen", "OPEN"]) {
      for (const act of ["enable", "disable"]) {
        const { status } = await post(app, `${PATH}/${id}/${act}`, token);
        strictEqual(status, 404, `${act} ${id}`);
      }
    }
    deepStrictEqual(changes(app), []);
    for (const role of ["user", "auditor", "team-admin"]) {
      strictEqual((await app.call(PATH, getAs(await app.tokenFor(role)))).status, 403, role);
      strictEqual((await post(app, `${PATH}/open/disable`, await app.tokenFor(role))).status, 403, role);
    }
    strictEqual((await app.call(PATH, getAs(await app.tokenFor("operator")))).status, 200);
  }));
