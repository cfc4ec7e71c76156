/** Bytes of rows that a page holds, at most (one row may be larger). */
export const PAGE_BYTES = 4 * 1024 * 1024;

/** Cuts rows into pages of bounded bytes. */
export function* inPages<T extends { readonly bytes: number }>(rows: readonly T[]): Generator<readonly T[]> {
  let page: T[] = [];
  let bytes = 0;
  for (const row of rows) {
    if (page.length > 0 && bytes + row.bytes > PAGE_BYTES) {
      yield page;
      page = [];
      bytes = 0;
    }
    page.push(row);
    bytes += row.bytes;
  }
  if (page.length > 0) yield page;
}
