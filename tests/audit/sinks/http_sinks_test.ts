// Tests of the sinks over HTTP: the real worker, and receivers written for these tests that may say no, nothing or nonsense.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { SinkOptions } from "../../../src/audit/sinks/sink_options.ts";
import { makeSelfSignedCertificate } from "../../support/self_signed_certificate.ts";
import { numberedUpTo, TrailFolder, until } from "../trail_folder.ts";
import { type HttpReceiver, startHttpReceiver } from "./http_receiver.ts";
import { openSinksUnderTest, target } from "./opened_sinks.ts";

function otlp(url: string, more: Partial<Extract<SinkOptions, { kind: "otlp" }>> = {}): SinkOptions {
  return { name: "collector", from: "start", kind: "otlp", classes: undefined, ...target(url), ...more };
}

function loki(url: string, more: Partial<Extract<SinkOptions, { kind: "loki" }>> = {}): SinkOptions {
  return {
    name: "loki",
    from: "start",
    kind: "loki",
    classes: undefined,
    tenant: undefined,
    ...target(url),
    ...more,
  };
}

/** Numbers of the entries that an OTLP receiver took, in the order in which it took them. */
function numbersAt(receiver: HttpReceiver): number[] {
  return receiver.taken().flatMap(({ body }) =>
    JSON.parse(body).resourceLogs[0].scopeLogs[0].logRecords.map((
      { body }: { readonly body: { readonly stringValue: string } },
    ) => JSON.parse(body.stringValue).seq)
  );
}

const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);

Deno.test("a collector gets every entry of a trail in order, in batches, with its secret and fields, and what is appended meanwhile", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  folder.write(numberedUpTo(1200), 64 * 1024);
  const options = otlp(`${receiver.origin}/base/`, { secret: "s3cret", headers: { "X-Source": "gate" } });
  const sinks = openSinksUnderTest(folder, [options], [`127.0.0.1:${receiver.port}`]);
  await until(() => numbersAt(receiver).length >= 1200);
  folder.write(numberedUpTo(1210, 1201));
  await until(() => numbersAt(receiver).length >= 1210);
  await sinks.close();
  deepStrictEqual(numbersAt(receiver), upTo(1210));
  const [first] = receiver.received;
  deepStrictEqual(
    [first?.path, ...["authorization", "x-source", "content-type"].map((name) => first?.headers.get(name))],
    ["/base/v1/logs", "Bearer s3cret", "gate", "application/json"],
  );
  ok(receiver.received.every(({ body }) => body.length < 2_000_000));
  deepStrictEqual(sinks.logged, [{
    level: "info",
    event: "audit.sink_state",
    fields: { sink: "collector", state: "up", reason: null },
  }]);
});

Deno.test("a receiver that is away, broken or slow is asked again until it takes all, in order; it is told once for each change", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  const failures = [
    () => new Response("no", { status: 503 }),
    () => new Response("no", { status: 429, headers: { "retry-after": "1" } }),
    () => new Response(null, { status: 307, headers: { location: `${receiver.origin}/else` } }),
    () => new Response("<html>welcome</html>"),
  ];
  receiver.answer = () => failures.shift()?.() ?? new Response("{}");
  folder.write(numberedUpTo(3));
  const sinks = openSinksUnderTest(folder, [otlp(receiver.origin)], [`127.0.0.1:${receiver.port}`]);
  await until(() => receiver.received.length === 5);
  await until(() => sinks.logged.at(-1)?.fields.state === "up");
  await sinks.close();
  deepStrictEqual(new Set(receiver.received.map(({ path }) => path)), new Set(["/v1/logs"]));
  deepStrictEqual(sinks.logged.map(({ level, fields }) => [level, fields.state, fields.reason]), [
    ["warn", "down", "it answers 503"],
    ["warn", "down", "it answers 429"],
    ["warn", "down", "it answers 307"],
    ["warn", "down", "its answer is no answer of an OTLP receiver"],
    ["info", "up", null],
  ]);
});

Deno.test("nothing is stepped over: an entry that is refused holds its sink until it is taken, and those around it are not lost", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  await using other = startHttpReceiver();
  let isPoison = true;
  receiver.answer = (body) =>
    isPoison && body.includes('\\"reason\\":\\"40\\"')
      ? new Response("entry too far behind", { status: 400 })
      : new Response(null, { status: 204 });
  folder.write(numberedUpTo(60));
  const sinks = openSinksUnderTest(
    folder,
    [loki(receiver.origin), otlp(other.origin)],
    [`127.0.0.1:${receiver.port}`, `127.0.0.1:${other.port}`],
  );
  await until(() => sinks.logged.some(({ fields }) => fields.reason === "it answers 400 to this one item"));
  const linesTaken = () =>
    receiver.taken().flatMap(({ body }) =>
      JSON.parse(body).streams.flatMap(({ values }: { readonly values: [string, string][] }) =>
        values.map(([, line]) => Number(JSON.parse(line).seq))
      )
    );
  deepStrictEqual([...new Set(linesTaken())], upTo(39));
  // The other one never noticed.
  await until(() => numbersAt(other).length === 60);
  isPoison = false;
  await until(() => linesTaken().includes(60));
  await sinks.close();
  deepStrictEqual([...new Set(linesTaken())], upTo(60));
});

Deno.test("a sink goes on where it was after a restart; one that begins now gets nothing of before", async () => {
  await using folder = new TrailFolder();
  await using old = startHttpReceiver();
  await using late = startHttpReceiver();
  const hosts = [old, late].map(({ port }) => `127.0.0.1:${port}`);
  const both = [otlp(old.origin), otlp(late.origin, { name: "late", from: "now" })];
  folder.write(numberedUpTo(5));
  const first = openSinksUnderTest(folder, both, hosts);
  await until(() => numbersAt(old).length === 5);
  await first.close();
  // While nobody ships, the trail grows.
  folder.write(numberedUpTo(8, 6));
  const second = openSinksUnderTest(folder, both, hosts);
  await until(() => numbersAt(old).length === 8 && numbersAt(late).length === 3);
  await second.close();
  deepStrictEqual([numbersAt(old), numbersAt(late)], [upTo(8), [6, 7, 8]]);
});

Deno.test("a cursor of another trail, or one that is damaged, is no reason to leave something out: the sink begins anew and says so", async () => {
  await using receiver = startHttpReceiver();
  const hosts = [`127.0.0.1:${receiver.port}`];
  await using one = new TrailFolder();
  one.write(numberedUpTo(9));
  const first = openSinksUnderTest(one, [otlp(receiver.origin)], hosts);
  await until(() => numbersAt(receiver).length === 9);
  await first.close();
  const cursor = Deno.readTextFileSync(`${one.root}/sinks/collector.cursor`);
  for (const damage of [cursor, cursor.slice(0, 20), cursor.replace(/"seq":9/g, '"seq":99'), "[]"]) {
    await using other = new TrailFolder();
    other.write(numberedUpTo(12));
    Deno.mkdirSync(`${other.root}/sinks`);
    Deno.writeTextFileSync(`${other.root}/sinks/collector.cursor`, damage);
    receiver.received.length = 0;
    const sinks = openSinksUnderTest(other, [otlp(receiver.origin)], hosts);
    await until(() => numbersAt(receiver).length === 12);
    await sinks.close();
    deepStrictEqual(numbersAt(receiver), upTo(12));
    deepStrictEqual(sinks.logged.map(({ event }) => event), ["audit.sink_rewound", "audit.sink_state"]);
  }
});

Deno.test("records that a collector rejects of a request that it takes are counted and told, and not sent again", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  receiver.answer = () =>
    Response.json({ partialSuccess: { rejectedLogRecords: "2", errorMessage: "too old" } });
  folder.write(numberedUpTo(3));
  const sinks = openSinksUnderTest(folder, [otlp(receiver.origin)], [`127.0.0.1:${receiver.port}`]);
  await until(() => sinks.logged.length === 2);
  await sinks.close();
  strictEqual(receiver.received.length, 1);
  deepStrictEqual(sinks.logged.find(({ event }) => event === "audit.sink_gap")?.fields, {
    sink: "collector",
    entries: 2,
    reason: "rejected by the receiver",
  });
});

Deno.test("a sink of one class gets that class, and its cursor moves over the others", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  const allowed = { type: "model.accepted", model: "m", sha256: "0", signer: null, serial: null } as const;
  folder.write([...numberedUpTo(2), allowed, ...numberedUpTo(4, 3), allowed]);
  const options = loki(receiver.origin, {
    classes: ["activity"],
    tenant: "team-a",
    username: "gate",
    secret: "pa:ss",
  });
  const sinks = openSinksUnderTest(folder, [options], [`127.0.0.1:${receiver.port}`]);
  await until(() => receiver.received.length === 1);
  await sinks.close();
  const [{ path, headers, body } = { path: "", headers: new Headers(), body: "" }] = receiver.received;
  deepStrictEqual([path, headers.get("x-scope-orgid"), headers.get("authorization")], [
    "/loki/api/v1/push",
    "team-a",
    `Basic ${btoa("gate:pa:ss")}`,
  ]);
  const { streams } = JSON.parse(body);
  deepStrictEqual(streams.map(({ stream }: { readonly stream: unknown }) => stream), [{
    service: "portcullis",
    class: "activity",
  }]);
  deepStrictEqual(streams[0].values.map(([, line]: [string, string]) => JSON.parse(line).seq), [3, 6]);
  match(Deno.readTextFileSync(`${folder.root}/sinks/loki.cursor`), /"seq":6/);
});

Deno.test("a receiver's certificate is checked: against the authority of the settings, else against the machine's", async () => {
  await using folder = new TrailFolder();
  const { certificatePem, privateKeyPem } = await makeSelfSignedCertificate();
  await using receiver = startHttpReceiver({ tls: { cert: certificatePem, key: privateKeyPem } });
  folder.write(numberedUpTo(1));
  const sinks = openSinksUnderTest(folder, [
    otlp(receiver.origin, { name: "trusting", caCertificates: certificatePem }),
    otlp(receiver.origin, { name: "other" }),
  ], [`localhost:${receiver.port}`]);
  await until(() => sinks.logged.length >= 2);
  await sinks.close();
  strictEqual(receiver.received.length, 1);
  deepStrictEqual(
    sinks.logged.map(({ fields }) => [fields.sink, fields.state, fields.reason]).sort(),
    [["other", "down", "its certificate is not trusted"], ["trusting", "up", null]],
  );
});

Deno.test("the worker reaches the hosts of its sinks and no other", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  folder.write(numberedUpTo(1));
  for (const hosts of [[], [`127.0.0.1:${receiver.port + 1}`]]) {
    const sinks = openSinksUnderTest(folder, [otlp(receiver.origin)], hosts);
    await until(() => sinks.logged.length > 0);
    await sinks.close();
    strictEqual(sinks.logged[0]?.fields.reason, "this process may not connect to it");
  }
  strictEqual(receiver.received.length, 0);
});

Deno.test("a witness gets each signed checkpoint as a text, in order, those that were made before a restart too", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  const witness: SinkOptions = {
    name: "witness",
    from: "start",
    kind: "witness",
    ...target(`${receiver.origin}/add`),
  };
  const hosts = [`127.0.0.1:${receiver.port}`];
  folder.write(numberedUpTo(3));
  const first = openSinksUnderTest(folder, [witness], hosts);
  await until(() => receiver.received.length === folder.notes().length);
  await first.close();
  folder.write(numberedUpTo(6, 4));
  folder.write(numberedUpTo(9, 7));
  receiver.answer = () => new Response(null, { status: 204 });
  const second = openSinksUnderTest(folder, [witness], hosts);
  await until(() => receiver.received.length === folder.notes().length);
  await second.close();
  ok(folder.notes().length >= 3);
  deepStrictEqual(receiver.received.map(({ body }) => body), folder.notes());
  strictEqual(receiver.received[0]?.path, "/add");
  match(receiver.received[0]?.headers.get("content-type") ?? "", /^text\/plain/);
});

Deno.test("closing waits for no receiver that does not answer, and what it did not take is sent after the next start", async () => {
  await using folder = new TrailFolder();
  await using receiver = startHttpReceiver();
  receiver.answer = () => undefined;
  folder.write(numberedUpTo(2));
  const hosts = [`127.0.0.1:${receiver.port}`];
  const first = openSinksUnderTest(folder, [otlp(receiver.origin)], hosts);
  await new Promise((resolve) => setTimeout(resolve, 500));
  await first.close();
  receiver.answer = () => new Response();
  const second = openSinksUnderTest(folder, [otlp(receiver.origin)], hosts);
  await until(() => numbersAt(receiver).length === 2);
  await second.close();
});
