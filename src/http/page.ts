// Page: the query of every list, and the form of its answer.
import { z } from "@hono/zod-openapi";

const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 200;

/** `?after=ID&limit=N`: what comes behind an id, at most so many. */
export const pageQuery = z.strictObject({
  after: z.string().regex(/^[\x21-\x7e]{1,128}$/, "is no `next` of a page").optional().describe(
    "The `next` of the page before.",
  ),
  limit: z.string().regex(/^[1-9]\d{0,2}$/, "is no whole number from 1 to 200").transform(Number)
    .refine((limit) => limit <= LIMIT_MAX, "is no whole number from 1 to 200")
    .optional().describe(`Default ${LIMIT_DEFAULT}, at most ${LIMIT_MAX}.`),
});

/** A page as it is asked for. */
export interface Page {
  readonly after: string | undefined;
  readonly limit: number;
}

/** The query with its defaults. */
export function pageOf({ after, limit }: z.infer<typeof pageQuery>): Page {
  return { after, limit: limit ?? LIMIT_DEFAULT };
}

/** The answer of a list: `next` goes into `after`, and is null on the last page. */
export function pageSchema<Item extends z.ZodType>(item: Item) {
  return z.strictObject({ data: z.array(item), next: z.string().nullable() });
}

/**
 * A page of what passes a filter, however long the way there. Whatever is skipped costs a look, so that the order of
 * keys holds over pages.
 *
 * @param read the entries after a key, in their order, at most so many
 */
export async function readPage<Item>(
  { after, limit }: Page,
  read: (page: { readonly after?: string; readonly limit: number }) => Promise<readonly Item[]>,
  keyOf: (item: Item) => string,
  isOpen: (item: Item) => boolean,
): Promise<{ readonly data: readonly Item[]; readonly next: string | null }> {
  const found: Item[] = [];
  for (let from = after;;) {
    const items = await read(from === undefined ? { limit: LIMIT_MAX } : { after: from, limit: LIMIT_MAX });
    for (const item of items) {
      if (!isOpen(item)) continue;
      // One more than asked for: there is a next page.
      if (found.length === limit) return { data: found, next: keyOf(found[limit - 1] ?? item) };
      found.push(item);
    }
    const last = items.at(-1);
    if (last === undefined || items.length < LIMIT_MAX) return { data: found, next: null };
    from = keyOf(last);
  }
}
