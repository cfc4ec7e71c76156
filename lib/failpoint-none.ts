import type { Failpoint } from "./failpoint.ts";

/** Replaces `failpoint` in the bundle of a deployed consumer (package.json's imports): esbuild removes the calls of an empty function. */
export function failpoint(_name: Failpoint): void {}
