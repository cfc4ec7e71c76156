import type { PipelinePlan, PlannedChange, PlannedStart } from "../admin/plan/pipeline-plan.ts";
import { formatLsn } from "../change/lsn.ts";
import { parsePosition } from "../change/position.ts";

const SIGNS = { add: "+", remove: "-", change: "~" } as const;
/** Tables that a line names, at most. */
const NAMED = 20;

/** Returns the lines that show a plan to people: `+` is made, `-` goes, `~` is altered, `!` would stop the start. */
export function planInWords(plan: PipelinePlan): readonly string[] {
  const { pipeline, changes, refusals, warnings, notes, unseen } = plan;
  const isDatabaseUnseen = unseen.some(({ what }) => what === "database");
  const lines = [
    ...changes.map((change) => `${SIGNS[change.action]} ${changeInWords(change)}`),
    ...refusals.flatMap(({ code, message, remedy }) => [
      `! ${code}: ${indented(message)}`,
      `  What to do: ${indented(remedy)}`,
    ]),
    ...warnings.flatMap(({ code, message, remedy }) => [
      `? ${code}: ${indented(message)}`,
      `  ${indented(remedy)}`,
    ]),
    ...notes.map((note) => `  ${note}`),
    ...unseen.map(({ what, why }) => `  Not seen: ${what}: ${why}`),
    ...(isDatabaseUnseen
      ? ["  A private database is seen from the network of a stack: tributary plan --remote"]
      : []),
  ];
  const count = (action: PlannedChange["action"]) =>
    changes.filter((change) => change.action === action).length;
  const sum =
    refusals.length > 0
      ? `A start of the pipeline "${pipeline}" would be refused.`
      : changes.length > 0
        ? `Pipeline "${pipeline}": ${count("add")} to add, ${count("change")} to change, ${count("remove")} to remove.`
        : isDatabaseUnseen
          ? `Pipeline "${pipeline}": nothing would change in what was seen; the database was not.`
          : `Pipeline "${pipeline}": a start would change nothing.`;
  return [...lines, ...(lines.length > 0 ? [""] : []), `${sum} Nothing was touched.`];
}

function changeInWords(change: PlannedChange): string {
  switch (change.what) {
    case "publication": {
      const { name, added, removed, changed, action } = change;
      const parts = [
        ...(added.length > 0 ? [`${action === "add" ? "with" : "takes in"} ${named(added)}`] : []),
        ...(removed.length > 0 ? [`lets go of ${named(removed)}`] : []),
        ...(changed.length > 0 ? [`publishes other columns or rows of ${named(changed)}`] : []),
      ];
      return `publication ${name}${parts.length > 0 ? `: ${parts.join("; ")}` : ""}`;
    }
    case "slot":
      return `slot ${change.name}${change.action === "change" ? ": is there, unread, and is taken" : ""}`;
    case "reading": {
      const rows = change.rows === undefined ? "" : ` (about ${amount(change.rows)})`;
      return `reading by ${change.name} begins${change.existing ? `, with what is there already${rows}` : ", with changes from now on"}`;
    }
    case "table":
      if (change.action === "add") {
        const key = change.key ? `, by ${change.key.join(", ")}` : "";
        return `table ${change.name}: topic ${change.topic}, ${change.partitions} partitions${key} (never changed after)`;
      }
      return change.action === "change"
        ? `table ${change.name}: moves from slot ${change.from} to slot ${change.to}`
        : `table ${change.name}: is captured no more`;
    case "missing changes":
      return `changes of ${change.name} may be missing, and are noted so: ${change.reason}`;
    case "backfill": {
      if (change.action === "remove")
        return `backfill of ${change.name}: is refused, the table is not captured`;
      const rows =
        change.rows === undefined ? "rows not estimated (ANALYZE)" : `about ${amount(change.rows)} rows`;
      const sweep = change.sweep ? "; sinks remove what it does not find" : "";
      return `backfill of ${change.name}: ${rows}, ${bytes(change.bytes ?? 0)}${sweep}${change.action === "change" ? "; begins anew" : ""}`;
    }
    case "consumer":
      return change.action === "add"
        ? `consumer ${change.name}`
        : `consumer ${change.name}: the definition has it no more; its checkpoints stay in the state table`;
    case "topic":
      return `consumer ${change.consumer}: ${
        change.action === "add"
          ? `begins with ${change.name}${startInWords(change.start)}`
          : `gives up ${change.name}`
      }`;
    case "epoch":
      return `epoch ${change.epoch} begins`;
    case "deployed":
      return `${change.name}: ${change.setting} ${change.deployed} → ${change.wanted}`;
  }
}

function startInWords(start: PlannedStart | undefined): string {
  if (start === undefined) return "";
  if (start.from === "beginning") return ", from the first change on";
  if (start.from === "start") return ", with what is published after the start";
  if (start.from === "startAt")
    return start.startAt === "oldest"
      ? ", with the oldest changes that are still in the stream"
      : `, with what was committed since ${start.startAt}`;
  const { epoch, commitLsn } = parsePosition(start.position);
  return commitLsn === 0n
    ? `, from the beginning of epoch ${epoch}`
    : `, behind ${formatLsn(commitLsn)} (epoch ${epoch}) or what is confirmed by then`;
}

function named(tables: readonly string[]): string {
  const more = tables.length - NAMED;
  return `${tables.slice(0, NAMED).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

function amount(n: number): string {
  return Math.round(n).toLocaleString("en-US");
}

function bytes(n: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = n < 1 ? 0 : Math.min(Math.floor(Math.log(n) / Math.log(1024)), units.length - 1);
  const value = n / 1024 ** power;
  return `${power === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

function indented(text: string): string {
  return text.replaceAll("\n", "\n  ");
}
