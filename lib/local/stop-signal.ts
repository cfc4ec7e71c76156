/** Ctrl-C comes from the terminal and once more from npm, which passes it on: that is not a second one. */
const SAME_SIGNAL_MS = 500;

/** Aborts the controller at the first Ctrl-C, SIGTERM or SIGHUP. A second one ends the process, and every part with it. */
export function abortOnSignals(stopping: AbortController): void {
  let since = Number.POSITIVE_INFINITY;
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      const now = performance.now();
      if (now - since > SAME_SIGNAL_MS) process.exit(130);
      since = Math.min(since, now);
      stopping.abort();
    });
  }
}

/** How often a run of an npm script looks whether npm is still there. */
const LOOK_MS = 500;

/**
 * Aborts the controller when this process runs in a script of npm and the shell that npm began it with has ended. npm passes a SIGTERM
 * on to that shell alone, which ends without a word to us. Outside of npm nothing is watched: `nohup … &` outlives its shell.
 */
export function abortWithNpm(stopping: AbortController, variables = process.env): void {
  if (variables.npm_lifecycle_event === undefined) return;
  const shell = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === shell) return;
    clearInterval(watch);
    stopping.abort();
  }, LOOK_MS).unref();
}
