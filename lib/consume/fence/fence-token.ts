/*
 * The token of a partition, attribute `t<p>` of the fence item (rule 37). It is never removed and only grows, so a late
 * duplicate of a request that has taken effect before is refused:
 *
 *   ~0mibk5x2q:kJ1x8Qm0aWbq3N9e:0    held by an invocation, which has written nothing since it took the partition
 *   ~0mibk5x2q|                      given back; sorts behind every form in which it was held
 *
 * The counter comes from the clock, and where that is not ahead of what is stored, from what is stored. Older
 * libraries write random base64url and remove it when they give back: `~` sorts behind all of those, and what does not
 * begin with it is held.
 */

const COUNTER_WIDTH = 9;
const TOKEN = /^~([0-9a-z]{9})(?::.+|\|)$/;

/** A character of every token that was given back, and of no other. */
export const GIVEN_BACK = "|";

/** The token of one partition while one invocation holds it. */
export class FenceToken {
  readonly #counter: string;
  readonly #owner: string;
  /** The partition's parked keys as the fence holds or names them, and the list that this is. */
  list: { readonly stored: string | undefined; readonly keys: string | undefined } = {
    stored: undefined,
    keys: undefined,
  };
  /** The partition's hold as the fence has it. */
  hold: string | undefined;
  #held = 0;
  #issued = 0;

  constructor(counter: number, owner: string) {
    this.#counter = counter.toString(36).padStart(COUNTER_WIDTH, "0");
    this.#owner = owner;
  }

  /** The token that the fence holds now. */
  get held(): string {
    return this.#text(this.#held);
  }

  /** The token that the fence holds once the partition is given back. */
  get givenBack(): string {
    return `~${this.#counter}${GIVEN_BACK}`;
  }

  /** Returns the token of the next write that keeps the partition: one that no write had before, refused ones included. */
  issue(): string {
    return this.#text(++this.#issued);
  }

  /** The write whose token was issued last has been carried out. */
  advance(): void {
    this.#held = this.#issued;
  }

  #text(write: number): string {
    return `~${this.#counter}:${this.#owner}:${write}`;
  }
}

/** Returns whether the partition's last owner has not given it back: it died, or still runs. */
export function isHeld(stored: string | undefined): stored is string {
  return stored !== undefined && !(TOKEN.test(stored) && stored.endsWith(GIVEN_BACK));
}

/** The smallest counter that is ahead of these tokens, and of the clock. */
export function counterAhead(stored: readonly (string | undefined)[]): number {
  const counters = stored.map((text) => Number.parseInt(TOKEN.exec(text ?? "")?.[1] ?? "0", 36));
  return Math.max(Date.now(), ...counters.map((counter) => counter + 1));
}
