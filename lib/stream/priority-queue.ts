/** Items in order of a number that must not change while they are in: a binary heap, least first. */
export class PriorityQueue<T> {
  readonly #items: { readonly rank: number; readonly item: T }[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** The least rank, or undefined when empty. */
  get leastRank(): number | undefined {
    return this.#items[0]?.rank;
  }

  add(rank: number, item: T): void {
    const items = this.#items;
    let at = items.length;
    const added = { rank, item };
    items.push(added);
    while (at > 0) {
      const above = (at - 1) >> 1;
      const parent = items[above] as typeof added;
      if (parent.rank <= rank) break;
      items[at] = parent;
      at = above;
    }
    items[at] = added;
  }

  /** Takes the item of the least rank, or gives undefined when empty. */
  take(): T | undefined {
    const items = this.#items;
    const least = items[0];
    const last = items.pop();
    if (least === undefined || last === undefined || items.length === 0) return least?.item;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= items.length) break;
      const left = items[below] as typeof last;
      const right = items[below + 1];
      if (right !== undefined && right.rank < left.rank) below++;
      const child = items[below] as typeof last;
      if (child.rank >= last.rank) break;
      items[at] = child;
      at = below;
    }
    items[at] = last;
    return least.item;
  }
}
