import { chown, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname } from "node:path";

/** Whom a server runs as; nothing set means ourselves. */
export interface ServerUser {
  readonly uid?: number;
  readonly gid?: number;
}

/** Nobody where we are root, since PostgreSQL refuses to run as root; else ourselves. */
export function serverUser(): ServerUser {
  return process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
}

/** Makes a file or directory the server user's. */
export async function giveToServer(path: string): Promise<void> {
  const { uid, gid } = serverUser();
  if (uid !== undefined && gid !== undefined) await chown(path, uid, gid);
}

/** Directories for what is temporary, best first: `TMPDIR` may lie in a home that the server user cannot enter. */
export function temporaryPlaces(): string[] {
  return [...new Set([tmpdir(), "/tmp", "/var/tmp"])];
}

/** The first temporary place that the server user can enter. */
export async function temporaryPlace(): Promise<string> {
  if (serverUser().uid === undefined) return tmpdir();
  for (const place of temporaryPlaces()) if (await isOpenToAll(place)) return place;
  return tmpdir();
}

async function isOpenToAll(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined || (found.mode & 0o001) === 0) return false;
  return path === dirname(path) || (await isOpenToAll(dirname(path)));
}
