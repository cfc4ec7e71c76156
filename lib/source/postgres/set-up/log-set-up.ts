import pg from "pg";
import { quoteIdentifier, quoteTable } from "../../../change/sql-identifier.ts";
import { formatTable, forTable, type TableName } from "../../../change/table-pattern.ts";
import { logOutboxPlan } from "../../../publish/install.ts";
import { OUR_COMMENT } from "../catalog/publication.ts";
import { createPublicationSql, tableSql } from "../catalog/publication-plan.ts";
import type { LogPipeline, LogSource } from "../definition.ts";
import { preflight } from "../preflight/preflight.ts";
import type { ServerFacts } from "../preflight/server-facts.ts";
import { identityColumns, type TableFacts } from "../preflight/table-facts.ts";
import { slotNumbers } from "../slots/assignment.ts";
import { readShare } from "../slots/share.ts";
import {
  block,
  namedTables,
  needsDatabase,
  readingPart,
  rolePart,
  type ScriptPart,
  type ServerSort,
  type SetUpOptions,
} from "./script.ts";

/** Problems that the script heals, or that are of the role that asked. */
const HEALED = [
  "WAL_LEVEL",
  "UNBOUNDED_WAL",
  "ROLE_REPLICATION",
  "SELECT",
  "PUBLICATION",
  "REPLICA_IDENTITY",
];
/** A version that has all that definitions may say; the server's own is known only where it can be asked. */
const ANY_VERSION = 0;

/** Tables of one slot, and its publication. */
interface Share {
  readonly pipeline: LogPipeline;
  /** In `FOR TABLE …` of its publication. */
  readonly list: readonly string[];
  readonly tables: readonly TableName[];
  /** Columns of tables of which some are left out. */
  readonly columns: ReadonlyMap<string, readonly string[]>;
  readonly version: number;
}

/** Writes what an administrator runs so that a role can capture from the log. @throws ConfigurationError where the database must be asked */
export async function logSetUp(options: SetUpOptions<LogSource>): Promise<readonly ScriptPart[]> {
  const { pipeline, role, server, client } = options;
  const { source } = pipeline;
  const outbox = source.outbox ? logOutboxPlan(source.outbox.table).install.map(withoutSemicolon) : [];
  const asked = client ? await askDatabase(client, pipeline) : undefined;
  const shares = asked?.shares ?? [offlineShare(pipeline)];
  const tables = shares.flatMap((share) => share.tables);
  const columns = new Map(shares.flatMap((share) => [...share.columns]));
  return [
    serverPart(server, asked?.facts, source.acceptUnboundedWal),
    rolePart(role, [
      server === "self-hosted"
        ? `ALTER ROLE ${quoteIdentifier(role)} WITH REPLICATION`
        : `GRANT rds_replication TO ${quoteIdentifier(role)}`,
    ]),
    ...(outbox.length > 0
      ? [{ comments: ["The outbox that applications write to."], statements: outbox }]
      : []),
    readingPart(role, tables, (table) => columns.get(formatTable(table))),
    ...(asked?.identities ?? [offlineIdentities]),
    ...shares.map(publicationPart),
    ...(asked?.remarks ?? []),
  ];
}

function serverPart(server: ServerSort, facts: ServerFacts | undefined, unbounded: boolean): ScriptPart {
  const isLogical = facts?.walLevel === "logical";
  const isBounded = facts !== undefined && facts.maxSlotWalKeepSize !== "-1";
  const group = server === "aurora" ? "DB cluster parameter group" : "DB parameter group";
  const level =
    server === "self-hosted"
      ? ["wal_level: counts after a restart of the server."]
      : [
          `wal_level: set rds.logical_replication = 1 in the ${group}, and reboot the ${server === "aurora" ? "writer" : "instance"}.`,
        ];
  const bound =
    server === "self-hosted"
      ? [
          "max_slot_wal_keep_size: WAL that is kept while the pipeline stands still, before its slot is given up. Of all slots of the server;",
          "choose less than the free disk space, and more than a weekend writes:",
          "  ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
        ]
      : [
          `max_slot_wal_keep_size: WAL that is kept while the pipeline stands still; set it in the ${group}, in MB, below the free disk space.`,
        ];
  return {
    comments: [
      ...(isLogical ? ["wal_level is logical already."] : level),
      ...(isBounded
        ? [`max_slot_wal_keep_size is ${facts.maxSlotWalKeepSize} already.`]
        : unbounded
          ? ["max_slot_wal_keep_size: the definition accepts that there is none (acceptUnboundedWal)."]
          : bound),
    ],
    statements: server === "self-hosted" && !isLogical ? ["ALTER SYSTEM SET wal_level = 'logical'"] : [],
  };
}

/** As the capture task would make it: whoever owns the tables runs it. One that others made is left as it is. */
function publicationPart({ pipeline, list, version }: Share): ScriptPart {
  const { publication } = pipeline.source;
  const [literal, name] = [pg.escapeLiteral(publication), quoteIdentifier(publication)];
  const [create, comment] = createPublicationSql(pipeline, list, version);
  const set = `ALTER PUBLICATION ${name} SET TABLE ${list.join(", ")};`;
  const ours = `EXISTS (SELECT FROM pg_publication WHERE pubname = ${literal}
          AND obj_description(oid, 'pg_publication') LIKE ${pg.escapeLiteral(`${OUR_COMMENT}%`)})`;
  return {
    comments: [
      `The publication ${publication}, for exactly the captured tables. PostgreSQL lets only their owner, or a superuser, make it.`,
    ],
    statements: [
      block(
        [
          `IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = ${literal}) THEN`,
          `  ${create};`,
          `  ${comment};`,
          ...(version === ANY_VERSION ? [generatedColumns(name)] : []),
          ...(list.length > 0 ? [`ELSIF ${ours} THEN`, `  ${set}`] : []),
          "END IF;",
        ].join("\n"),
      ),
    ],
  };
}

/** An option of 18, where nobody knows yet which server runs the script. */
function generatedColumns(name: string): string {
  return `  IF current_setting('server_version_num')::int >= 180000 THEN ALTER PUBLICATION ${name} SET (publish_generated_columns = stored); END IF;`;
}

const offlineIdentities: ScriptPart = {
  comments: [
    "Replica identities were not looked at: a table without a primary key needs ALTER TABLE … REPLICA IDENTITY FULL;",
    "tributary doctor tells which, when it reaches the database.",
  ],
  statements: [],
};

/** @throws ConfigurationError where a setting needs the database */
function offlineShare(pipeline: LogPipeline): Share {
  const { source } = pipeline;
  if (source.slots > 1) throw needsDatabase("source.slots", source.slots);
  const [left] = Object.keys(source.excludeColumns);
  if (left !== undefined) throw needsDatabase("source.excludeColumns", left);
  const tables = namedTables(pipeline);
  const list = tables.map((table) => {
    const where = forTable(source.where, table);
    return `ONLY ${quoteTable(table)}${where === undefined ? "" : ` WHERE (${where})`}`;
  });
  return { pipeline, list, tables, columns: new Map(), version: ANY_VERSION };
}

/** Looks at the database as capture's preflight does. */
async function askDatabase(client: pg.Client, pipeline: LogPipeline) {
  const shares: Share[] = [];
  const identities: ScriptPart[] = [];
  const remarks = new Map<string, ScriptPart>();
  let facts: ServerFacts | undefined;
  for (const slot of slotNumbers(pipeline)) {
    const share = await readShare(client, pipeline, slot);
    const own = share?.pipeline ?? pipeline;
    const report = await preflight(client, own, share?.isOwn);
    facts = report.server;
    const { version } = report.server;
    const columns = new Map(
      report.tables.flatMap((table) => {
        const left = forTable(own.source.excludeColumns, table);
        if (!left) return [];
        const kept = table.columns.map(({ name }) => name).filter((name) => !left.includes(name));
        return [[formatTable(table), kept] as const];
      }),
    );
    const list = report.tables.map((table) => tableSql(own.source, table, version));
    shares.push({ pipeline: own, list, tables: report.tables, columns, version });
    identities.push(...identityParts([...report.tables, ...report.leaves]));
    const isForeign = report.publication.kind === "use";
    for (const { code, message, remedy } of report.problems) {
      if (HEALED.includes(code) && !(code === "PUBLICATION" && isForeign)) continue;
      remarks.set(message, { comments: [`Still to do: ${code}: ${message}`, `  ${remedy}`], statements: [] });
    }
    for (const table of report.tables.filter(({ rowSecurity }) => rowSecurity))
      remarks.set(formatTable(table), {
        comments: [
          `Still to decide: ${formatTable(table)} has row-level security. To read its existing rows the role needs BYPASSRLS (ALTER ROLE … BYPASSRLS).`,
        ],
        statements: [],
      });
  }
  return { shares, identities, remarks: [...remarks.values()], facts };
}

/** PostgreSQL refuses the application's own UPDATE and DELETE on a published table that has no replica identity. */
function identityParts(tables: readonly TableFacts[]): ScriptPart[] {
  return tables
    .filter((table) => identityColumns(table) === undefined)
    .map((table) => {
      const hasKey = table.primaryKey.length > 0 && !table.primaryKeyDeferrable;
      const why = hasKey
        ? "its replica identity does not name its primary key"
        : "it has no primary key that could be its identity: FULL writes whole old rows to the log; a primary key is better";
      // What is said of a partitioned table reaches no partition, but for its primary key.
      if (table.kind === "p" && !hasKey)
        return {
          comments: [
            `Still to do: ${formatTable(table)} has no primary key: ALTER TABLE ${quoteTable(table)} ADD PRIMARY KEY (…);`,
          ],
          statements: [],
        };
      return {
        comments: [`${formatTable(table)}: ${why}.`],
        statements: [`ALTER TABLE ${quoteTable(table)} REPLICA IDENTITY ${hasKey ? "DEFAULT" : "FULL"}`],
      };
    });
}

function withoutSemicolon(statement: string): string {
  return statement.replace(/;\s*$/, "");
}
