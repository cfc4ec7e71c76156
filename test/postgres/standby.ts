import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { giveToServer, temporaryPlace } from "../../lib/local/server-user.ts";
import { installed } from "./server.ts";
import { superuser } from "./source.ts";

const run = promisify(execFile);

/** What differs between two servers of one cluster, or is made anew. https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP-DATA */
const LEFT_OUT = new Set(["postmaster.pid", "postmaster.opts", "tributary.owner", "pg_wal", "pg_replslot"]);

/**
 * A physical standby of a server, from a backup by hand (the npm package has no pg_basebackup), that follows it by
 * streaming. Its superuser is the primary's.
 */
export async function startStandby(
  primary: EmbeddedPostgres,
  settings: Readonly<Record<string, string>> = {},
): Promise<EmbeddedPostgres> {
  const binaries = installed.find((candidate) => candidate.binaries?.version === primary.version)?.binaries;
  const directory = await mkdtemp(join(await temporaryPlace(), "tributary-standby-"));
  await giveToServer(directory);
  await chmod(directory, 0o700);
  const sql = await superuser(primary.url);
  await sql.query("SELECT pg_backup_start('standby', fast => true)");
  for (const entry of await readdir(primary.dataDirectory)) {
    if (LEFT_OUT.has(entry)) continue;
    // Files that vanish meanwhile are as good as copied: the log has what became of them.
    await run("cp", ["-a", join(primary.dataDirectory, entry), directory]).catch(() => {});
  }
  const { rows } = await sql.query<{ labelfile: string }>("SELECT labelfile FROM pg_backup_stop(false)");
  await sql.end();
  await writeFile(join(directory, "backup_label"), rows[0]?.labelfile as string);
  await writeFile(join(directory, "standby.signal"), "");
  for (const made of ["pg_wal", "pg_replslot"]) await mkdir(join(directory, made), { mode: 0o700 });
  for (const made of ["backup_label", "standby.signal", "pg_wal", "pg_replslot"])
    await giveToServer(join(directory, made));
  const { hostname, port, username, password } = new URL(primary.url);
  const standby = await startEmbeddedPostgres({
    dataDirectory: directory,
    durable: false,
    ...(binaries ? { binaries } : {}),
    settings: {
      primary_conninfo: `host=${hostname} port=${port} user=${username} password=${password}`,
      ...settings,
    },
  });
  return {
    ...standby,
    async stop(mode) {
      await standby.stop(mode);
      await rm(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    },
  };
}
