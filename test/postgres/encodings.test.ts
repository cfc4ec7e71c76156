import type pg from "pg";
import { expect, test } from "vitest";
import type { ChangeEventJson } from "../../lib/change/event.ts";
import { type ServerEncoding, serverEncoding } from "../../lib/source/postgres/decode/values/charset.ts";
import { textForm } from "../../lib/source/postgres/decode/values/text.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { preflight } from "../../lib/source/postgres/postgres-source.ts";
import { eventually } from "../eventually.ts";
import { MemoryBackfills } from "./backfill-record.ts";
import { eachPostgres, freshDatabase } from "./server.ts";
import { definition, OpenSource, superuser } from "./source.ts";

const SINGLE_BYTE =
  "LATIN1 LATIN2 LATIN3 LATIN4 LATIN5 LATIN6 LATIN7 LATIN8 LATIN9 LATIN10 ISO_8859_5 ISO_8859_6 ISO_8859_7 ISO_8859_8 WIN1250 WIN1251 WIN1252 WIN1253 WIN1254 WIN1255 WIN1256 WIN1257 WIN1258 WIN866 WIN874 KOI8R KOI8U".split(
    " ",
  );
const MULTI_BYTE = ["EUC_CN", "EUC_JP", "EUC_KR"];
const REFUSED = ["EUC_TW", "EUC_JIS_2004"];

const wire = (change: { json: string }) => JSON.parse(`${change.json}}}`) as ChangeEventJson;

/** Characters of an encoding as bytes, and what the server makes of them: null where they are none, or have no UTF-8. */
async function converted(
  client: pg.Client,
  encoding: string,
): Promise<{ bytes: Buffer; text: string | null }[]> {
  await client.query(
    `CREATE OR REPLACE FUNCTION pg_temp.converted(b bytea) RETURNS text LANGUAGE plpgsql AS $$
     BEGIN RETURN convert_from(b, '${encoding}'); EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$`,
  );
  const multi = MULTI_BYTE.includes(encoding);
  const { rows } = await client.query<{ bytes: Buffer; text: string | null }>(
    `SELECT b AS bytes, pg_temp.converted(b) AS text FROM (
       SELECT decode(lpad(to_hex(i), 2, '0'), 'hex') b FROM generate_series(1, 255) i
       UNION ALL SELECT decode(to_hex(i), 'hex') FROM generate_series(x'8e80'::int, x'feff'::int) i WHERE ${multi}
       UNION ALL SELECT decode('8f' || to_hex(i), 'hex') FROM generate_series(x'a1a1'::int, x'fefe'::int) i
         WHERE ${multi} AND i % 256 >= 161) x`,
  );
  return rows;
}

eachPostgres("a database that is not UTF-8", (server) => {
  test.each([...SINGLE_BYTE, ...MULTI_BYTE])(
    "%s: each character that the server can convert is read as the server converts it",
    async (encoding) => {
      const client = await superuser(await freshDatabase(server()));
      const { decode } = textForm(serverEncoding(encoding) as ServerEncoding);
      const read = (bytes: Buffer) => {
        const padded = Buffer.concat([Buffer.from("a"), bytes, Buffer.from("z")]);
        try {
          return decode(padded, 0, padded.length).slice(1, -1);
        } catch (error) {
          return String(error);
        }
      };
      const different = (await converted(client, encoding)).flatMap(({ bytes, text }) =>
        text === null || read(bytes) === text ? [] : [[bytes.toString("hex"), text, read(bytes)]],
      );
      expect(different).toEqual([]);
      await client.end();
    },
  );

  test.each(["WIN1252", "WIN1251", "LATIN9", "EUC_JP"])(
    "%s: rows and names come from the log and from a backfill alike",
    async (encoding) => {
      const url = await freshDatabase(server(), { encoding });
      const client = await superuser(url);
      const word = { WIN1252: "Œuvré€", WIN1251: "Привет", LATIN9: "žŒ€é", EUC_JP: "日本語ｱ" }[
        encoding
      ] as string;
      const table = `"t_${word}"`;
      await client.query(
        `CREATE TABLE public.${table} (id text PRIMARY KEY, "c_${word}" text, list text[], j jsonb)`,
      );
      const insert = (id: string) =>
        client.query(
          `INSERT INTO public.${table} VALUES ($1, $2, ARRAY[$2, 'x'], jsonb_build_object('k', $2::text))`,
          [id, word],
        );
      await insert(`a${word}`);
      const source = await OpenSource.open(url, {
        pipeline: definition(url),
        backfill: { record: new MemoryBackfills() },
      });
      try {
        const ofTable = () => source.changes.map(wire).filter(({ after }) => after !== null);
        await eventually(() => source.error ?? ofTable().length === 1, { what: "the backfill's row" });
        await insert(`b${word}`);
        await eventually(() => source.error ?? ofTable().length === 2, { what: "the log's row" });
        const rows = ofTable();
        const row = (id: string) => ({ id, [`c_${word}`]: word, list: [word, "x"], j: { k: word } });
        expect(rows.map(({ op, after }) => [op, after])).toEqual([
          ["r", row(`a${word}`)],
          ["c", row(`b${word}`)],
        ]);
        expect(new Set(rows.map(({ source: { table } }) => table))).toEqual(new Set([`t_${word}`]));
      } finally {
        await source.close();
        await client.end();
      }
    },
  );

  test("a byte that the server has no UTF-8 for is a character all the same, and the stream goes on", async () => {
    const url = await freshDatabase(server(), { encoding: "WIN1252" });
    const client = await superuser(url);
    await client.query("CREATE TABLE public.t (id int PRIMARY KEY, v text)");
    await client.query("INSERT INTO public.t VALUES (1, convert_from('\\x61819d62', 'WIN1252'))");
    const source = await OpenSource.open(url, { backfill: { record: new MemoryBackfills() } });
    try {
      await eventually(() => source.changes.some((change) => wire(change).op === "m"), {
        what: "the backfill's end",
      });
      await client.query("UPDATE public.t SET v = v || convert_from('\\x80', 'WIN1252')");
      await client.query("INSERT INTO public.t VALUES (2, 'after')");
      const rows = () => source.changes.map(wire).filter(({ after }) => after !== null);
      await eventually(() => source.error ?? rows().length === 3, { what: "the rows" });
      const values = rows().map(({ after }) => after?.v);
      expect(values).toEqual(["a\u0081\u009db", "a\u0081\u009db€", "after"]);
      expect(source.error).toBeUndefined();
    } finally {
      await source.close();
      await client.end();
    }
  });

  test("a byte that is no character at all stops with table, column and position, and a way on", async () => {
    const url = await freshDatabase(server(), { encoding: "WIN1253" });
    const client = await superuser(url);
    await client.query("CREATE TABLE public.t (id int PRIMARY KEY, v text)");
    const source = await OpenSource.open(url);
    try {
      await client.query("INSERT INTO public.t VALUES (1, convert_from('\\xaa', 'WIN1253'))");
      const error = await source.failure();
      expect(error).toMatchObject({
        code: "TEXT_ENCODING",
        message: expect.stringMatching(
          /^public\.t, column v, change at [0-9A-F/]+: the text is not valid WIN1253$/,
        ),
        remedy: expect.stringContaining("epoch new --drop-slot"),
      });
    } finally {
      await source.close();
      await client.end();
    }
  });

  test.each(REFUSED)("%s is refused by its name, before anything is touched", async (encoding) => {
    const url = await freshDatabase(server(), { encoding });
    await expect(
      preflight({ connection: connectionFromUrl(url), pipeline: definition(url, { tables: ["*.*"] }) }),
    ).rejects.toMatchObject({
      problems: expect.arrayContaining([
        {
          code: "ENCODING",
          message: expect.stringContaining(encoding),
          remedy: expect.stringContaining("UTF8"),
        },
      ]),
    });
  });
});

eachPostgres("a database that has no conversion to UTF-8 at all", (server) => {
  test("MULE_INTERNAL is refused by its name", async () => {
    const url = await freshDatabase(server(), { encoding: "MULE_INTERNAL" });
    await expect(
      preflight({ connection: connectionFromUrl(url), pipeline: definition(url) }),
    ).rejects.toMatchObject({
      code: "PREFLIGHT",
      problems: [{ code: "ENCODING", message: expect.stringContaining("MULE_INTERNAL") }],
    });
  });
});

eachPostgres("names of an SQL_ASCII database that are not UTF-8", (server) => {
  async function database() {
    const url = await freshDatabase(server(), { encoding: "SQL_ASCII" });
    const client = await superuser(url);
    await client.query("CREATE TABLE public.fine (id int PRIMARY KEY)");
    // The server is not told that our statements are UTF-8: chr gives the byte.
    const run = (sql: string) => client.query(`DO $$BEGIN EXECUTE ${sql}; END$$`);
    return { url, client, run };
  }
  const source = { sqlAsciiEncoding: "utf-8" } as const;
  const problemsOf = async (url: string, more: object = {}) => {
    const pipeline = definition(url, { ...source, ...more });
    const error = await preflight({ connection: connectionFromUrl(url), pipeline }).catch((e) => e);
    return (error as { problems?: { code: string; message: string; remedy: string }[] }).problems ?? [];
  };

  test("a table is named with its bytes, and each of both remedies works", async () => {
    const { url, client, run } = await database();
    await run("'CREATE TABLE public.\"t' || chr(233) || '\" (id int PRIMARY KEY)'");
    const [problem, ...others] = await problemsOf(url);
    expect(others).toEqual([]);
    expect(problem).toMatchObject({
      code: "NAME_ENCODING",
      message: expect.stringContaining("public.t\\xe9"),
    });
    const exclude = JSON.parse(/source\.exclude: (\[.*?\])/.exec(problem?.remedy ?? "")?.[1] ?? "[]");
    expect(await problemsOf(url, { exclude })).toEqual([]);
    await client.query(/DO \$\$.*END\$\$;/.exec(problem?.remedy ?? "")?.[0] ?? "");
    expect(await problemsOf(url)).toEqual([]);
    await client.end();
  });

  test("so is a column", async () => {
    const { url, client, run } = await database();
    await run("'ALTER TABLE public.fine ADD \"c' || chr(233) || '\" int'");
    const [problem] = await problemsOf(url);
    expect(problem).toMatchObject({ code: "NAME_ENCODING", message: expect.stringContaining("c\\xe9") });
    await client.query(/DO \$\$.*END\$\$;/.exec(problem?.remedy ?? "")?.[0] ?? "");
    expect(await problemsOf(url)).toEqual([]);
    await client.end();
  });

  test("one that a captured table gets while it is streamed stops with what and where", async () => {
    const { url, client, run } = await database();
    const open = await OpenSource.open(url, { pipeline: definition(url, source) });
    try {
      await run("'ALTER TABLE public.fine ADD \"c' || chr(233) || '\" int'");
      await client.query("INSERT INTO public.fine (id) VALUES (1)");
      expect(await open.failure()).toMatchObject({
        code: "NAME_ENCODING",
        message: expect.stringMatching(
          /column 2 of the table public\.fine, as the log has it at [0-9A-F/]+.*c\\xe9/,
        ),
        remedy: expect.stringContaining("epoch new --drop-slot"),
      });
    } finally {
      await open.close();
      await client.end();
    }
  });

  test("a message's prefix that is no text stops nothing", async () => {
    const { url, client } = await database();
    const open = await OpenSource.open(url, { pipeline: definition(url, source) });
    try {
      await client.query("SELECT pg_logical_emit_message(false, 'p' || chr(233), 'x')");
      await client.query("INSERT INTO public.fine VALUES (1)");
      await open.until(1);
    } finally {
      await open.close();
      await client.end();
    }
  });

  test("with latin1 by choice, values are latin1 and names UTF-8, as the catalog's are", async () => {
    const { url, client } = await database();
    await client.query('CREATE TABLE public."tä" (id int PRIMARY KEY, "ö" text)');
    const open = await OpenSource.open(url, {
      pipeline: definition(url, { sqlAsciiEncoding: "latin1", tables: ['public."tä"'] }),
    });
    try {
      await client.query("INSERT INTO public.\"tä\" VALUES (1, 'caf' || chr(233))");
      await open.until(1);
      expect(open.changes[0]?.table).toBe("public.tä");
      expect(wire(open.changes[0] as { json: string }).after).toEqual({ id: 1, ö: "café" });
    } finally {
      await open.close();
      await client.end();
    }
  });
});
