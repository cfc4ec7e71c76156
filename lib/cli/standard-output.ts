import { constants, fstatSync, openSync } from "node:fs";
import { Socket } from "node:net";
import type { Writable } from "node:stream";

/**
 * Standard output that does not hold the process up. Node writes to a pipe synchronously
 * (https://nodejs.org/api/process.html#a-note-on-process-io): while its reader stands still (`less`), signals and
 * PostgreSQL's keepalives would wait too. Opened by its name the pipe is ours alone, so that its other users do not
 * notice that it does not block. Where there is no /proc, it is the ordinary one.
 */
export function standardOutput(): Writable {
  if (!fstatSync(1).isFIFO()) return process.stdout;
  try {
    const fd = openSync("/proc/self/fd/1", constants.O_WRONLY | constants.O_NONBLOCK);
    return new Socket({ fd, readable: false, writable: true });
  } catch {
    return process.stdout;
  }
}
