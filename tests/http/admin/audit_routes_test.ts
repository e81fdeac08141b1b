// Tests of the audit routes over the whole server: what is found by what, what is refused, and that whoever reads is recorded first.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { decodeUtf8 } from "../../../src/encoding/utf8.ts";
import {
  type AppUnderTest,
  getAs,
  openAppUnderTest,
  PASSWORD,
  postJson,
} from "../../support/app_under_test.ts";

interface Entry {
  readonly seq: number;
  readonly state: string;
  readonly time: string;
  readonly hash: string;
  readonly event: Readonly<Record<string, unknown>>;
}

interface Found {
  readonly data: readonly Entry[];
  readonly next: string | null;
  readonly unsearched: number;
}

const AUDIT = "/admin/v1/audit";

/** A server on which something has happened, and an auditor of it. */
async function openWorld(variables: Record<string, string> = {}) {
  const app = await openAppUnderTest(variables);
  const auditor = await app.tokenFor("auditor");
  const user = await app.tokenFor("user");
  const ask = (path: string, init: RequestInit = {}) => app.call(path, { ...getAs(auditor), ...init });
  const find = async (query: string): Promise<Found> => {
    const response = await ask(`${AUDIT}?limit=200&${query}`);
    const found = await response.json();
    strictEqual(response.status, 200, JSON.stringify(found));
    return found;
  };
  const from = "203.0.113.9";
  const embedded = await app.call("/v1/embeddings", {
    ...postJson({ model: "open", input: "x" }, user),
    from,
  });
  strictEqual(embedded.status, 200);
  await embedded.body?.cancel();
  const refused = await app.call("/v1/roles", { ...getAs(user), from });
  strictEqual(refused.status, 403);
  await refused.body?.cancel();
  await (await app.call("/v1/auth/login", postJson({ username: "nobody", password: PASSWORD }))).body
    ?.cancel();
  const request = embedded.headers.get("x-request-id") ?? "";
  const { sub } = JSON.parse(textOf(user.split(".")[1] ?? ""));
  return {
    app,
    ask,
    find,
    from,
    request,
    subject: String(sub),
    types: async (query: string) => (await find(query)).data.map(({ event }) => event.type).toReversed(),
    [Symbol.asyncDispose]: () => app.close(),
  };
}

function textOf(base64url: string): string {
  const text = decodeUtf8(Uint8Array.fromBase64(base64url, { alphabet: "base64url" }));
  return text.ok ? text.value : "";
}

/** The lines of the trail, without headers. */
function trailLines({ folder }: AppUnderTest): string[] {
  return Deno.readTextFileSync(`${folder}/data/audit/audit-000001.jsonl`).split("\n").slice(1, -1);
}

Deno.test("an auditor finds by actor, type, action, model, outcome, status, address, request and time what they are about", async () => {
  await using world = await openWorld();
  const { types, find, request, subject, from } = world;
  const run = ["inference.started", "inference.finished"];
  deepStrictEqual(await types(`actor=${subject}`), ["session.started", ...run, "request.refused"]);
  deepStrictEqual(await types(`actor=${subject}&issuer=http://127.0.0.1:8000&type=inference.`), run);
  deepStrictEqual(await types(`actor=${subject}&issuer=http://elsewhere.example`), []);
  deepStrictEqual(await types("type=inference.finished"), ["inference.finished"]);
  deepStrictEqual(await types("type=session."), ["session.started", "session.started", "session.refused"]);
  deepStrictEqual(await types("model=open&type=inference."), run);
  deepStrictEqual(await types("outcome=completed"), ["inference.finished"]);
  deepStrictEqual(await types("outcome=forbidden"), ["request.refused"]);
  deepStrictEqual(await types("outcome=403"), ["request.refused"]);
  deepStrictEqual(await types(`request=${request}`), run);
  deepStrictEqual(await types(`address=${from}`), [...run, "request.refused"]);
  deepStrictEqual(await types(`address=::ffff:${from}`), [...run, "request.refused"]);
  const [{ event: { address: label } = {} } = {}] = (await find("type=inference.finished")).data;
  deepStrictEqual(await types(`address=${label}`), [...run, "request.refused"]);
  deepStrictEqual(await types(`address=198.51.100.1`), []);
  const [first] = (await find("type=inference.started")).data;
  const [last] = (await find("type=request.refused")).data;
  ok(first && last);
  const range = `from=${encodeURIComponent(first.time)}&to=${encodeURIComponent(last.time)}`;
  ok((await types(range)).includes("inference.started") && !(await types(range)).includes("request.refused"));
  deepStrictEqual(await types("from=1&to=2"), []);
  strictEqual(
    (await types(`from=${Math.floor(Date.parse(first.time) / 1000)}`)).includes("inference.started"),
    true,
  );
});

Deno.test("changes are found by their action", async () => {
  await using world = await openWorld();
  const admin = await world.app.tokenFor("admin");
  const made = await world.app.call("/v1/teams", postJson({ id: "blue" }, admin));
  strictEqual(made.status, 201);
  await made.body?.cancel();
  deepStrictEqual((await world.types("action=team:write")).slice(0, 1), ["object.changed"]);
  deepStrictEqual(await world.types("action=user:write"), []);
});

Deno.test("pages hold every entry of the trail once, the newest first, with the hash that the trail has", async () => {
  await using world = await openWorld();
  const seen: Entry[] = [];
  let after: string | null = null;
  do {
    const response = await world.ask(`${AUDIT}?limit=4${after === null ? "" : `&after=${after}`}`);
    const { data, next, unsearched }: Found = await response.json();
    strictEqual(unsearched, 0);
    seen.push(...data);
    after = next;
  } while (after !== null);
  const whole = trailLines(world.app).map((line) => JSON.parse(line));
  const start = seen[0]?.seq ?? 0;
  deepStrictEqual(seen.map(({ seq }) => seq), Array.from({ length: start }, (_, index) => start - index));
  for (const { seq, time, hash, event, state } of seen) {
    deepStrictEqual({ time, hash, event, state }, {
      time: whole[seq - 1].time,
      hash: whole[seq - 1].hash,
      event: whole[seq - 1].event,
      state: "whole",
    });
  }
});

Deno.test("whoever reads is recorded before anything is given, with what was looked for and no address in the clear", async () => {
  await using world = await openWorld();
  const { data } = await world.find(`address=${world.from}&type=inference.`);
  const [read] = (await world.find("type=audit.read")).data.filter(({ event }) =>
    JSON.stringify(event.query).includes("inference.")
  );
  const query = { address: data[0]?.event.address, type: "inference.", limit: 200, after: null };
  deepStrictEqual(read?.event.query, query);
  strictEqual(read?.event.form, "page");
  await (await world.ask(`${AUDIT}/export?format=csv&model=open`)).text();
  await (await world.ask(`${AUDIT}/export`)).text();
  const exports = (await world.find("type=audit.read")).data.slice(1, 3).map((
    { event },
  ) => [event.form, event.query]);
  deepStrictEqual(exports, [["jsonl", {}], ["csv", { model: "open" }]]);
  // The search itself is an entry that it finds: it was durable before.
  strictEqual((await world.find("")).data[0]?.event.type, "audit.read");
});

Deno.test("without a record of it nothing is read", async () => {
  await using world = await openWorld();
  strictEqual((await world.find("")).data.length > 5, true);
  Deno.renameSync(`${world.app.folder}/data/audit`, `${world.app.folder}/data/away`);
  for (const path of [AUDIT, `${AUDIT}/export`, `${AUDIT}/checkpoint`, `${AUDIT}/keys`]) {
    const response = await world.ask(path);
    strictEqual(response.status, 503, path);
    ok(!(await response.text()).includes("inference"));
  }
  Deno.renameSync(`${world.app.folder}/data/away`, `${world.app.folder}/data/audit`);
});

Deno.test("a query that is not understood is refused with what is wrong with it", async () => {
  await using world = await openWorld();
  const mistakes: Readonly<Record<string, RegExp>> = {
    "from=yesterday": /from is no moment/,
    "to=2026-02-30T00:00:00Z": /to is no moment/,
    "from=2026-11-22T10:00:00": /from is no moment/,
    "from=-1": /from is no moment/,
    "from=2&to=2": /to is not later than from/,
    "type=session": /type is no type of event/,
    "type=nothing.": /type is no type of event/,
    "type=.": /type is no type of event/,
    "type=": /type is no type of event/,
    "action=write": /action is no action/,
    "outcome=999": /outcome is neither/,
    "outcome=": /outcome is neither/,
    "address=localhost": /address is no IP address/,
    "address=10.0.0.0/8": /address is no IP address/,
    "request=req_1": /request is no request's id/,
    "actor=": /actor is empty/,
    "actor=a%0Ab": /actor is empty, too long, or holds what cannot be seen/,
    "model=%E2%80%AE": /model is empty/,
    "after=x": /after is no `next`/,
    "after=0": /after is no `next`/,
    "limit=201": /limit is no whole number/,
    "type=session.&type=session.": /repeated/,
  };
  for (const [query, words] of Object.entries(mistakes)) {
    const response = await world.ask(`${AUDIT}?${query}`);
    strictEqual(response.status, 400, query);
    match((await response.json()).detail, words);
  }
  for (const path of [`${AUDIT}?seq=1`, `${AUDIT}/export?limit=1`, `${AUDIT}/checkpoint?x=1`]) {
    const response = await world.ask(path);
    strictEqual(response.status, 400, path);
    await response.body?.cancel();
  }
  const format = await world.ask(`${AUDIT}/export?format=xml`);
  match((await format.json()).detail, /format is neither jsonl nor csv/);
});

Deno.test("an export as JSON lines is the trail itself; as CSV, a file with a heading", async () => {
  await using world = await openWorld();
  const lines = await world.ask(`${AUDIT}/export`);
  strictEqual(lines.headers.get("content-type"), "application/x-ndjson");
  strictEqual(lines.headers.get("content-disposition"), 'attachment; filename="audit.jsonl"');
  const text = await lines.text();
  strictEqual(text, `${trailLines(world.app).join("\n")}\n`);
  match(text.trimEnd().split("\n").at(-1) ?? "", /"type":"audit\.read"/);
  const csv = await world.ask(`${AUDIT}/export?format=csv&type=inference.finished`);
  strictEqual(csv.headers.get("content-type"), "text/csv; charset=utf-8; header=present");
  const records = (await csv.text()).split("\r\n");
  strictEqual(records.length, 3);
  match(
    records[1] ?? "",
    /,inference\.finished,req_[^,]+,http:\/\/127\.0\.0\.1:8000,usr_.*,open,completed,,,,[0-9a-f]{64},"\{""address""/,
  );
});

Deno.test("an export that its client leaves ends, and HEAD has the headers alone", async () => {
  await using world = await openWorld();
  const left = await world.ask(`${AUDIT}/export`);
  await left.body?.cancel();
  const head = await world.ask(`${AUDIT}/export?format=csv`, { method: "HEAD" });
  deepStrictEqual([head.status, head.body], [200, null]);
  strictEqual(head.headers.get("content-disposition"), 'attachment; filename="audit.csv"');
  await world.app.portcullis.log.flush();
  const last = world.app.logLines().filter(({ route }) => route === `${AUDIT}/export`);
  deepStrictEqual(last.map(({ code }) => code), ["client-left", undefined]);
});

Deno.test("the newest signed checkpoint and the keys that verify it are given as the notes that they are", async () => {
  await using world = await openWorld({ PORTCULLIS_AUDIT_CHECKPOINT_ENTRIES: "1" });
  const response = await world.ask(`${AUDIT}/checkpoint`);
  strictEqual(response.headers.get("content-type"), "text/plain; charset=utf-8");
  const note = await response.text();
  match(
    note,
    /^portcullis\.[0-9a-f]{16}\/[0-9a-f]{16}\n\d+\n[A-Za-z0-9+/]{43}=\n\n— portcullis\.[0-9a-f]{16} \S+\n$/,
  );
  const keys = await (await world.ask(`${AUDIT}/keys`)).text();
  match(keys, /^portcullis\.[0-9a-f]{16}\+[0-9a-f]{8}\+[A-Za-z0-9+/]+=*\n$/);
  strictEqual(note.split("\n")[0]?.split("/")[0], keys.split("+")[0]);
});

Deno.test("a sealed trail is searched and given in the clear, and no word of it stands in the data folder", async () => {
  await using world = await openWorld({ PORTCULLIS_AUDIT_AT_REST: "sealed" });
  deepStrictEqual(await world.types(`actor=${world.subject}&type=inference.`), [
    "inference.started",
    "inference.finished",
  ]);
  const text = await (await world.ask(`${AUDIT}/export?type=inference.finished`)).text();
  const { event, seq, hash } = JSON.parse(text);
  strictEqual(event.model, "open");
  const sealed = JSON.parse(trailLines(world.app)[seq - 1] ?? "");
  strictEqual(sealed.hash, hash);
  strictEqual(sealed.event.type, undefined);
  for (const folder of ["audit", "audit-index"]) {
    for (const { name } of Deno.readDirSync(`${world.app.folder}/data/${folder}`)) {
      const bytes = Deno.readFileSync(`${world.app.folder}/data/${folder}/${name}`);
      ok(!new TextDecoder("latin1").decode(bytes).includes(world.subject), name);
    }
  }
});

Deno.test("with pseudonyms for subjects, an actor is found by the subject and by the pseudonym, and the search names the latter", async () => {
  await using world = await openWorld({ PORTCULLIS_AUDIT_SUBJECTS: "pseudonym" });
  const { data } = await world.find(`actor=${world.subject}&type=inference.`);
  strictEqual(data.length, 2);
  const label = String(data[0]?.event.subject);
  ok(label !== world.subject);
  strictEqual((await world.find(`actor=${label}&type=inference.`)).data.length, 2);
  const queries = (await world.find("type=audit.read")).data.map(({ event }) => JSON.stringify(event.query));
  ok(queries.some((query) => query.includes(label)));
  ok(!queries.some((query) => query.includes(world.subject)));
});

Deno.test("with plain addresses, an address is found as it is, and a ban of its network with it", async () => {
  await using world = await openWorld({ PORTCULLIS_AUDIT_ADDRESSES: "plain" });
  const { data } = await world.find(`address=${world.from}`);
  deepStrictEqual(data.map(({ event }) => event.address), [world.from, world.from, world.from]);
});
