/** Returns how many letters must be added, left out or replaced, or neighbours swapped, until one text is the other. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const differs = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min(number(last[j]) + 1, number(row[j - 1]) + 1, number(last[j - 1]) + differs);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, number(before[j - 2]) + 1);
      row.push(least);
    }
    before = last;
    last = row;
  }
  return number(last[b.length]);
}

function number(value: number | undefined): number {
  return value ?? 0;
}

/**
 * Returns the names that an unknown one was probably meant to be, nearest first, upper and lower case alike: a third of its letters may be
 * wrong, and two in any case. Of names that are equally near the first ones come first.
 */
export function nearNames(
  unknown: string,
  names: readonly string[],
  most: number,
  distance: (unknown: string, name: string) => number = editDistance,
): readonly string[] {
  const text = unknown.toLowerCase();
  const bound = Math.max(2, Math.floor(text.length / 3));
  return names
    .map((name) => ({ name, distance: distance(text, name.toLowerCase()) }))
    .filter((each) => each.distance <= bound)
    .toSorted((a, b) => a.distance - b.distance)
    .slice(0, most)
    .map(({ name }) => name);
}
