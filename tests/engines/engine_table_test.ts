// Tests of the engine table.
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import type { Engine, EngineState } from "../../src/engines/engine.ts";
import { createEngineTable } from "../../src/engines/engine_table.ts";

function engine(modelId: string): Engine {
  let state: EngineState = "ready";
  return {
    modelId,
    state: () => state,
    run: () => Promise.reject(new Error("not called")),
    stream: () => Promise.reject(new Error("not called")),
    close: () => {
      state = "closed";
      return Promise.resolve();
    },
  };
}

Deno.test("a table finds an engine by its model and nothing else, tells all states, and closes all", async () => {
  const [first, second] = [engine("first"), engine("second")];
  const table = createEngineTable([first, second]);
  strictEqual(table.get("second"), second);
  strictEqual(table.get("third"), undefined);
  strictEqual(table.get("constructor"), undefined);
  await table.close();
  deepStrictEqual(table.states(), [
    { modelId: "first", state: "closed" },
    { modelId: "second", state: "closed" },
  ]);
});

Deno.test("a table refuses two engines for one model", () => {
  throws(() => createEngineTable([engine("same"), engine("same")]), /two engines/);
});

Deno.test("engines come and go: the last one that was put computes, and only what is still there is taken out or closed", async () => {
  const [first, second, other] = [engine("same"), engine("same"), engine("other")];
  const table = createEngineTable([first]);
  table.put(second);
  table.put(other);
  strictEqual(table.get("same"), second);
  table.remove(first);
  strictEqual(table.get("same"), second);
  table.remove(other);
  deepStrictEqual(table.states(), [{ modelId: "same", state: "ready" }]);
  await table.close();
  deepStrictEqual([first, second, other].map((each) => each.state()), ["ready", "closed", "ready"]);
});
