/**
 * What the capture program's Node is started with. The young generation stays small: what lives for a batch alone is thrown
 * away just as fast from 16 MB, and left alone it grows to 128 MB on a large machine (docs/13-speed.md).
 * https://nodejs.org/api/cli.html#--max-semi-space-sizesize-in-mib
 */
export const NODE_ARGUMENTS: readonly string[] = ["--max-semi-space-size=8"];
