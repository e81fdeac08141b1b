// Some of all: whether anything that is listed page by page is of a kind.

const PAGE = 200;

/** Looks at each of them until one is. */
export async function someOfAll<Item extends { readonly id: string }>(
  list: (page: { readonly after?: string; readonly limit: number }) => Promise<readonly Item[]>,
  isOfKind: (item: Item) => boolean,
): Promise<boolean> {
  let after: string | undefined;
  do {
    const items = await list(after === undefined ? { limit: PAGE } : { after, limit: PAGE });
    if (items.some(isOfKind)) return true;
    after = items.length < PAGE ? undefined : items.at(-1)?.id;
  } while (after !== undefined);
  return false;
}
