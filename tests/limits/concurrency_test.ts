// Concurrency: places for each client.
import { doesNotThrow, strictEqual, throws } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openConcurrencyLimit } from "../../src/limits/concurrency.ts";

Deno.test("openConcurrencyLimit() gives each client its places, refuses one more, and takes a place back", () => {
  const limit = openConcurrencyLimit(2);
  const [first] = [limit.take("one"), limit.take("one")];
  throws(
    () => limit.take("one"),
    (thrown) =>
      thrown instanceof Fault && thrown.kind === "rate_limited" && thrown.details.retryAfterSeconds === 1,
  );
  doesNotThrow(() => limit.take("two"));
  first?.();
  doesNotThrow(() => limit.take("one"));
});

Deno.test("openConcurrencyLimit() forgets a refused request: it takes no place", () => {
  const limit = openConcurrencyLimit(1);
  const release = limit.take("one");
  for (let tries = 0; tries < 5; tries++) throws(() => limit.take("one"), Fault);
  release();
  let taken = 0;
  doesNotThrow(() => {
    limit.take("one");
    taken++;
  });
  strictEqual(taken, 1);
});
