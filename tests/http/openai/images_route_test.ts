// POST /v1/images/generations: what is asked of the model, what is answered, what is refused.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { Images } from "../../../src/engines/task.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { imagesRoute } from "../../../src/http/openai/images_route.ts";
import { type FakeDoor, fakeDoor, refusalOf, send } from "./fake_door.ts";

const ANSWER: Images = {
  createdSeconds: 77,
  images: [{ base64: "aGk=", revisedPrompt: "a red cat" }, { base64: "aG8=" }],
  usage: { inputTokens: 5, outputTokens: 100, countedBy: "engine" },
};
const BODY = { model: "m1", prompt: "a cat" };

const painting = (answer = ANSWER): FakeDoor =>
  fakeDoor({ model: { capabilities: ["image"], passFields: ["seed"] }, answer: answer as never });

Deno.test("POST /v1/images/generations answers pictures in OpenAI's form", async () => {
  const fake = painting();
  const answer = await send(imagesRoute(fake.parts), {
    ...BODY,
    n: 2,
    size: "1024x768",
    quality: "high",
    style: "vivid",
    background: "transparent",
    output_format: "webp",
    response_format: "b64_json",
    moderation: "low",
    user: "me",
    seed: 5,
  });
  deepStrictEqual(answer, {
    status: 200,
    body: {
      created: 77,
      data: [{ b64_json: "aGk=", revised_prompt: "a red cat" }, { b64_json: "aG8=" }],
      usage: { input_tokens: 5, output_tokens: 100, total_tokens: 105 },
    },
  });
  deepStrictEqual(fake.requests, [{
    task: "image",
    prompt: "a cat",
    images: 2,
    size: "1024x768",
    quality: "high",
    style: "vivid",
    background: "transparent",
    outputFormat: "webp",
    extra: { seed: 5 },
  }]);
  deepStrictEqual(["/images", "/prompt"].map((path) => fake.place?.(path)), ["/n", "/prompt"]);
});

Deno.test("POST /v1/images/generations asks for one picture by default, and null says nothing", async () => {
  const fake = painting();
  await send(imagesRoute(fake.parts), BODY);
  await send(imagesRoute(fake.parts), {
    ...BODY,
    n: null,
    size: null,
    quality: null,
    output_format: null,
    user: null,
  });
  const plain = { task: "image", prompt: "a cat", images: 1, extra: {} };
  deepStrictEqual(fake.requests, [plain, plain]);
});

Deno.test("POST /v1/images/generations tells no usage that the engine did not count", async () => {
  const fake = painting({ ...ANSWER, usage: { inputTokens: 5, outputTokens: 0, countedBy: "estimate" } });
  const { body } = await send(imagesRoute(fake.parts), BODY);
  deepStrictEqual(Object.keys(body as object), ["created", "data"]);
});

Deno.test("POST /v1/images/generations refuses what it cannot do, by its path", async () => {
  const route = imagesRoute(painting().parts);
  const refused: readonly (readonly [Record<string, unknown>, string])[] = [
    [{ model: undefined }, "/model"],
    [{ prompt: undefined }, "/prompt"],
    [{ prompt: "" }, "/prompt"],
    [{ prompt: "x".repeat(32_001) }, "/prompt"],
    [{ n: 0 }, "/n"],
    [{ n: 11 }, "/n"],
    [{ n: 1.5 }, "/n"],
    [{ size: "big" }, "/size"],
    [{ size: "1024x1024\n" }, "/size"],
    [{ size: "99999x1" }, "/size"],
    [{ quality: "HD!" }, "/quality"],
    [{ style: "x".repeat(33) }, "/style"],
    [{ background: 1 }, "/background"],
    [{ output_format: "svg" }, "/output_format"],
    [{ stream: true }, "/stream"],
    [{ moderation: "off" }, "/moderation"],
    [{ user: "x".repeat(257) }, "/user"],
    [{ partial_images: 1 }, "/partial_images"],
    [{ "a/b~c": 1 }, "/a~1b~0c"],
  ];
  for (const [change, path] of refused) {
    const body = JSON.parse(JSON.stringify({ ...BODY, ...change }));
    deepStrictEqual(
      (await refusalOf(route, body)).map((line) => line.split(" ")[0]),
      [path],
      JSON.stringify(change),
    );
  }
  deepStrictEqual(await refusalOf(route, { ...BODY, response_format: "url" }), [
    "/response_format is not b64_json: images are answered as they are, not as addresses",
  ]);
});

Deno.test("POST /v1/images/generations passes on what the act refuses", async () => {
  const fault = new Fault("input_refused", "Cannot paint this");
  const fake = fakeDoor({ model: { capabilities: ["image"] }, fault });
  await rejects(send(imagesRoute(fake.parts), BODY), (thrown) => thrown === fault);
  await rejects(
    send(imagesRoute(fakeDoor().parts), BODY),
    (thrown: Fault) => thrown.kind === "capability_missing",
  );
  strictEqual(fake.requests.length, 1);
});

Deno.test("POST /v1/images/generations answers any JSON, or refuses it with a Fault", () =>
  fc.assert(fc.asyncProperty(
    fc.oneof(
      fc.jsonValue(),
      fc.dictionary(fc.constantFrom("model", "prompt", "n", "size", "__proto__", "x"), fc.jsonValue()),
    ),
    async (body) => {
      try {
        await send(imagesRoute(painting().parts), body);
      } catch (thrown) {
        ok(thrown instanceof Fault, String(thrown));
      }
    },
  )));
