// Bounded list: a list in a schema that is looked at no further once it has enough mistakes to tell of.
import type { z } from "@hono/zod-openapi";

/** A mistake costs a hundred times what a right element does: tens of thousands of them would hold a core for a second. */
export const MISTAKES_MAX = 8;

/**
 * The same list, made to stop where `MISTAKES_MAX` of its mistakes are known. To be called on the finished list, whose longest
 * length it has to know: what is chained to it makes another one.
 */
export function boundedList<Element extends z.core.SomeType>(list: z.ZodArray<Element>): z.ZodArray<Element> {
  const element = list._zod.def.element._zod;
  const lengthMax = lengthMaxOf(list);
  const { parse } = list._zod;
  const bounded: typeof parse = (payload, context) => {
    const { value: input } = payload;
    // It says what is wrong with these without a look at an element.
    if (!Array.isArray(input) || input.length > lengthMax) return parse(payload, context);
    const values: unknown[] = [];
    payload.value = values as typeof payload.value;
    for (const [index, value] of input.entries()) {
      const result = element.run({ value, issues: [] }, context);
      if (result instanceof Promise) {
        throw new TypeError("Cannot check a list: its elements are checked later");
      }
      for (const issue of result.issues) {
        payload.issues.push({ ...issue, path: [index, ...issue.path ?? []] });
      }
      if (payload.issues.length >= MISTAKES_MAX) break;
      values.push(result.value);
    }
    return payload;
  };
  // The library puts quicker parsers in the place of its own after some calls; this one stays.
  Object.defineProperty(list._zod, "parse", { get: () => bounded, set: () => undefined });
  return list;
}

function lengthMaxOf(list: z.ZodArray<z.core.SomeType>): number {
  const maxima = (list._zod.def.checks ?? []).map(({ _zod: { def } }) =>
    "maximum" in def && typeof def.maximum === "number" ? def.maximum : Infinity
  );
  return Math.min(...maxima);
}
