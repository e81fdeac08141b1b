// Tests of a sink's cursor: whole or not there, whatever happens while it is written.
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { openSinkCursor } from "../../../src/audit/sinks/sink_cursor.ts";

Deno.test("a cursor gives back what was written last, also to the next process, and nothing where nothing ever was", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const cursor = openSinkCursor(directory, "loki");
    strictEqual(cursor.read(), undefined);
    cursor.write({ seq: 1, last: null });
    cursor.write({ seq: 2, last: { hash: "ab" } });
    deepStrictEqual(openSinkCursor(directory, "loki").read(), { seq: 2, last: { hash: "ab" } });
    strictEqual(openSinkCursor(directory, "other").read(), undefined);
    deepStrictEqual([...Deno.readDirSync(directory)].map(({ name }) => name), ["loki.cursor"]);
    strictEqual((Deno.statSync(`${directory}/loki.cursor`).mode ?? 0) & 0o777, 0o600);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("what a crash leaves beside a cursor does not become it, and what somebody else wrote is unreadable, not absent", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const cursor = openSinkCursor(directory, "a");
    cursor.write({ seq: 1 });
    Deno.writeTextFileSync(`${directory}/a.cursor.new`, '{"se');
    deepStrictEqual(openSinkCursor(directory, "a").read(), { seq: 1 });
    for (const text of ["", '{"seq":', "\xff", '{"seq":1,"seq":2}']) {
      Deno.writeTextFileSync(`${directory}/a.cursor`, text);
      strictEqual(openSinkCursor(directory, "a").read(), "unreadable");
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
  throws(() => openSinkCursor(directory, "a").write({ seq: 3 }));
});
