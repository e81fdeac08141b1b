// Next turn: lets whatever else this process does go on between the parts of a long piece of work.

/** Resolves when the event loop has gone round once. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/**
 * The items one by one, with a turn of the event loop after each so many.
 *
 * @param atOnceMax how many are worked on in one turn; what is done with one takes some microseconds
 */
export async function* inTurns<Item>(items: Iterable<Item>, atOnceMax = 1000): AsyncGenerator<Item> {
  let left = atOnceMax;
  for (const item of items) {
    if (--left < 0) {
      left = atOnceMax - 1;
      await nextTurn();
    }
    yield item;
  }
}
