// Tests of the sinks of a real server: killed at random moments, and in its log; nothing that the trail has is missing at any of them.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { listSegments, segmentName } from "../../../src/audit/trail/segment_files.ts";
import { hasRedisServer, startRedisServer } from "../../support/redis_server.ts";
import { type ServerUnderTest, startServerUnderTest } from "../../support/server_under_test.ts";
import { until } from "../trail_folder.ts";
import { startHttpReceiver } from "./http_receiver.ts";

const ROUNDS = 3;

Deno.test({
  name:
    "kill -9 at any moment: nothing of the trail is missing at standard output, a collector, a Loki, a witness or a Redis stream",
  ignore: !hasRedisServer,
  async fn() {
    const dataDir = await Deno.makeTempDir({ prefix: "portcullis-sinks-" });
    await using collector = startHttpReceiver();
    await using loki = startHttpReceiver();
    await using witness = startHttpReceiver();
    const redis = await startRedisServer({ persistent: true });
    const variables = {
      PORTCULLIS_AUDIT_SINKS: JSON.stringify([
        { name: "out", kind: "stdout", from: "start" },
        { name: "collector", kind: "otlp", url: collector.origin, from: "start" },
        { name: "loki", kind: "loki", url: loki.origin, from: "start" },
        { name: "witness", kind: "witness", url: `${witness.origin}/notes`, from: "start" },
        { name: "stream", kind: "redis_stream", from: "start" },
      ]),
      PORTCULLIS_AUDIT_SINK_KEY_STREAM: redis.url,
      PORTCULLIS_AUDIT_CHECKPOINT_ENTRIES: "10",
    };
    const printed: string[] = [];
    let server: ServerUnderTest | undefined;
    try {
      for (let round = 0; round < ROUNDS; round++) {
        server = await startServerUnderTest({ dataDir, variables });
        // Readers of the log that come and go do not matter; receivers that fail now and then neither.
        collector.answer = () => new Response("", { status: Math.random() < 0.2 ? 503 : 200 });
        const untilMs = Date.now() + 300 + Math.random() * 700;
        while (Date.now() < untilMs) await refuseSome(server);
        await server.stop("SIGKILL");
        printed.push(server.output());
      }
      collector.answer = () => new Response("");
      server = await startServerUnderTest({ dataDir, variables });
      const trail = numbersOnDisk(dataDir);
      const expected = trail.length;
      ok(expected > 20 * ROUNDS, `only ${expected} entries`);
      deepStrictEqual(trail, Array.from({ length: expected }, (_, index) => index + 1));
      const atStdout = () =>
        new Set(
          [...printed, server?.output() ?? ""].flatMap((text) =>
            text.split("\n").flatMap((line) => numberIn(line, /^\{"audit":(\{.*\})\}$/))
          ),
        );
      const atCollector = () => new Set(collector.taken().flatMap(({ body }) => numbersInBody(body)));
      const atLoki = () => new Set(loki.taken().flatMap(({ body }) => numbersInBody(body)));
      const atRedis = async () => Number(await redis.cli("XLEN", "portcullis:audit"));
      const behind = (seen: Set<number>) => trail.filter((seq) => !seen.has(seq)).length;
      await until(() => behind(atStdout()) + behind(atCollector()) + behind(atLoki()) === 0);
      strictEqual((await server.stop()).code, 0);
      printed.push(server.output());
      server = undefined;
      // A stop in order leaves nothing behind: the record of the stop itself has come.
      const whole = numbersOnDisk(dataDir);

      const missing = (seen: Set<number>) => whole.filter((seq) => !seen.has(seq));
      deepStrictEqual([missing(atStdout()), missing(atCollector()), missing(atLoki())], [[], [], []]);
      strictEqual(await atRedis(), whole.length);
      const notes = Deno.readDirSync(`${dataDir}/audit-checkpoint`);
      const signed = [...notes].filter(({ name }) => name.startsWith("checkpoints-")).flatMap(({ name }) =>
        Deno.readTextFileSync(`${dataDir}/audit-checkpoint/${name}`).split("\n").slice(0, -1).map((line) =>
          JSON.parse(line)
        )
      );
      ok(signed.length > 3);
      deepStrictEqual([...new Set(witness.taken().map(({ body }) => body))], signed);
    } finally {
      await server?.stop("SIGKILL");
      await redis.stop();
      await Deno.remove(dataDir, { recursive: true });
    }
  },
});

Deno.test("entries of the trail stand in the log as whole lines, and the log says how its other sinks are, without a word of what they get", async () => {
  await using away = startHttpReceiver();
  away.answer = () => new Response("secret words of the receiver", { status: 500 });
  const server = await startServerUnderTest({
    variables: {
      PORTCULLIS_AUDIT_SINKS: JSON.stringify([
        { name: "out", kind: "stdout", classes: ["security"] },
        { name: "away", kind: "otlp", url: away.origin },
      ]),
      PORTCULLIS_AUDIT_SINK_KEY_AWAY: "0123456789abcdef",
      PORTCULLIS_AUDIT_AT_REST: "sealed",
    },
  });
  try {
    await refuseSome(server);
    await until(() => /"audit".*request\.refused/.test(server.output()));
    await until(() => server.output().includes("it answers 500"));
  } finally {
    await server.stop();
  }
  const lines = server.output().split("\n").filter((line) => line.startsWith("{"));
  const parsed = lines.map((line) => JSON.parse(line));
  const entries = parsed.filter(({ audit }) => audit !== undefined);
  ok(
    entries.length > 0 &&
      entries.every(({ audit }) => audit.class === "security" && audit.event.type !== undefined),
  );
  ok(
    parsed.some(({ event, sink, state, level }) =>
      event === "audit.sink_state" && sink === "away" && state === "down" && level === "warn"
    ),
  );
  ok(!/secret words|0123456789abcdef/.test(server.output()));
});

/** Requests that leave a record each. */
async function refuseSome({ origin }: ServerUnderTest): Promise<void> {
  await Promise.all(Array.from({ length: 10 }, async () => {
    const response = await fetch(`${origin}/v1/models`);
    await response.body?.cancel();
  }));
}

function numbersOnDisk(dataDir: string): number[] {
  const directory = `${dataDir}/audit`;
  return listSegments(directory).flatMap((number) =>
    Deno.readTextFileSync(`${directory}/${segmentName(number)}`).split("\n").slice(1, -1)
  ).map((line) => Number(JSON.parse(line).seq));
}

/** Of a request to the collector or the Loki: each line of an entry stands in it as a JSON string. */
function numbersInBody(body: string): number[] {
  return [...body.matchAll(/\\"seq\\":(\d+),\\"time\\"/g)].map(([, seq]) => Number(seq));
}

function numberIn(line: string, form: RegExp): number[] {
  const [, entry] = form.exec(line) ?? [];
  return entry === undefined ? [] : [Number(JSON.parse(entry).seq)];
}
