import { quoteIdentifier } from "../../../change/sql-identifier.ts";
import { serverEncoding } from "../decode/values/charset.ts";
import type { LogPipeline } from "../definition.ts";
import { unreadableEncoding } from "../link/connection-errors.ts";
import type { PreflightProblem } from "../postgres-errors.ts";
import type { CheckResult } from "./findings.ts";
import type { ServerFacts } from "./server-facts.ts";

const OLDEST = 14;
const NEWEST = 18;

/** Checks that the server as a whole can serve a slot. */
export function checkServer(
  facts: ServerFacts,
  source: LogPipeline["source"],
  { slotExists }: { readonly slotExists: boolean },
): CheckResult {
  const major = Math.floor(facts.version / 10_000);
  const problems: PreflightProblem[] = [];
  const warnings: PreflightProblem[] = [];
  const parameter = (name: string, value: string, restart: boolean) =>
    facts.rds
      ? `Set ${name === "wal_level" ? "rds.logical_replication = 1" : `${name} = ${value}`} in the parameter group${restart ? " and reboot the instance" : ""}.`
      : `ALTER SYSTEM SET ${name} = '${value}'; then ${restart ? "restart the server" : "SELECT pg_reload_conf();"}`;

  if (major < OLDEST) {
    problems.push({
      code: "SERVER_VERSION",
      message: `the server is PostgreSQL ${major}; ${OLDEST} is the oldest that can send logical messages`,
      remedy: `Upgrade the server to PostgreSQL ${OLDEST} or newer.`,
    });
  } else if (major > NEWEST) {
    warnings.push({
      code: "SERVER_VERSION",
      message: `the server is PostgreSQL ${major}, and ${NEWEST} is the newest this version was tested with`,
      remedy: "Look for a newer version of Tributary.",
    });
  }
  if (facts.standby) {
    problems.push({
      code: "STANDBY",
      message: "the server is a standby (in recovery): publications and positions are made on the primary",
      remedy: "Connect to the primary (on Aurora: the cluster's writer endpoint).",
    });
  }
  if (facts.walLevel !== "logical") {
    problems.push({
      code: "WAL_LEVEL",
      message: `wal_level is ${facts.walLevel}: the log does not hold what logical decoding needs`,
      remedy: parameter("wal_level", "logical", true),
    });
  }
  if (!slotExists && facts.usedReplicationSlots >= facts.maxReplicationSlots) {
    problems.push({
      code: "REPLICATION_SLOTS",
      message: `all ${facts.maxReplicationSlots} replication slots are taken (max_replication_slots)`,
      remedy: `Drop one that nobody needs (SELECT slot_name, active FROM pg_replication_slots;), or: ${parameter("max_replication_slots", String(facts.maxReplicationSlots + 5), true)}`,
    });
  }
  if (facts.usedWalSenders >= facts.maxWalSenders) {
    problems.push({
      code: "WAL_SENDERS",
      message: `all ${facts.maxWalSenders} WAL senders are busy (max_wal_senders)`,
      remedy: parameter("max_wal_senders", String(facts.maxWalSenders + 5), true),
    });
  }
  if (facts.maxSlotWalKeepSize === "-1" && !source.acceptUnboundedWal) {
    problems.push({
      code: "UNBOUNDED_WAL",
      message:
        "max_slot_wal_keep_size is -1: while the pipeline stands still the server keeps WAL for it until the disk is full",
      remedy: `${parameter("max_slot_wal_keep_size", "50GB", false)} (less than the free disk space), or accept it with acceptUnboundedWal: true in the definition's source.`,
    });
  }
  problems.push(...encodingProblems(facts, source));
  if (!facts.mayReplicate) {
    const role = quoteIdentifier(facts.user);
    problems.push({
      code: "ROLE_REPLICATION",
      message: `role "${facts.user}" has not the REPLICATION attribute`,
      remedy: facts.rds ? `GRANT rds_replication TO ${role};` : `ALTER ROLE ${role} WITH REPLICATION;`,
    });
  }
  return { problems, warnings };
}

/** Checks that we can read the database's text. */
function encodingProblems(
  { encoding, database }: ServerFacts,
  source: LogPipeline["source"],
): PreflightProblem[] {
  if (encoding === "UTF8") return [];
  if (encoding === "SQL_ASCII") {
    if (source.sqlAsciiEncoding !== undefined) return [];
    return [
      {
        code: "SQL_ASCII",
        message: `the database "${database}" has the encoding SQL_ASCII: the server does not know what its text means`,
        remedy: 'Say how to read it with sqlAsciiEncoding: "utf-8" or "latin1" in the definition\'s source.',
      },
    ];
  }
  if (!serverEncoding(encoding)) {
    const what = `only the server can convert ${encoding}, and a character that it has no UTF-8 for would end its stream for good`;
    return [unreadableEncoding(database, what)];
  }
  // The statement that names it is UTF-8, in a session that is not.
  if (/^[\x20-\x7e]*$/.test(source.publication)) return [];
  return [
    {
      code: "ENCODING",
      message: `the publication "${source.publication}" has a name that is not ASCII, and the database "${database}" has the encoding ${encoding}`,
      remedy: "Choose another name with source.publication.",
    },
  ];
}
