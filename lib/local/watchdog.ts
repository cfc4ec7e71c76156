import { type ChildProcess, spawn } from "node:child_process";
import { serverUser } from "./server-user.ts";

/*
 * A shell that waits for the end of its standard input, which comes with the end of our process, whatever ended
 * it. Then it stops the server by the process id that stands in the data directory, and clears the directory
 * away where it is a temporary one.
 */
const SCRIPT = `
read -r word
[ "$word" = done ] && exit 0
[ -f "$1/postmaster.pid" ] && read -r pid < "$1/postmaster.pid" && kill -"$2" "$pid"
[ "$3" = keep ] && exit 0
tries=0
while [ -f "$1/postmaster.pid" ] && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
rm -rf "$1"
`;

/** Guards a server against the sudden end of our process. */
export interface Watchdog {
  /** The server was stopped properly: nothing to do any more. */
  dismiss(): void;
}

/**
 * Starts a watchdog over the server of a data directory. When our process ends without `dismiss`, the server is
 * stopped: at once where the directory is temporary (it is removed), fast where it is kept.
 */
export function watchOver(dataDirectory: string, temporary: boolean): Watchdog {
  const child: ChildProcess = spawn(
    "/bin/sh",
    [
      "-c",
      SCRIPT,
      "tributary-watchdog",
      dataDirectory,
      temporary ? "QUIT" : "INT",
      temporary ? "remove" : "keep",
    ],
    {
      ...serverUser(),
      cwd: "/",
      env: { PATH: "/usr/bin:/bin" },
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
    },
  );
  child.on("error", () => {});
  child.stdin?.on("error", () => {});
  child.unref();
  (child.stdin as unknown as { unref?: () => void } | null)?.unref?.();
  return { dismiss: () => void child.stdin?.end("done\n") };
}
