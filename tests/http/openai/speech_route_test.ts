// POST /v1/audio/speech: what is asked of the model, what is sent, what is refused.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../../src/faults/fault.ts";
import type { AnyRoute } from "../../../src/http/route.ts";
import { speechRoute } from "../../../src/http/openai/speech_route.ts";
import { type FakeDoor, fakeDoor, refusalOf, send } from "./fake_door.ts";

const BODY = { model: "m1", input: "Hello", voice: "alloy" };

interface Speaking {
  readonly fake: FakeDoor;
  readonly route: AnyRoute;
}

/** The fake door with a media type on its streams. */
function speaking(mediaType?: string, fault?: Fault): Speaking {
  const batches = [[Uint8Array.of(1, 2)], [Uint8Array.of(3), Uint8Array.of(4)]];
  const fake = fakeDoor({
    model: { capabilities: ["speech"] },
    batches: batches as never,
    ...(fault === undefined ? {} : { fault }),
  });
  const { door } = fake.parts;
  const route = speechRoute({
    door: {
      ...door,
      async stream(...parts) {
        const stream = await door.stream(...parts);
        return mediaType === undefined ? stream : { ...stream, mediaType };
      },
    },
  });
  return { fake, route };
}

Deno.test("POST /v1/audio/speech sends the sound as it comes", async () => {
  const { fake, route } = speaking("audio/mpeg");
  const answer = await send(route, { ...BODY, instructions: "slowly", speed: 0.25, stream_format: "audio" });
  strictEqual(answer.status, 200);
  deepStrictEqual(answer.headers, { "Content-Type": "audio/mpeg" });
  deepStrictEqual(fake.requests, [{
    task: "speech",
    text: "Hello",
    voice: "alloy",
    format: "mp3",
    speed: 0.25,
    instructions: "slowly",
  }]);
  deepStrictEqual(await answer.stream?.next(), [Uint8Array.of(1, 2)]);
  deepStrictEqual(await answer.stream?.next(), [Uint8Array.of(3), Uint8Array.of(4)]);
  strictEqual(await answer.stream?.next(), undefined);
  strictEqual(fake.place?.("/text"), "/input");
  strictEqual(fake.place?.("/format"), "/response_format");
});

Deno.test("POST /v1/audio/speech names the media type of the stream where it is one of sound, else of the format", async () => {
  const typeOf = async (mediaType: string | undefined, format?: string): Promise<string | undefined> => {
    const answer = await send(speaking(mediaType).route, {
      ...BODY,
      ...(format === undefined ? {} : { response_format: format }),
    });
    return answer.headers?.["Content-Type"];
  };
  strictEqual(await typeOf("audio/x-wav", "wav"), "audio/x-wav");
  const byFormat = {
    mp3: "audio/mpeg",
    opus: "audio/ogg",
    aac: "audio/aac",
    flac: "audio/flac",
    wav: "audio/wav",
    pcm: "audio/pcm",
  };
  for (const [format, type] of Object.entries(byFormat)) {
    for (const said of [undefined, "text/html", "audio/", "audio/x\r\ny: z", "application/octet-stream"]) {
      strictEqual(await typeOf(said, format), type);
    }
  }
  strictEqual(await typeOf(undefined), "audio/mpeg");
});

Deno.test("POST /v1/audio/speech: what breaks on the way breaks the transfer off, with the reason for the log", async () => {
  const fault = new Fault("upstream_failed", "Cannot go on: it broke");
  const answer = await send(speaking("audio/mpeg", fault).route, BODY);
  await answer.stream?.next();
  await answer.stream?.next();
  await rejects(async () => await answer.stream?.next(), (thrown) => thrown === fault);
  strictEqual(answer.stream?.brokenBy(), fault);
});

Deno.test("POST /v1/audio/speech stops the engine when nobody listens any more", async () => {
  const { fake, route } = speaking("audio/mpeg");
  const answer = await send(route, BODY);
  answer.stream?.cancel();
  strictEqual(fake.cancelled, 1);
  strictEqual(answer.stream?.brokenBy()?.kind, "client_left");
});

Deno.test("POST /v1/audio/speech refuses what it cannot do, by its path", async () => {
  const { route } = speaking();
  const refused: readonly (readonly [Record<string, unknown>, string])[] = [
    [{ model: undefined }, "/model"],
    [{ input: undefined }, "/input"],
    [{ input: "" }, "/input"],
    [{ input: "x".repeat(4097) }, "/input"],
    [{ voice: undefined }, "/voice"],
    [{ voice: { id: "voice_1" } }, "/voice"],
    [{ voice: "../x" }, "/voice"],
    [{ voice: "x".repeat(65) }, "/voice"],
    [{ response_format: "exe" }, "/response_format"],
    [{ speed: 0.2 }, "/speed"],
    [{ speed: 4.1 }, "/speed"],
    [{ instructions: "x".repeat(4097) }, "/instructions"],
    [{ stream_format: "sse" }, "/stream_format"],
    [{ user: "me" }, "/user"],
  ];
  for (const [change, path] of refused) {
    const body = JSON.parse(JSON.stringify({ ...BODY, ...change }));
    deepStrictEqual(
      (await refusalOf(route, body)).map((line) => line.split(" ")[0]),
      [path],
      JSON.stringify(change),
    );
  }
});

Deno.test("POST /v1/audio/speech answers any JSON, or refuses it with a Fault", () =>
  fc.assert(fc.asyncProperty(
    fc.oneof(
      fc.jsonValue(),
      fc.record({ model: fc.constant("m1"), input: fc.string(), voice: fc.jsonValue() }),
    ),
    async (body) => {
      try {
        await send(speaking().route, body);
      } catch (thrown) {
        ok(thrown instanceof Fault, String(thrown));
      }
    },
  )));
