import type { SourceMessage } from "../../../change/change-stream.ts";
import { TributaryError } from "../../../change/tributary-error.ts";
import { isOfItsContent, offerToPutAside } from "../decode/decode-errors.ts";
import type { HeldMessage } from "../hold/held-change.ts";
import type { HeldTopics } from "../hold/held-topics.ts";
import type { Asides } from "./asides.ts";
import { PutAsideBefore } from "./put-aside-before.ts";

/** Decides what becomes of a change that cannot become an event: it is put aside, or its topic is held, or the stream ends at it. */
export class UndecodableChanges {
  readonly #asides: Asides | undefined;
  readonly #holds: HeldTopics | undefined;
  readonly #cut: AbortSignal;

  /** `cut`: from then on nothing is given any more. */
  constructor(asides: Asides | undefined, holds: HeldTopics | undefined, cut: AbortSignal) {
    this.#asides = asides;
    this.#holds = holds;
    this.#cut = cut;
  }

  /** Puts into `out` what stands in the change's place, if anything. Returns false where the stream ends at it. */
  take(change: HeldMessage, error: Error, out: SourceMessage[]): boolean {
    const [asides, holds] = [this.#asides, this.#holds];
    if (asides?.takes(change, error)) {
      out.push(asides.put(change, error));
      return true;
    }
    if (!(error instanceof TributaryError)) return false;
    holds?.put(change, error, out.length);
    if (!holds && asides && isOfItsContent(error)) offerToPutAside(error, change.position);
    return holds !== undefined;
  }

  /** The same for a change that comes out of its topic's hold; `error`: why it still cannot become an event, if so. */
  async takeHeld(change: HeldMessage, error: Error | undefined, out: SourceMessage[]): Promise<boolean> {
    const asides = this.#asides;
    if (!asides) return false;
    if (error) await asides.look();
    if (!(error ? asides.takes(change, error) : asides.knows(change))) return false;
    out.push(asides.put(change, error ?? new PutAsideBefore()));
    await asides.settle(this.#cut);
    return true;
  }
}
