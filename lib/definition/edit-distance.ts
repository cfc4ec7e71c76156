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
