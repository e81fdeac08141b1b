// Bounded map: what caches keep of many, by the order in which it was put there.

/** Puts a value behind all others; beyond the maximum the oldest goes (a Map keeps the order of insertion). */
export function keepNewest<Value>(map: Map<string, Value>, key: string, value: Value, max: number): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > max) map.delete(map.keys().next().value ?? "");
}
