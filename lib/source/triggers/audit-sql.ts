import { quoteIdentifier, quoteTable } from "../../change/sql-identifier.ts";
import type { TableName } from "../../change/table-pattern.ts";

/*
 * The server's side of triggers, as SQL: an audit table, the shapes of the tables at the time of each change, one
 * function for all tables. https://www.postgresql.org/docs/current/plpgsql-trigger.html
 */

/** Stands in the comment on a schema that we made. */
export const AUDIT_COMMENT = "Made by Tributary: tributary triggers uninstall removes it";
/** First by name: what another trigger of the row does is written behind the change that it reacts to. */
const ROW_TRIGGER = "!tributary_row";
/** Tells truncates. */
const TRUNCATE_TRIGGER = "!tributary_truncate";
/** Tells the rows that go with the truncate of a partition. */
export const BEFORE_TRUNCATE_TRIGGER = "!tributary_before_truncate";

/**
 * The row trigger of a table. A partitioned table gives its own to each partition, also to one that is attached and has
 * some already: PostgreSQL refuses that where two have one name.
 */
export function rowTriggerName(partitionedOid?: number): string {
  return partitionedOid === undefined ? ROW_TRIGGER : `${ROW_TRIGGER}s_${partitionedOid}`;
}

/** The settings that decide how values are printed: the trigger's session may have any (`postgres/session.ts`). */
const PINNED = `
  SET search_path = pg_catalog SET datestyle = 'ISO, MDY' SET intervalstyle = iso_8601 SET timezone = 'UTC'
  SET extra_float_digits = 1 SET bytea_output = hex SET lc_monetary = 'C' SET quote_all_identifiers = off
  SET row_security = off`;

/**
 * The statements that make the audit schema, or bring it up to date; each may be run again.
 *
 * `xid` and `id` say where a change stands: a reader takes whole transactions that have become visible, in the order of
 * their ids (rule 27). Within a statement PostgreSQL runs row triggers at its end: what a cascade or another trigger changed
 * meanwhile is told first. A change whose new version was replaced already (`replaced` of another names its place in
 * the table) therefore goes right before the one that replaced it: same `id`, lower `sub`.
 */
export function auditSchemaSql(schema: string): readonly string[] {
  const s = quoteIdentifier(schema);
  return [
    `CREATE SCHEMA IF NOT EXISTS ${s}`,
    `COMMENT ON SCHEMA ${s} IS '${AUDIT_COMMENT}'`,
    `CREATE SEQUENCE IF NOT EXISTS ${s}.change_id CACHE 1`,
    `CREATE TABLE IF NOT EXISTS ${s}.shapes (
  id bigint NOT NULL,
  shape text NOT NULL
)`,
    // Not unique: who writes a shape first must not make others wait for the end of its transaction.
    `CREATE INDEX IF NOT EXISTS shapes_id ON ${s}.shapes (id)`,
    `CREATE TABLE IF NOT EXISTS ${s}.changes (
  xid xid8 NOT NULL,
  id bigint NOT NULL,
  sub integer NOT NULL,
  relid oid NOT NULL,
  op "char" NOT NULL,
  at timestamptz NOT NULL,
  shape bigint NOT NULL,
  replaced tid,
  old_row text,
  new_row text,
  PRIMARY KEY (xid, id, sub)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)`,
    `CREATE INDEX IF NOT EXISTS changes_replaced ON ${s}.changes (xid, replaced) WHERE replaced IS NOT NULL`,
    captureFunctionSql(s),
    `REVOKE ALL ON FUNCTION ${s}.capture() FROM PUBLIC`,
  ];
}

/**
 * Writes one change.
 *
 * A table may have several of our row triggers: one of its own, and one of each table that it became a partition of. The
 * first by name writes. Of a partition that is truncated alone the rows are told, before they are gone: its table is not
 * empty then. Whether its table is truncated with it, a setting says that lasts from its first trigger to its last.
 *
 * `cmin` and `cmax` tell commands apart (a table cannot change inside of one): the shape is looked up
 * once a command, and remembered in a setting that ends with the transaction.
 *
 * Not so of a row version that this transaction both made and replaced or deleted: it holds one number for both commands,
 * which says nothing by itself and may be that of an earlier command. https://github.com/postgres/postgres/blob/master/src/backend/utils/time/combocid.c
 */
function captureFunctionSql(s: string): string {
  return `CREATE OR REPLACE FUNCTION ${s}.capture() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER${PINNED}
AS $tributary$${functionBody(s)}$tributary$`;
}

/** The body of the function of a schema, as the catalog keeps it: another one is of another version. */
export function captureFunctionBody(schema: string): string {
  return functionBody(quoteIdentifier(schema));
}

function functionBody(s: string): string {
  const f = `${literal(s)}.capture()`;
  return `
DECLARE
  remembered CONSTANT text := 'tributary.s' || TG_RELID;
  xact CONSTANT bigint := pg_current_xact_id()::text::bigint;
  -- Made by this transaction: below its id counts as older, round the 32 bits.
  own CONSTANT boolean := TG_OP IN ('UPDATE', 'DELETE') AND (OLD.xmin::text::bigint - xact) & 4294967295 < 2147483648;
  command text;
  known text;
  described text;
  shape_id bigint;
  place bigint;
  step integer := 0;
  prior tid;
  writer text;
  covered boolean;
  unread boolean;
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    covered := EXISTS (SELECT FROM pg_trigger WHERE tgrelid = TG_RELID AND tgfoid = '${f}'::regprocedure AND tgtype & 1 = 1 AND tgparentid <> 0);
    IF TG_WHEN = 'AFTER' THEN
      IF covered THEN RETURN NULL; END IF;
      PERFORM set_config('tributary.truncating', '', true);
    ELSIF NOT covered THEN
      IF EXISTS (SELECT FROM pg_class WHERE oid = TG_RELID AND relkind = 'p') THEN
        PERFORM set_config('tributary.truncating', concat(current_setting('tributary.truncating', true), TG_RELID, ','), true);
      END IF;
      RETURN NULL;
    ELSIF EXISTS (SELECT FROM pg_partition_ancestors(TG_RELID) a
                  WHERE a.relid::oid::text = ANY (string_to_array(current_setting('tributary.truncating', true), ','))) THEN
      RETURN NULL;
    END IF;
  END IF;
  IF TG_OP IN ('INSERT', 'UPDATE') AND NEW.xmax = '0' THEN
    command := NEW.cmin::text;
  ELSIF TG_OP = 'DELETE' AND NOT own THEN
    command := OLD.cmax::text;
  END IF;
  IF command IS NOT NULL THEN
    known := current_setting(remembered, true);
  END IF;
  IF command IS NOT NULL AND split_part(known, ':', 1) = command THEN
    IF TG_NAME <> split_part(known, ':', 3) THEN RETURN NULL; END IF;
    shape_id := split_part(known, ':', 2)::bigint;
  ELSE
    IF TG_OP <> 'TRUNCATE' THEN
      SELECT min(tgname::text COLLATE "C") INTO writer FROM pg_trigger
      WHERE tgrelid = TG_RELID AND tgfoid = '${f}'::regprocedure AND tgtype & 1 = 1
        AND tgenabled IN ('A', CASE current_setting('session_replication_role') WHEN 'replica' THEN 'R' ELSE 'O' END);
      IF TG_NAME <> writer THEN RETURN NULL; END IF;
    END IF;
    described := jsonb_build_object(
      'schema', TG_TABLE_SCHEMA, 'table', TG_TABLE_NAME,
      'ancestors', (
        SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, c.relname) ORDER BY a.place), '[]')
        FROM pg_partition_ancestors(TG_RELID) WITH ORDINALITY a (relid, place)
        JOIN pg_class c ON c.oid = a.relid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE a.relid <> TG_RELID),
      'columns', (
        SELECT coalesce(jsonb_agg(jsonb_build_array(attname, atttypid::int8, atttypmod, attgenerated) ORDER BY attnum), '[]')
        FROM pg_attribute WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped),
      'key', (
        SELECT coalesce(jsonb_agg(a.attname ORDER BY k.place), '[]')
        FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE i.indrelid = TG_RELID AND i.indisprimary AND k.place <= i.indnkeyatts)
    )::text;
    shape_id := hashtextextended(described, 0);
    IF NOT EXISTS (SELECT FROM ${s}.shapes WHERE id = shape_id) THEN
      INSERT INTO ${s}.shapes (id, shape) VALUES (shape_id, described);
    END IF;
    IF command IS NOT NULL THEN
      PERFORM set_config(remembered, command || ':' || shape_id || ':' || TG_NAME, true);
    END IF;
  END IF;
  IF TG_OP = 'TRUNCATE' AND TG_WHEN = 'BEFORE' THEN
    -- Whatever happens here, the application's truncate goes on. Another snapshot than its own may see fewer rows than are there.
    unread := current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted');
    BEGIN
      EXECUTE format('INSERT INTO %s (xid, id, sub, relid, op, at, shape, old_row)
        SELECT pg_current_xact_id(), nextval(%L), 0, %s, ''D'', clock_timestamp(), %s, (tributary_t.*)::text FROM ONLY %I.%I AS tributary_t',
        '${literal(s)}.changes', '${literal(s)}.change_id', TG_RELID, shape_id, TG_TABLE_SCHEMA, TG_TABLE_NAME);
    EXCEPTION WHEN OTHERS THEN
      unread := true;
    END;
    IF unread THEN
      INSERT INTO ${s}.changes (xid, id, sub, relid, op, at, shape)
      VALUES (pg_current_xact_id(), nextval('${literal(s)}.change_id'), 0, TG_RELID, 'R', clock_timestamp(), shape_id);
    END IF;
    RETURN NULL;
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO ${s}.changes (xid, id, sub, relid, op, at, shape)
    VALUES (pg_current_xact_id(), nextval('${literal(s)}.change_id'), 0, TG_RELID, 'T', clock_timestamp(), shape_id);
    RETURN NULL;
  END IF;
  IF own THEN
    prior := OLD.ctid;
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.xmax <> '0' THEN
    SELECT c.id, c.sub - 1 INTO place, step FROM ${s}.changes c
    WHERE c.xid = pg_current_xact_id() AND c.replaced = NEW.ctid AND c.relid = TG_RELID
    -- A table that was truncated or written anew in this transaction gives places again.
    ORDER BY c.id DESC, c.sub LIMIT 1;
  END IF;
  INSERT INTO ${s}.changes (xid, id, sub, relid, op, at, shape, replaced, old_row, new_row)
  VALUES (pg_current_xact_id(), coalesce(place, nextval('${literal(s)}.change_id')), coalesce(step, 0), TG_RELID,
    substr(TG_OP, 1, 1)::"char", clock_timestamp(), shape_id, prior, OLD::text, NEW::text);
  RETURN NULL;
END
`;
}

/**
 * The statements that put triggers on a table. They fire for replicated changes too, as the log has those.
 * @param partitionedOid Of a partitioned table.
 */
export function tableTriggersSql(
  schema: string,
  table: TableName,
  partitionedOid?: number,
): readonly string[] {
  return [
    ...triggerSql(schema, table, rowTriggerName(partitionedOid), "AFTER INSERT OR UPDATE OR DELETE", "ROW"),
    ...triggerSql(schema, table, TRUNCATE_TRIGGER, "AFTER TRUNCATE", "STATEMENT"),
    ...partitionTriggersSql(schema, table),
  ];
}

/** The statements that put on a partition what it has not from its table. */
export function partitionTriggersSql(schema: string, table: TableName): readonly string[] {
  return triggerSql(schema, table, BEFORE_TRUNCATE_TRIGGER, "BEFORE TRUNCATE", "STATEMENT");
}

function triggerSql(
  schema: string,
  table: TableName,
  name: string,
  when: string,
  each: "ROW" | "STATEMENT",
): readonly string[] {
  const [on, trigger] = [quoteTable(table), quoteIdentifier(name)];
  return [
    `CREATE OR REPLACE TRIGGER ${trigger} ${when} ON ${on} FOR EACH ${each} EXECUTE FUNCTION ${quoteIdentifier(schema)}.capture()`,
    `ALTER TABLE ${on} ENABLE ALWAYS TRIGGER ${trigger}`,
  ];
}

/** The statements that take triggers off a table. */
export function dropTriggersSql(table: TableName, triggers: readonly string[]): readonly string[] {
  return triggers.map(
    (trigger) => `DROP TRIGGER IF EXISTS ${quoteIdentifier(trigger)} ON ${quoteTable(table)}`,
  );
}

/** For inside of a literal. */
function literal(text: string): string {
  return text.replaceAll("'", "''");
}

/** Grants for a role that only reads what the triggers write. */
export function readerGrantsSql(schema: string, role: string): readonly string[] {
  const [s, to] = [quoteIdentifier(schema), quoteIdentifier(role)];
  return [
    `GRANT USAGE ON SCHEMA ${s} TO ${to}`,
    `GRANT SELECT ON ${s}.shapes TO ${to}`,
    `GRANT SELECT, DELETE ON ${s}.changes TO ${to}`,
  ];
}
