// Mutate JSON: an arbitrary of a known value with one part of it, anywhere, replaced by something else or left out.
import fc from "fast-check";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";

/** What stands in the place of a part; undefined: the part is missing. */
const replacement: fc.Arbitrary<JsonValue | undefined> = fc.oneof(
  fc.constantFrom<JsonValue | undefined>(
    undefined,
    null,
    true,
    "",
    "text",
    0,
    -1,
    1.5,
    2 ** 53,
    1e300,
    [],
    {},
    [[]],
    ["a"],
    [null],
    { type: "text" },
    "x".repeat(600),
  ),
  fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<JsonValue>,
);

/** The value with one part replaced. */
export function mutateJson(value: JsonValue): fc.Arbitrary<JsonValue> {
  const places = placesOf(value);
  return fc.tuple(fc.nat(places.length - 1), replacement).map(([index, part]) =>
    replaced(value, places[index] ?? [], part) ?? null
  );
}

function placesOf(value: JsonValue, above: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== "object" || value === null) return [above];
  return [
    above,
    ...Object.entries(value).flatMap(([name, part]) => placesOf(part as JsonValue, [...above, name])),
  ];
}

function replaced(
  value: JsonValue,
  [name, ...below]: readonly string[],
  part: JsonValue | undefined,
): JsonValue | undefined {
  if (name === undefined) return part;
  const copy = structuredClone(value) as Record<string, JsonValue | undefined>;
  const inner = replaced(copy[name] ?? null, below, part);
  if (inner !== undefined) copy[name] = inner;
  else if (Array.isArray(copy)) copy.splice(Number(name), 1);
  else delete copy[name];
  return copy as JsonValue;
}
