import { ConfigurationError } from "../../change/tributary-error.ts";
import { withConnection } from "../../source/postgres/link/connection.ts";
import type { Display } from "../display.ts";
import { formatBytes } from "../live-view.ts";
import type { DevArguments } from "./arguments.ts";
import { checkBelongs, ownDatabase, placeOf } from "./database.ts";
import { findProject } from "./project.ts";
import { type DevSlot, devSlots, dropDevTraces, isOfName } from "./server-traces.ts";
import { devSlotName } from "./slot-name.ts";
import { StateDirectory } from "./state-directory.ts";

/**
 * `tributary dev --clean`: drops what the runs of this project have made in a database, and lists what others have there, whom
 * alone it belongs.
 */
export async function cleanDev(args: DevArguments, display: Display, signal: AbortSignal): Promise<void> {
  if (args.databaseUrl === undefined) {
    const remedy = "name the database to be cleaned; the embedded one goes with --fresh";
    throw new ConfigurationError("The command line", [{ path: "--database-url", value: undefined, remedy }]);
  }
  const connection = ownDatabase(args.databaseUrl);
  const { directory: project, definition } = await findProject(args.pipeline);
  const directory = await StateDirectory.open(project);
  try {
    checkBelongs(directory, definition.name, placeOf(connection));
    const name = devSlotName(definition.name, directory.state.id);
    if (directory.state.ready) await directory.update({ slotDropped: true });
    const dropped = new Set(await dropDevTraces(connection, name, signal));
    display.say(
      dropped.size > 0 ? `dropped ${[...dropped].join(", ")}` : "nothing of this project's was left",
    );
    const others = await withConnection(connection, { signal }, devSlots);
    const foreign = others.filter((slot) => !isOfName(slot.name, name));
    if (foreign.length === 0) return;
    display.say("of other projects or people, left alone:");
    for (const slot of foreign) display.say(`  ${inWords(slot)}`);
    display.say(
      "who made one drops it with tributary dev --clean, or: SELECT pg_drop_replication_slot('…');",
    );
  } finally {
    await directory.close();
  }
}

/** One slot as a line: where, how much WAL it keeps, and since when nobody reads from it. */
export function inWords(slot: DevSlot, now = new Date()): string {
  const { name, database, activePid, retainedBytes, inactiveSince } = slot;
  const use =
    activePid !== undefined
      ? `in use by process ${activePid}`
      : `abandoned${inactiveSince ? ` for ${age(now.getTime() - inactiveSince.getTime())}` : ""}`;
  return `${name}  database ${database}  keeps ${formatBytes(retainedBytes)} of WAL  ${use}`;
}

function age(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`;
}
