/** Milliseconds that an answer may take to the runtime's own process; it is the same machine. */
const ANSWER_MS = 100;

let ending = false;

/**
 * Ends this process once its invocation was answered, where Lambda starts another: a call that nobody waits for any more
 * cannot be stopped otherwise. Left alone it would be frozen with the sandbox, and go on in the middle of another invocation.
 * Elsewhere nothing happens: the process is not ours to end.
 */
export function endAfterAnswer(environment: Readonly<Record<string, string | undefined>>): void {
  if (ending || environment.AWS_LAMBDA_RUNTIME_API === undefined) return;
  ending = true;
  // Lost with its answer, the batch comes again: what took effect is on record. 1, so that it counts as an error.
  setTimeout(() => process.exit(1), ANSWER_MS);
}

/** An invocation that comes meanwhile, or after the sandbox was frozen before its time, goes to the next process. */
export function endIfEnding(): void {
  if (ending) process.exit(1);
}
