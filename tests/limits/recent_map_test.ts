// Tests of the recent map: what it keeps, and how much of it.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { RecentMap } from "../../src/limits/recent_map.ts";

Deno.test("property: it holds what was set last, never more than its maximum, and all that fewer than half of that came after", () => {
  const key = fc.nat({ max: 30 }).map(String);
  const step = fc.oneof(
    fc.record({ act: fc.constant("set" as const), key, value: fc.nat() }),
    fc.record({ act: fc.constant("get" as const), key, value: fc.constant(0) }),
    fc.record({ act: fc.constant("delete" as const), key, value: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 12 }), fc.array(step, { maxLength: 200 }), (sizeMax, steps) => {
      const map = new RecentMap<number>(sizeMax);
      const model = new Map<string, number>();
      /** Keys by when they were last seen, the latest last. */
      let seen: string[] = [];
      const see = (each: string) => seen = [...seen.filter((other) => other !== each), each];
      for (const { act, key: each, value } of steps) {
        if (act === "set") {
          map.set(each, value);
          model.set(each, value);
          see(each);
        } else if (act === "delete") {
          map.delete(each);
          model.delete(each);
          seen = seen.filter((other) => other !== each);
        } else {
          const found = map.get(each);
          const isRecent = seen.slice(-(Math.ceil(sizeMax / 2) - 1) || seen.length).includes(each);
          if (found === undefined) {
            ok(!model.has(each) || !isRecent || sizeMax <= 2, "a recent one was forgotten");
          } else {
            strictEqual(found, model.get(each));
            see(each);
          }
        }
        const entries = [...map.entries()];
        ok(entries.length <= sizeMax + 1);
        deepStrictEqual(new Set(entries.map(([name]) => name)).size, entries.length, "an entry twice");
      }
    }),
  );
});
