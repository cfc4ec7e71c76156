import { createRequire } from "node:module";
import { LocalPartsMissingError } from "./local-errors.ts";

/** The parts that `tributary-cdc-local` offers: an embedded PostgreSQL, and emulators of what a pipeline uses of AWS. */
export type LocalParts = typeof import("./parts.ts");

/**
 * Loads the emulators and the embedded PostgreSQL, which are a package of their own: a deployed pipeline needs neither.
 * Nothing else in tributary-cdc imports them but for their types.
 *
 * @throws LocalPartsMissingError where the package is not installed.
 */
export async function localParts(
  load: () => Promise<LocalParts> = () => import("#local"),
): Promise<LocalParts> {
  try {
    return await load();
  } catch (error) {
    // A package that it needs itself may be missing too: that is another error.
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ERR_MODULE_NOT_FOUND" || !message.includes("'tributary-cdc-local'")) throw error;
    throw new LocalPartsMissingError(ownVersion(), error);
  }
}

/** The version of tributary-cdc that this file belongs to. */
function ownVersion(): string {
  return (createRequire(import.meta.url)("../../package.json") as { version: string }).version;
}
