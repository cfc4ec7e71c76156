/*
 * Replaces `directory.ts` in the bundle of a deployed consumer (package.json's imports): its claims are in S3, so a directory cannot be
 * its claim store.
 */

/** Names no directory. */
export function directoryOf(_url: string): void {}

/** Never called, since no URL names a directory. */
export function openDirectory(_path: string): void {}
