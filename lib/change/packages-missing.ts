import { defineError } from "./tributary-error.ts";

/** Packages that a part of Tributary needs, and that are installed only where that part is used. */
export class PackagesMissingError extends defineError("PACKAGES_MISSING", "stop").from(
  (what: string, packages: readonly string[], cause?: unknown) => ({
    // The remedy too: where modules are loaded nobody prints it.
    message: `${what} needs ${packages.join(" and ")}: npm install ${packages.join(" ")}`,
    remedy: `npm install ${packages.join(" ")}`,
    cause,
  }),
) {}
