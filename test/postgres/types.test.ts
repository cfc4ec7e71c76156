import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { SourceChange } from "../../lib/change/change-stream.ts";
import type { EmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";
import { BUILTIN_TYPES } from "../../lib/source/postgres/decode/values/builtin-types.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { changesOf, decodeAll, decoderOver, eventOf, openPinned, SlotReader } from "./slot-reader.ts";
import { ORACLES, type Oracle, SAMPLES, type TypeSample, WITHOUT_INPUT } from "./type-samples.ts";

/** What ALTER DATABASE may set against us. */
const HOSTILE = {
  datestyle: "SQL, DMY",
  timezone: "Asia/Kathmandu",
  bytea_output: "escape",
  extra_float_digits: "-10",
  intervalstyle: "postgres_verbose",
  xmloption: "document",
  quote_all_identifiers: "on",
  client_encoding: "LATIN1",
  search_path: "app",
  statement_timeout: "1ms",
  lock_timeout: "1ms",
  idle_in_transaction_session_timeout: "1ms",
  idle_session_timeout: "1ms",
};

/** The session that asks PostgreSQL: pinned by the test, not by the code under test. */
const ORACLE_SESSION =
  "-c datestyle=ISO -c timezone=UTC -c bytea_output=hex -c extra_float_digits=3 -c intervalstyle=iso_8601 -c xmloption=content -c quote_all_identifiers=off -c search_path= -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0 -c lc_monetary=C";

const USER_TYPES = `
  CREATE SCHEMA ext;
  CREATE EXTENSION hstore SCHEMA ext;
  CREATE EXTENSION citext SCHEMA ext;
  CREATE EXTENSION ltree SCHEMA ext;
  CREATE TYPE app.mood AS ENUM ('sad', 'so "so"', 'happy, very', 'zażółć');
  CREATE DOMAIN app.amount AS numeric CHECK (value >= 0);
  CREATE DOMAIN app.price AS app.amount;
  CREATE DOMAIN app.counts AS int4[];
  CREATE DOMAIN app.stamp AS timestamptz;
  CREATE DOMAIN app.flag AS bool;
  CREATE TYPE app.pair AS (a int, b text);
  CREATE TYPE app.span AS RANGE (subtype = float8);
  CREATE TYPE app.hstore AS (k text);
  CREATE TABLE app.odd (id int);
`;

/** Types of users and extensions, each with its oracle; `[]` arrays as SQL literals. */
const USER_SAMPLES: Readonly<Record<string, TypeSample>> = {
  "app.mood": { oracle: "text", values: ["sad", 'so "so"', "happy, very", "zażółć"] },
  "app.amount": { oracle: "text", values: ["1.50"] },
  "app.price": { oracle: "text", values: ["0.00", "9007199254740993"] },
  "app.counts": { oracle: "json", values: ["{1,NULL,3}", "{}", "{{1,2},{3,4}}", "[2:3]={7,8}"] },
  "app.stamp": { oracle: "utc", values: ["2026-11-23 10:15:30.5+05:45"] },
  "app.flag": { oracle: "json", values: ["t"] },
  "app.pair": { oracle: "text", values: ['(1,"a ""quoted"", text")', "(,)"] },
  "app.hstore": { oracle: "text", values: ["(x)"] },
  "app.span": { oracle: "text", values: ["[1.5,2)"] },
  "ext.citext": { oracle: "text", values: ["MiXed", 'q"'] },
  "ext.ltree": { oracle: "text", values: ["a.b.c"] },
  "ext.hstore": {
    oracle: "object",
    values: [
      "",
      'a=>1, b=>NULL, "NULL"=>"NULL"',
      '"__proto__"=>x, "q\\"uo\\\\te"=>"a, \\"b\\"=>c", ""=>""',
      '"ż"=>"🙂"',
    ],
  },
};

eachPostgres("values of every type", (server) => {
  let client: pg.Client;
  let oracle: pg.Client;
  let slot: SlotReader;

  beforeAll(async () => {
    const url = await freshDatabase(server(), { settings: HOSTILE });
    client = await openPinned(url);
    oracle = new pg.Client({ connectionString: url, options: ORACLE_SESSION });
    await oracle.connect();
    await oracle.query(`CREATE SCHEMA app; ${USER_TYPES}`);
    slot = await SlotReader.create(client, "FOR ALL TABLES");
  });

  afterAll(async () => {
    await slot?.drop();
    await client?.end();
    await oracle?.end();
  });

  test("the built-in types are all known, by the names and arrays of the catalog", async () => {
    const { rows } = await oracle.query<{ oid: number; array: number; name: string }>(`
      SELECT oid, typarray AS array, typname::text AS name FROM pg_catalog.pg_type
      WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
        AND (typsubscript <> 'array_subscript_handler'::regproc OR typname IN ('int2vector', 'oidvector'))
      ORDER BY oid`);
    const known = BUILTIN_TYPES.map(([oid, array, name]) => ({ oid, array, name }));
    expect(known.toSorted((a, b) => a.oid - b.oid)).toEqual(rows);
    expect([...Object.keys(SAMPLES), ...WITHOUT_INPUT].toSorted()).toEqual(
      rows.map((r) => r.name).toSorted(),
    );
  });

  describe.each(Object.entries({ ...SAMPLES, ...USER_SAMPLES }))("%s", (name, sample) => {
    const type = name.includes(".") ? name : `pg_catalog."${name}"`;

    test("each value as PostgreSQL prints it, alone and in arrays", async () => {
      const column = name === "bit" || name === "bpchar" ? `${type}(5)` : type;
      await oracle.query(`CREATE TABLE app.sample (id serial PRIMARY KEY, v ${column}, list ${type}[])`);
      try {
        const values = name === "bit" ? sample.values.map((v) => v.padEnd(5, "0")) : sample.values;
        for (const value of values) await oracle.query("INSERT INTO app.sample (v) VALUES ($1)", [value]);
        await oracle.query("INSERT INTO app.sample (v) VALUES (NULL)");
        const expected = await oracle.query<{ json: string | null; list: string }>(
          `SELECT ${ORACLES[sample.oracle]} AS json FROM app.sample ORDER BY id`,
        );
        // By the elements' text, since array_agg makes no arrays of vectors or of domains.
        await oracle.query(`
          INSERT INTO app.sample (list)
          SELECT ('{' || pg_catalog.string_agg(
            CASE WHEN v IS DISTINCT FROM NULL
              THEN pg_catalog.format('"%s"', pg_catalog.replace(pg_catalog.replace(pg_catalog.format('%s', v), '\\', '\\\\'), '"', '\\"'))
              ELSE 'NULL' END,
            '${name === "box" ? ";" : ","}' ORDER BY id) || '}')::${type}[]
          FROM app.sample`);
        const given = changesOf(await decodeAll(decoderOver(client), await slot.take()));
        const same = (json: string) => (sample.oracle === "object" ? JSON.stringify(JSON.parse(json)) : json);
        expect(given.slice(0, -1).map(valueJson).map(same)).toEqual(
          expected.rows.map((row) => same(row.json ?? "null")),
        );
        const list = eventOf(given.at(-1) as SourceChange).after?.list;
        const elements = expected.rows.map((row) => JSON.parse(row.json ?? "null"));
        expect(list).toEqual(elements);
      } finally {
        await oracle.query("DROP TABLE app.sample");
        await slot.take();
      }
    });
  });

  test("arrays: nested, null, empty, shifted bounds, every quoting", async () => {
    const samples: [type: string, value: string, oracle: Oracle | string][] = [
      ["int4[]", "{}", "json"],
      ["int4[]", "{{1,2,NULL},{4,5,6}}", "json"],
      ["int4[]", "[2:4]={1,2,3}", "json"],
      ["int4[]", "[-1:0][5:6]={{1,2},{3,4}}", "json"],
      ["int4[]", "{{{{{{1}}}}}}", "json"],
      ["text[]", '{NULL,"NULL",null,"null","","a,b","{","}","\\"","\\\\"," x "}', "json"],
      ["text[]", '{{"a","b"},{"ż","🙂"}}', "json"],
      ["int8[]", "{9007199254740993,NULL}", "to_json(v::text[])::text"],
      ["numeric[]", "{{1.50,NaN}}", "to_json(v::text[])::text"],
      ["bool[]", "{t,f,NULL}", "json"],
      ["jsonb[]", '{"{\\"a\\": [1, 2]}","null",NULL}', "json"],
      ["timestamptz[]", '{{"2026-11-23 10:15:30+05:45"},{NULL}}', "utc"],
      ["date[]", "{infinity,2026-11-23,NULL}", "json"],
      ["box[]", "{(1,1),(0,0);(2,2),(1,1);NULL}", "json"],
      ["bytea[]", '{"\\\\x0102",NULL}', `'["AQI=",null]'`],
      ["app.mood[]", '{{sad,"so \\"so\\""}}', "json"],
      ["app.pair[]", '{"(1,\\"a b\\")",NULL}', "to_json(v::text[])::text"],
      ["ext.hstore[]", '{"\\"a\\"=>\\"1\\"",NULL}', "json"],
      ["app.counts[]", '{"{1,2}","{3}",NULL}', "'[[1,2],[3],null]'"],
      ["app.price[]", "{{1.50},{2}}", "to_json(v::text[])::text"],
    ];
    for (const [type, value, ask] of samples) {
      await oracle.query(`CREATE TABLE app.sample (id serial PRIMARY KEY, v ${type})`);
      await oracle.query("INSERT INTO app.sample (v) VALUES ($1)", [value]);
      const sql = ORACLES[ask as Oracle] ?? ask;
      const expected = await oracle.query<{ json: string }>(`SELECT ${sql} AS json FROM app.sample`);
      const given = changesOf(await decodeAll(decoderOver(client), await slot.take()));
      await oracle.query("DROP TABLE app.sample");
      expect(JSON.parse(given.map(valueJson)[0] ?? ""), type).toEqual(
        JSON.parse(expected.rows[0]?.json ?? ""),
      );
    }
  });

  test('"char" of every byte is one text on all versions', async () => {
    await oracle.query('CREATE TABLE app.bytes (id int PRIMARY KEY, v "char")');
    await oracle.query(
      'INSERT INTO app.bytes SELECT i, (i - 256 * (i / 128))::"char" FROM pg_catalog.generate_series(1, 255) i',
    );
    const given = changesOf(await decodeAll(decoderOver(client), await slot.take())).map(eventOf);
    await oracle.query("DROP TABLE app.bytes");
    const expected = Array.from({ length: 255 }, (_, i) => i + 1).map((byte) =>
      byte < 128 ? String.fromCharCode(byte) : `\\${byte.toString(8)}`,
    );
    expect(given.map((event) => event.after?.v)).toEqual(expected);
  });

  test("json text over several lines stays one line", async () => {
    await oracle.query("CREATE TABLE app.lines (id int PRIMARY KEY, v json)");
    await oracle.query("INSERT INTO app.lines VALUES (1, $1)", ['{\r\n "a":\n\t[1]}']);
    const [given] = changesOf(await decodeAll(decoderOver(client), await slot.take()));
    await oracle.query("DROP TABLE app.lines");
    expect(given?.json).not.toMatch(/[\r\n]/);
    expect(eventOf(given as SourceChange).after?.v).toEqual({ a: [1] });
  });

  test("a type that was dropped before its values are read is text", async () => {
    await oracle.query(
      "CREATE TYPE app.gone AS ENUM ('x'); CREATE TABLE app.t (id int PRIMARY KEY, v app.gone)",
    );
    await oracle.query("INSERT INTO app.t VALUES (1, 'x'); DROP TABLE app.t; DROP TYPE app.gone");
    const [given] = changesOf(await decodeAll(decoderOver(client), await slot.take()));
    expect(eventOf(given as SourceChange).after).toEqual({ id: 1, v: "x" });
  });
});

eachPostgres("text of a database in another encoding", (server: () => EmbeddedPostgres) => {
  test("LATIN1 arrives as the same characters, names too", async () => {
    const client = await openPinned(await freshDatabase(server(), { encoding: "LATIN1" }));
    try {
      const slot = await SlotReader.create(client, "FOR ALL TABLES");
      await client.query('CREATE TABLE public."tä" (id int PRIMARY KEY, "ö" text, list text[], j json)');
      await client.query("INSERT INTO public.\"tä\" VALUES (1, 'café', ARRAY['é,', 'x'], '\"ÿ\"')");
      const [given] = changesOf(await decodeAll(decoderOver(client), await slot.take()));
      expect(given?.table).toBe("public.tä");
      expect(eventOf(given as SourceChange).after).toEqual({ id: 1, ö: "café", list: ["é,", "x"], j: "ÿ" });
      await slot.drop();
    } finally {
      await client.end();
    }
  });
});

eachPostgres("text of a database without an encoding (SQL_ASCII)", (server: () => EmbeddedPostgres) => {
  test("latin1 by choice; as UTF-8 it is refused by name, never replaced", async () => {
    const url = await freshDatabase(server(), { encoding: "SQL_ASCII" });
    const client = await openPinned(url, "SQL_ASCII");
    try {
      const slot = await SlotReader.create(client, "FOR ALL TABLES");
      await client.query("CREATE TABLE public.t (id int PRIMARY KEY, v text, list text[])");
      await client.query("INSERT INTO public.t VALUES (1, E'caf\\xe9', ARRAY[E'\\xe9', 'x'])");
      const messages = await slot.take();
      const [given] = changesOf(await decodeAll(decoderOver(client, { encoding: "latin1" }), messages));
      expect(eventOf(given as SourceChange).after).toEqual({ id: 1, v: "café", list: ["é", "x"] });
      await expect(decodeAll(decoderOver(client), messages)).rejects.toMatchObject({
        code: "TEXT_ENCODING",
        message: expect.stringMatching(/^public\.t, column v, change at [0-9A-F]+\/[0-9A-F]+: /),
      });
      await slot.drop();
    } finally {
      await client.end();
    }
  });
});

/** The JSON text of column `v`. */
function valueJson(change: SourceChange): string {
  const match = /"after":\{"id":\d+,"v":(.*?)(?:,"list":null)?\},(?:"jsonNull":.*\],)?"ts_ms":/s.exec(
    change.json,
  );
  return match?.[1] ?? `no v in ${change.json}`;
}
