import { spawn } from "node:child_process";
import { fstatSync } from "node:fs";

/**
 * Calls `gone` once nobody reads the pipe that standard output is. A write would tell, but between two events there
 * is none, and Node offers no poll(2). GNU `tail -f` ends by SIGPIPE when the pipe it writes to loses its reader
 * (coreutils, "tail invocation"); where there is none, the next write tells. Gives what ends the watching.
 */
export function whenReaderLeaves(gone: () => void): () => void {
  if (!fstatSync(1).isFIFO()) return () => {};
  const watcher = spawn("tail", ["--pid", String(process.pid), "-f", "/dev/null"], {
    stdio: ["ignore", "inherit", "ignore"],
    // A Ctrl-C is for us: the watcher ends with us.
    detached: true,
  });
  watcher.on("error", () => {});
  watcher.on("exit", (_code, signal) => {
    if (signal === "SIGPIPE") gone();
  });
  watcher.unref();
  return () => watcher.kill("SIGKILL");
}
