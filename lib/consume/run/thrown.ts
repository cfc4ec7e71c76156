/*
 * Looks at something that was thrown: by users' code, so it can be anything. Every look at it can throw in
 * turn (getters, proxies, `toString`), a text can have megabytes, a chain of causes can be a ring. Nothing here throws, and
 * nothing else in this module's folder reads a thrown value's properties.
 */

/** The least that a look at a thrown value gives. */
export interface ThrownFacts {
  readonly name: string;
  readonly message: string;
  readonly stack: string;
}

const MAX_NAME = 100;
const MAX_MESSAGE = 8 * 1024;
const MAX_STACK = 16 * 1024;
const MAX_CAUSES = 5;

/** Reads a property of anything; undefined where there is none, and where reading it throws. */
export function propertyOf(value: unknown, name: string): unknown {
  try {
    return (value as Readonly<Record<string, unknown>> | null | undefined)?.[name];
  } catch {
    return undefined;
  }
}

/** `instanceof` that does not throw: a proxy may refuse to name its prototype. */
export function isA<T>(value: unknown, type: abstract new (...parts: never[]) => T): value is T {
  try {
    return value instanceof type;
  } catch {
    return false;
  }
}

/** The first of a thrown value and its causes that is of this class. */
export function causeOf<T>(thrown: unknown, type: abstract new (...parts: never[]) => T): T | undefined {
  return chainOfCauses(thrown).find((each): each is T => isA(each, type));
}

/** The class of a thrown value: an error's name, and of what is none its type. */
export function nameOf(thrown: unknown): string {
  if (!isObject(thrown)) return typeof thrown;
  const name = propertyOf(thrown, "name");
  if (typeof name === "string" && name !== "") return name.slice(0, MAX_NAME);
  return isA(thrown, Error) ? "Error" : typeof thrown;
}

/** A thrown value's `code` where it has one that is fit for a log. */
export function codeOf(thrown: unknown): string | undefined {
  const code = isObject(thrown) ? propertyOf(thrown, "code") : undefined;
  return typeof code === "string" && /^[\w-]{1,60}$/.test(code) ? code : undefined;
}

/** Describes a thrown value, its causes behind the stack; bounded. Name and message are texts, always. */
export function factsOf(thrown: unknown): ThrownFacts {
  const stacks = chainOfCauses(thrown).filter(isObject).map(stackOf);
  return {
    name: nameOf(thrown),
    message: messageOf(thrown),
    stack: stacks.join("\nCaused by: ").slice(0, MAX_STACK),
  };
}

/** The value, its cause, that one's, and so on: each once. */
function chainOfCauses(thrown: unknown): unknown[] {
  const chain = new Set<unknown>();
  for (let at = thrown; chain.size < MAX_CAUSES && !chain.has(at); at = propertyOf(at, "cause")) {
    if (chain.size > 0 && at === undefined) break;
    chain.add(at);
    if (!isObject(at)) break;
  }
  return [...chain];
}

function stackOf(value: object): string {
  const stack = propertyOf(value, "stack");
  if (typeof stack === "string") return stack.slice(0, MAX_STACK);
  return isA(value, Error) ? `${nameOf(value)}: ${messageOf(value)}` : "";
}

function messageOf(thrown: unknown): string {
  if (!isObject(thrown)) return textOf(thrown);
  const message = propertyOf(thrown, "message");
  return message === undefined && !isA(thrown, Error) ? textOf(thrown) : textOf(message);
}

function textOf(value: unknown): string {
  try {
    return String(value).slice(0, MAX_MESSAGE);
  } catch {
    // Without a prototype, or with a toString that throws.
    return typeof value;
  }
}

function isObject(value: unknown): value is object {
  return (typeof value === "object" && value !== null) || typeof value === "function";
}
