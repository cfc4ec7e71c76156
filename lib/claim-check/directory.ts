import { isAbsolute, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { ClaimStore } from "../change/claim-store.ts";

/** Returns the absolute path that a `file:///` URL names; undefined for all else, and for the root. */
export function directoryOf(url: string): string | undefined {
  if (!url.startsWith("file:///")) return undefined;
  try {
    const path = resolve(fileURLToPath(url));
    return isAbsolute(path) && path !== resolve("/") ? path : undefined;
  } catch {
    return undefined;
  }
}

/** Opens the claims in a directory. Loaded when needed. */
export async function openDirectory(path: string): Promise<ClaimStore> {
  const { DirectoryClaimStore } = await import("./directory-claim-store.ts");
  return new DirectoryClaimStore(path);
}
