/** Message of the error that the handler of `notifications` throws for the one reason of cancellation that it has no letter for. */
const INTENDED = /^notifications: .*there is no letter for this reason of cancellation/s;

/** Marks the failures that the demo has on purpose: told whole the first time, then a dead letter in a line. */
export class IntendedFailures {
  #isShown = false;

  /** Returns what is shown of a log's text; undefined for nothing. */
  note(text: string): string | undefined {
    if (!INTENDED.test(text)) return text;
    if (this.#isShown)
      return text.includes(": dead letter: ")
        ? text.replace(/\n.*/s, "").replace(":", " (intended):")
        : undefined;
    this.#isShown = true;
    return `${text}\n  Intended: the demo cancels some orders for a reason that notifications cannot write about, to show a dead letter.`;
  }
}
