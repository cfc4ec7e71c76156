import type { TableName } from "../../change/table-pattern.ts";
import { quoteIdentifier, quoteTable } from "../postgres/preflight/captured-tables.ts";

/*
 * What triggers need at the server, as SQL: an audit table, the shapes of the tables at the time of each change, one
 * function for all tables. https://www.postgresql.org/docs/current/plpgsql-trigger.html
 */

/** Stands in the comment on a schema that we made. */
export const AUDIT_COMMENT = "Made by Tributary: tributary triggers uninstall removes it";
/** First by name: what another trigger of the row does is written behind the change that it reacts to. */
export const ROW_TRIGGER = "!tributary_row";
/** The one that tells truncates. */
export const TRUNCATE_TRIGGER = "!tributary_truncate";

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
 * Writes one change. `cmin` and `cmax` tell commands apart (a table cannot change inside of one): the shape is looked up
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
  return `
DECLARE
  remembered CONSTANT text := 'tributary.t' || TG_RELID;
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
BEGIN
  IF TG_OP IN ('INSERT', 'UPDATE') AND NEW.xmax = '0' THEN
    command := NEW.cmin::text;
  ELSIF TG_OP = 'DELETE' AND NOT own THEN
    command := OLD.cmax::text;
  END IF;
  IF command IS NOT NULL THEN
    known := current_setting(remembered, true);
  END IF;
  IF command IS NOT NULL AND split_part(known, ':', 1) = command THEN
    shape_id := split_part(known, ':', 2)::bigint;
  ELSE
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
      PERFORM set_config(remembered, command || ':' || shape_id, true);
    END IF;
  END IF;
  IF TG_OP = 'TRUNCATE' THEN
    INSERT INTO ${s}.changes (xid, id, sub, relid, op, at, shape)
    VALUES (pg_current_xact_id(), nextval('${s.replaceAll("'", "''")}.change_id'), 0, TG_RELID, 'T', clock_timestamp(), shape_id);
    RETURN NULL;
  END IF;
  IF own THEN
    prior := OLD.ctid;
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.xmax <> '0' THEN
    SELECT c.id, c.sub - 1 INTO place, step FROM ${s}.changes c
    WHERE c.xid = pg_current_xact_id() AND c.replaced = NEW.ctid AND c.relid = TG_RELID;
  END IF;
  INSERT INTO ${s}.changes (xid, id, sub, relid, op, at, shape, replaced, old_row, new_row)
  VALUES (pg_current_xact_id(), coalesce(place, nextval('${s.replaceAll("'", "''")}.change_id')), coalesce(step, 0), TG_RELID,
    substr(TG_OP, 1, 1)::"char", clock_timestamp(), shape_id, prior, OLD::text, NEW::text);
  RETURN NULL;
END
`;
}

/** The statements that put triggers on a table. They fire for replicated changes too, as the log has those. */
export function tableTriggersSql(schema: string, table: TableName): readonly string[] {
  const [on, run] = [quoteTable(table), `${quoteIdentifier(schema)}.capture()`];
  const [row, truncate] = [quoteIdentifier(ROW_TRIGGER), quoteIdentifier(TRUNCATE_TRIGGER)];
  return [
    `CREATE OR REPLACE TRIGGER ${row} AFTER INSERT OR UPDATE OR DELETE ON ${on} FOR EACH ROW EXECUTE FUNCTION ${run}`,
    `CREATE OR REPLACE TRIGGER ${truncate} AFTER TRUNCATE ON ${on} FOR EACH STATEMENT EXECUTE FUNCTION ${run}`,
    `ALTER TABLE ${on} ENABLE ALWAYS TRIGGER ${row}`,
    `ALTER TABLE ${on} ENABLE ALWAYS TRIGGER ${truncate}`,
  ];
}

/** The statements that take the triggers off a table. */
export function dropTriggersSql(table: TableName): readonly string[] {
  return [ROW_TRIGGER, TRUNCATE_TRIGGER].map(
    (trigger) => `DROP TRIGGER IF EXISTS ${quoteIdentifier(trigger)} ON ${quoteTable(table)}`,
  );
}

/** What a role needs that only reads what the triggers write. */
export function readerGrantsSql(schema: string, role: string): readonly string[] {
  const [s, to] = [quoteIdentifier(schema), quoteIdentifier(role)];
  return [
    `GRANT USAGE ON SCHEMA ${s} TO ${to}`,
    `GRANT SELECT ON ${s}.shapes TO ${to}`,
    `GRANT SELECT, DELETE ON ${s}.changes TO ${to}`,
  ];
}
