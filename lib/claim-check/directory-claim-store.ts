import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, sep } from "node:path";
import { pathToFileURL } from "node:url";
import type { ClaimCheck } from "../change/claim-check.ts";
import { type ClaimStore, checkClaimSize, verifyClaim } from "../change/claim-store.ts";
import { ClaimMismatchError, ClaimMissingError } from "../change/record-errors.ts";
import { TributaryError } from "../change/tributary-error.ts";
import { ClaimStoreRefusedError, ClaimStoreUnavailableError } from "./claim-check-errors.ts";

/** Claims as files below a directory: for one machine, or a file system that capture and consumers share. */
export class DirectoryClaimStore implements ClaimStore {
  readonly bucket: string;
  readonly prefix = "";
  readonly #directory: string;

  /** `directory` is an absolute path; it is made when the first claim is stored. */
  constructor(directory: string) {
    this.#directory = directory;
    this.bucket = pathToFileURL(directory).href;
  }

  async put(claim: ClaimCheck, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    const path = this.#path(claim);
    const unfinished = `${path}.${randomBytes(6).toString("hex")}`;
    try {
      await mkdir(dirname(path), { recursive: true });
      // Whole or not at all, also for readers at this moment.
      await writeFile(unfinished, bytes, { flush: true, signal });
      await rename(unfinished, path);
    } catch (error) {
      await rm(unfinished, { force: true }).catch(() => {});
      throw judge(error, claim);
    }
  }

  async get(claim: ClaimCheck, signal: AbortSignal): Promise<Uint8Array> {
    try {
      const file = await open(this.#path(claim));
      try {
        checkClaimSize(claim, (await file.stat()).size);
        return verifyClaim(claim, await file.readFile({ signal }));
      } finally {
        await file.close();
      }
    } catch (error) {
      throw judge(error, claim);
    }
  }

  /** The key comes from a record: it must not lead out of the directory. */
  #path(claim: ClaimCheck): string {
    const path = join(this.#directory, claim.key);
    if (!path.startsWith(this.#directory + sep))
      throw new ClaimMismatchError(claim, "its key leaves the directory");
    return path;
  }
}

/** Errors that an operator must correct; all others (no space, too many open files) may pass. */
const REFUSED = new Set(["EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP"]);

function judge(error: unknown, claim: ClaimCheck): TributaryError {
  if (error instanceof TributaryError) return error;
  const { code, name } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return new ClaimMissingError(claim);
  if (code !== undefined && REFUSED.has(code)) return new ClaimStoreRefusedError(claim.bucket, code, error);
  return new ClaimStoreUnavailableError(claim.bucket, code ?? name, error);
}
