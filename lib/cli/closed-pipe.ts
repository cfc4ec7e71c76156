import { close, constants, fstatSync, open } from "node:fs";

const LOOK_MS = 500;

/**
 * Calls `gone` once nobody reads the pipe that standard output is. A write would tell, but between two events there
 * is none. Linux refuses to open a pipe for writing that has no reader (ENXIO, fifo(7)); where standard output is
 * something else, or the system another, the next write tells.
 */
export function whenReaderLeaves(gone: () => void): void {
  if (process.platform !== "linux" || !fstatSync(1).isFIFO()) return;
  const timer = setInterval(() => {
    open("/proc/self/fd/1", constants.O_WRONLY | constants.O_NONBLOCK, (error, fd) => {
      if (!error) return close(fd);
      if (error.code !== "ENXIO") return;
      clearInterval(timer);
      gone();
    });
  }, LOOK_MS);
  timer.unref();
}
