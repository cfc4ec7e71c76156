import type { Writable } from "node:stream";
import { type ChangeStream, CONTROL_EVENTS, type SourceChange } from "../change/change-stream.ts";
import type { PositionText } from "../change/position.ts";
import { write } from "./tail-output.ts";

/** Prints the events of a source, and of the one that follows it, as many as are wanted. */
export class TailPrinter {
  readonly #output: Writable;
  readonly #lineOf: (json: string) => string;
  readonly #signal: AbortSignal;
  #left: number;
  #last: PositionText = "";
  #isDone = false;

  constructor(
    output: Writable,
    lineOf: (json: string) => string,
    limit: number | undefined,
    signal: AbortSignal,
  ) {
    this.#output = output;
    this.#lineOf = lineOf;
    this.#left = limit ?? Number.POSITIVE_INFINITY;
    this.#signal = signal;
  }

  /** True once all that was wanted is printed, or nobody reads it any more. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** Prints until the source ends, or nothing more is wanted. What is printed is acknowledged with its commit. */
  async print(source: ChangeStream): Promise<void> {
    for await (const batch of source.changes) {
      const lines: string[] = [];
      let durable: bigint | undefined;
      let done = false;
      for (const message of batch) {
        // Behind the last line its commit may follow: with it acknowledged, the next tail does not print the line again.
        done = this.#left === 0;
        if (message.kind === "commit") durable = message.endPlace;
        else if (message.kind === "idle") durable = message.place;
        if (done) break;
        if (message.kind === "change" && this.#isNew(message)) {
          lines.push(this.#lineOf(`${message.json},"after":null}}`));
          this.#left--;
        }
      }
      if (lines.length > 0 && !(await write(this.#output, `${lines.join("\n")}\n`, this.#signal))) {
        this.#isDone = true;
        return;
      }
      if (durable !== undefined) source.acknowledge(durable);
      this.#isDone = done;
      if (done || this.#signal.aborted) return;
    }
  }

  /** A source that is opened anew begins again with the transaction that its predecessor was in. */
  #isNew({ table, position }: SourceChange): boolean {
    if (table === CONTROL_EVENTS || position <= this.#last) return false;
    this.#last = position;
    return true;
  }
}
