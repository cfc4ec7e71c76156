/** Largest request and response of a synchronous invocation, in bytes: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html */
export const MAX_PAYLOAD_BYTES = 6 * 1024 * 1024;

/** Why an invocation failed, as Lambda reports it. The message may hold what the handler put into it: never log it. */
export interface FunctionError {
  /** Class of the thrown error, or `Sandbox.Timedout`, `Runtime.ExitError`, `Runtime.InitError`, `RequestEntityTooLarge`. */
  readonly type: string;
  readonly message: string;
  readonly stack?: string | undefined;
}

/** Outcome of one invocation; `response` is the handler's reply after a way through JSON. */
export type InvocationResult =
  | { readonly ok: true; readonly requestId: string; readonly response: unknown }
  | { readonly ok: false; readonly requestId: string; readonly error: FunctionError };

/** A thrown value, whatever it is, in the form that travels. */
export function errorOf(thrown: unknown): FunctionError {
  try {
    if (thrown instanceof Error) {
      const { name, message, stack } = thrown;
      return {
        type: String(name),
        message: String(message),
        stack: stack === undefined ? undefined : String(stack),
      };
    }
    return { type: typeof thrown, message: String(thrown) };
  } catch {
    // Getters may throw, and an object without a prototype is no text.
    return { type: typeof thrown, message: "what was thrown cannot be read" };
  }
}
