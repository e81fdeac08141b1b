// Sum pages: a book of sums read in portions, so that between two of them decisions have their turns.

/** Sums by their keys. */
export type SumPage = readonly (readonly [key: string, sum: number])[];

/** Where sums are read from. */
export interface SumPages {
  /** At most `SUM_PAGE_MAX` sums of a book in the order of their keys, from this key on ("": from the first). */
  sumsFrom(book: string, key: string): Promise<SumPage> | SumPage;
  /** The sums of at most `SUM_PAGE_MAX` keys. */
  sumsOf(book: string, keys: readonly string[]): Promise<SumPage> | SumPage;
}

/** Reading so many takes about a millisecond. */
export const SUM_PAGE_MAX = 500;

/**
 * As `LimitStore.sums`.
 *
 * @param between awaited after each page but the last
 */
export async function sumsByPages(
  pages: SumPages,
  between: () => Promise<void> | void,
  book: string,
  keys?: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const sums = new Map<string, number>();
  function add(page: SumPage): void {
    for (const [key, sum] of page) if (sum > 0) sums.set(key, sum);
  }
  if (keys !== undefined) {
    for (let from = 0; from < keys.length; from += SUM_PAGE_MAX) {
      if (from > 0) await between();
      add(await pages.sumsOf(book, keys.slice(from, from + SUM_PAGE_MAX)));
    }
    return sums;
  }
  // Where a page is full, the next begins with its last key.
  for (let from = "";;) {
    const page = await pages.sumsFrom(book, from);
    add(page);
    const last = page.at(-1)?.[0];
    if (last === undefined || page.length < SUM_PAGE_MAX) return sums;
    from = last;
    await between();
  }
}
