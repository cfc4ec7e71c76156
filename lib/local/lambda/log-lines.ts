import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";

/** Longest line that is kept together, in characters: what CloudWatch takes as one event. */
const MAX_LINE = 256 * 1024;

/** Gives each line of a stream to `onLine`, without its end; a longer one than 256 K characters is cut in pieces. */
export function forwardLines(stream: Readable, onLine: (line: string) => void): void {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  stream.on("data", (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split("\n");
    rest = lines.pop() as string;
    for (const line of lines) onLine(line);
    for (; rest.length > MAX_LINE; rest = rest.slice(MAX_LINE)) onLine(rest.slice(0, MAX_LINE));
  });
  stream.on("end", () => {
    if (rest !== "") onLine(rest);
  });
  stream.on("error", () => {});
}
