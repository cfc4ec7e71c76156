import { appendFileSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import type { PositionText } from "../../change/position.ts";
import { murmur3 } from "../../change/topic.ts";

/** Ways in which a handler of the checker fails. `hang` waits for ever, `block` stops the event loop. */
const MISCHIEF = ["throw", "hang", "block", "exit", "kill", "memory", "slow"] as const;

/** A kind of failure of handlers, its rate and its place: written to a file by the checker, read by each invocation. */
export interface Mischief {
  readonly kind: (typeof MISCHIEF)[number];
  /** Share of the events that it meets. */
  readonly share: number;
  readonly when: "before" | "after";
}

/** The file whose size tells how often mischief was met. */
export function mischiefCount(file: string): string {
  return `${file}.met`;
}

/** Reads the file anew at each invocation; no file is no mischief. */
export class MischiefMaker {
  readonly #file: string | undefined;
  #current: Mischief | undefined;

  constructor(file: string | undefined) {
    this.#file = file;
  }

  /** At the start of an invocation. */
  look(): void {
    if (!this.#file) return;
    try {
      this.#current = JSON.parse(readFileSync(this.#file, "utf8")) as Mischief;
    } catch {
      this.#current = undefined;
    }
  }

  /** Before or after an effect. */
  async meet(when: Mischief["when"]): Promise<void> {
    const mischief = this.#current;
    if (!mischief || mischief.when !== when || Math.random() >= mischief.share) return;
    // One byte each: how often it happened must survive what happens next.
    appendFileSync(mischiefCount(this.#file ?? ""), ".");
    switch (mischief.kind) {
      case "throw":
        throw new Error("mischief");
      case "hang":
        return await new Promise<void>(() => {});
      case "block":
        for (;;);
      case "exit":
        return process.exit(3);
      case "kill":
        process.kill(process.pid, "SIGKILL");
        return await new Promise<void>(() => {});
      case "memory": {
        const hoard: unknown[] = [];
        for (;;) hoard.push(new Array(100_000).fill(hoard.length));
      }
      case "slow":
        await delay(300);
    }
  }
}

/** Changes on which the checker's handler `dead-letters` fails every time: one in forty. */
export function isPoisoned(position: PositionText): boolean {
  return murmur3(position) % 40 === 0;
}
