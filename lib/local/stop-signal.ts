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
