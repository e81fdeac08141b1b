// Tests of what is under way: by model, so that no engine is closed under what runs on it or may yet come to it.
import { deepStrictEqual, rejects } from "node:assert/strict";
import { CHAT, openGateway, servedModel } from "./gateway_under_test.ts";

Deno.test("an inference counts for its model and for those that stand in for it, from its admission to its end", async () => {
  const { act, engine, context } = openGateway([
    servedModel({ id: "a", fallbacks: ["b"] }),
    servedModel({ id: "b" }),
    servedModel({ id: "c" }),
  ]);
  const counts = () => [...["a", "b", "c"].map((id) => act.underWayOn(id)), act.underWay()];
  deepStrictEqual(counts(), [0, 0, 0, 0]);
  engine("a").batches = [[{ type: "text", choice: 0, text: "one" }], []];
  const stream = await act.stream<"chat">("a", CHAT, context());
  deepStrictEqual(counts(), [1, 1, 0, 1]);
  engine("b").batches = [[], []];
  const other = await act.stream<"chat">("b", CHAT, context());
  deepStrictEqual(counts(), [1, 2, 0, 2]);
  while (await stream.next() !== undefined);
  deepStrictEqual(counts(), [0, 1, 0, 1]);
  act.stop();
  await rejects(other.next());
  deepStrictEqual(counts(), [0, 0, 0, 0]);
});
