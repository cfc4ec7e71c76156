import { defineError } from "../../change/tributary-error.ts";

/** Another living process runs `tributary dev` in this project. */
export class DevRunningError extends defineError("DEV_RUNNING", "stop").from(
  (directory: string, pid: number) => ({
    message: `tributary dev runs already in ${directory}: process ${pid}`,
    remedy: `Use that one, or end it: kill ${pid}`,
    pid,
  }),
) {}

/** The state directory of `tributary dev` was written by another version, or cannot be read. */
export class DevStateVersionError extends defineError("DEV_STATE_VERSION", "stop").from(
  (directory: string, found: string, own: number) => ({
    message: `${directory} was written by another version of tributary dev (${found}; this one writes ${own})`,
    remedy:
      "tributary dev --fresh begins anew: what it holds (position, dead letters, the embedded database) is removed.",
  }),
) {}

/** The state directory of `tributary dev` cannot be made or written. */
export class DevStateUnwritableError extends defineError("DEV_STATE_UNWRITABLE", "stop").from(
  (directory: string, cause: unknown) => ({
    message: `${directory} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`,
    remedy: "Make room on the disk, or give yourself the right to write to that directory; then start again.",
    cause,
  }),
) {}

/** An emulator has ended while the pipeline ran. */
export class DevEmulatorError extends defineError("DEV_EMULATOR", "stop").from(
  (service: string, printed: string) => ({
    message: `The ${service} emulator has ended: ${printed || "it printed nothing"}`,
    remedy: "Start again: the run goes on where it ended. If it stays, report the message above.",
  }),
) {}

/** The state of `tributary dev` does not go with the database any more: changes in between would be missed in silence. */
export class DevStateOtherError extends defineError("DEV_STATE_OTHER", "stop") {}

/** A handler cannot be bundled. */
export class DevBuildError extends defineError("DEV_BUILD", "stop").from((text: string) => ({
  message: `Handlers cannot be built:\n${text}`,
  remedy: `Correct the lines named above${unresolved(text)}, and start again.`,
})) {}

/** Names of packages that the files import and that are not there. */
function unresolved(text: string): string {
  const names = [...text.matchAll(/Could not resolve "((?:@[^/"]+\/)?[^./"][^/"]*)/g)].map(
    ([, name = ""]) => name,
  );
  return names.length === 0
    ? ""
    : ` (a package that is missing: npm install ${[...new Set(names)].join(" ")})`;
}

/** The schema file of the embedded server is refused by it. */
export class DevSchemaError extends defineError("DEV_SCHEMA", "stop") {}

/** The database's server is not this machine's, and something about it is not safe there. */
export class DevRemoteError extends defineError("DEV_REMOTE", "stop") {}
