/** Returns what a line says that is JSON; undefined where it is none, as when a handler printed it in pieces. */
export function parsedLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
