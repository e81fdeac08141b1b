// Count tokens route: an estimate, on record and without a run.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { fakeDoor, HELLO, refusalOf } from "./fake_door.ts";

const PATH = "/v1/messages/count_tokens";

async function counted(fields: object = {}): Promise<number> {
  const { status, body } = await fakeDoor().send(PATH, { model: "m1", messages: HELLO, ...fields });
  strictEqual(status, 200);
  const { input_tokens, ...rest } = body as { readonly input_tokens: number };
  deepStrictEqual(rest, {});
  return input_tokens;
}

Deno.test("a count is on record by the model's id, and runs nothing", async () => {
  const fake = fakeDoor();
  await fake.send(PATH, { model: "nick", messages: HELLO });
  deepStrictEqual(fake.allowed, [["model:infer", "m1"]]);
  deepStrictEqual(fake.requests, []);
});

Deno.test("nothing is answered before it is on record", async () => {
  const fake = fakeDoor();
  let recorded = false;
  fake.allowed.push = () => {
    recorded = true;
    throw new Error("the trail is full");
  };
  let answered = false;
  await fake.send(PATH, { model: "m1", messages: HELLO }).then(() => answered = true, () => undefined);
  deepStrictEqual([recorded, answered], [true, false]);
});

Deno.test("all that a model reads counts", async () => {
  const least = await counted();
  ok(least > 0 && least < 20, String(least));
  ok(await counted({ system: "Answer in German, in one sentence." }) > least);
  const tools = [{ name: "weather", description: "Tells.", input_schema: { type: "object" } }];
  ok(await counted({ tools }) > least);
  const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" } };
  ok(await counted({ messages: [{ role: "user", content: [image] }] }) > 500);
});

Deno.test("what only a run needs is no field here", async () => {
  deepStrictEqual(await refusalOf({ stream: true, max_tokens: 10 }, PATH), [
    "/max_tokens is not a known field",
    "/stream is not a known field",
  ]);
});
