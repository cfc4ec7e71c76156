/** Findings of each kind that are kept in words. */
const EXAMPLES = 5;

/** Counts findings by kind, and keeps the first of each kind in words. */
export class Tally<Kind extends string> {
  readonly counts: Record<Kind, number>;
  readonly examples: string[] = [];

  constructor(...kinds: readonly Kind[]) {
    this.counts = Object.fromEntries(kinds.map((kind) => [kind, 0])) as Record<Kind, number>;
  }

  /** Counts one finding, described by positions and names: no values. */
  report(kind: Kind, text: string): void {
    if (this.counts[kind]++ < EXAMPLES) this.examples.push(`${kind}: ${text}`);
  }
}
