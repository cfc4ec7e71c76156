/**
 * Arguments of the capture program's Node, wherever it runs (docs/13-speed.md says what each is worth):
 * - The young generation stays small: what lives for a batch alone is thrown away just as fast from 16 MB, and left alone it
 *   grows to 128 MB on a large machine.
 * - Its collection is the main thread's alone: next to nothing survives one, and waiting for helping threads takes longer
 *   than the work where processors are few.
 * - The whole heap is not looked through before it has 96 MB, buffers outside of it included: what is used again
 *   (tens of megabytes) would have it looked through several times a second, in vain.
 *
 * https://nodejs.org/api/cli.html#--max-semi-space-sizesize-in-mib; the others are V8's (`node --v8-options`).
 */
export const NODE_ARGUMENTS: readonly string[] = [
  "--max-semi-space-size=8",
  "--no-parallel-scavenge",
  "--initial-heap-size=96",
];
