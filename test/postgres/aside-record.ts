import type {
  Aside,
  AsideLetter,
  AsideQueue,
  AsideRecord,
} from "../../lib/source/postgres/aside/aside-record.ts";

/** Changes that were put aside in memory, the operator who wants more, and the queue of their dead letters. */
export class MemoryAsides implements AsideRecord, AsideQueue {
  readonly asides = new Map<string, Aside>();
  readonly wishes = new Set<string>();
  readonly letters: (AsideLetter & { readonly bytes: Buffer })[] = [];
  /** Thrown by the next letters when set. */
  failure: Error | undefined;
  /** Thrown by the next writes of the record when set. */
  writing: Error | undefined;
  /** `record`, `letter` as they came. */
  readonly order: string[] = [];

  async list() {
    return [...this.asides.values()];
  }

  async write(aside: Aside): Promise<void> {
    if (this.writing) throw this.writing;
    this.order.push(`record ${aside.sent ? "sent" : "first"}`);
    this.asides.set(aside.position, JSON.parse(JSON.stringify(aside)));
  }

  async remove({ position }: Aside): Promise<void> {
    this.asides.delete(position);
  }

  async wanted() {
    return [...this.wishes];
  }

  async met(position: string): Promise<void> {
    this.wishes.delete(position);
  }

  async send(letter: AsideLetter, message: Buffer): Promise<void> {
    if (this.failure) throw this.failure;
    this.order.push("letter");
    this.letters.push({ ...JSON.parse(JSON.stringify(letter)), bytes: Buffer.from(message) });
  }
}
