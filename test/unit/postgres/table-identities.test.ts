import { expect, test } from "vitest";
import { formatPosition } from "../../../lib/change/position.ts";
import { captures } from "../../../lib/definition/definition.ts";
import { definePipeline, postgres } from "../../../lib/definition/pipeline.ts";
import { routeTables } from "../../../lib/definition/route.ts";
import type { Relation, ReplicaIdentity } from "../../../lib/source/postgres/decode/pgoutput/messages.ts";
import { requireLog } from "../../../lib/source/postgres/definition.ts";
import type { KnownTables } from "../../../lib/source/postgres/identity/known-tables.ts";
import { withNameBetween } from "../../../lib/source/postgres/identity/known-tables.ts";
import { TableIdentities } from "../../../lib/source/postgres/identity/table-identities.ts";

/** A table of a catalog that is a list: `key` names columns of `columns`, all of them int4. */
interface FakeTable {
  readonly oid: number;
  readonly table: string;
  readonly columns: readonly string[];
  readonly key: readonly string[];
  readonly identity?: "d" | "f";
  /** Types of columns that are no int4. */
  readonly types?: Readonly<Record<string, number>>;
}

const at = (commit: number, ordinal = 1) => formatPosition({ epoch: 1, commitLsn: BigInt(commit), ordinal });

function identities(catalog: { tables: readonly FakeTable[]; lsn: number }, source: { keys?: object } = {}) {
  const pipeline = requireLog(
    definePipeline({
      name: "shop",
      source: postgres({ tables: ["public.*"], exclude: ["public.stage", "public.*_old"] }),
      topics: { keys: (source.keys ?? {}) as Record<string, [string]> },
    }),
    "test",
  );
  const lines: string[] = [];
  const stored: KnownTables[] = [];
  const keep = (line: string) => void lines.push(line);
  const make = (known: KnownTables | undefined) =>
    new TableIdentities({
      known,
      epoch: 1,
      route: routeTables(pipeline),
      captures: (table) => captures(pipeline.source, table),
      query: async (_sql, [oids, , names]) => {
        const wanted = catalog.tables.filter(
          ({ oid, table }) => (oids as string[]).includes(String(oid)) || (names as string[]).includes(table),
        );
        const lsn = `0/${catalog.lsn.toString(16)}`;
        const rows = wanted.map(({ oid, table, columns, key, identity = "d", types = {} }) => ({
          ...{ lsn, oid, schema: "public", table, identity, columns },
          key: key.map((name) => ({ name, number: columns.indexOf(name) + 1, type: types[name] ?? 23 })),
        }));
        const none = { lsn, oid: null, schema: null, table: null, identity: null, key: null, columns: null };
        return { rows: rows.length > 0 ? rows : [none] };
      },
      store: async (tables) => void stored.push(tables),
      log: { info: keep, warn: keep, error: keep },
      onChange: () => {},
      onDue: () => {},
    });
  const begin = async (known?: KnownTables) => {
    const made = make(known);
    await made.begin(catalog.tables.map(({ table }) => ({ schema: "public", table })));
    return made;
  };
  return { begin, lines, stored };
}

/** What the log says of a table. */
function relation({ oid, table, columns, key, identity = "d", types = {} }: FakeTable): Relation {
  const identities: Record<string, ReplicaIdentity> = { d: "default", f: "full" };
  return {
    ...{ oid, schema: "public", table, identity: identities[identity] as ReplicaIdentity },
    columns: columns.map((name) => ({
      ...{ name, type: types[name] ?? 23, modifier: -1, key: identity === "f" || key.includes(name) },
    })),
  };
}

const names = (key: readonly { readonly names: readonly string[] }[] | undefined) =>
  key?.map((column) => column.names.at(-1));

const ONE: FakeTable = { oid: 1, table: "t", columns: ["tenant", "id"], key: ["id"], identity: "f" };

test("a key counts from where it was accepted on, also after a restart: what comes again goes where it went", async () => {
  const catalog = { tables: [ONE], lsn: 10 };
  const { begin, stored } = identities(catalog);
  await begin();
  catalog.tables = [{ ...ONE, key: ["tenant", "id"] }];
  catalog.lsn = 20;
  const second = await begin(stored.at(-1));
  const [first, behind] = second.view(relation(ONE))?.spans ?? [];
  expect(names(first?.key)).toEqual(["id"]);
  expect(behind).toMatchObject({ from: at(20), problem: { code: "KEY_CHANGED" } });
  await second.accept("public.t", (await second.present("public.t")).now, at(25, 3));
  catalog.lsn = 30;
  const third = await begin(stored.at(-1));
  expect(third.differences.size).toBe(0);
  const spans = third.view(relation(ONE))?.spans ?? [];
  expect(spans.map(({ from, key, problem }) => [from, names(key), problem])).toEqual([
    [undefined, ["id"], undefined],
    [at(25, 3), ["tenant", "id"], undefined],
  ]);
});

test("a hold that began before the difference was seen counts from its own begin", async () => {
  const catalog = { tables: [ONE], lsn: 10 };
  const { begin, stored } = identities(catalog);
  await begin();
  catalog.tables = [{ ...ONE, key: ["tenant"] }];
  catalog.lsn = 20;
  const second = await begin(stored.at(-1));
  second.isHeldFrom("public.t", at(15, 2));
  expect(second.view(relation(ONE))?.spans[1]?.from).toBe(at(15, 2));
  expect(second.isDue(1_000n)).toBe(false);
});

test("a difference is due when the log has come to where it was seen, once", async () => {
  const catalog = { tables: [ONE], lsn: 10 };
  const { begin } = identities(catalog);
  const tables = await begin();
  catalog.tables = [{ ...ONE, oid: 2 }];
  catalog.lsn = 20;
  await tables.lookAtAll();
  expect(tables.takeDue(19n)).toEqual([]);
  expect(tables.takeDue(20n)).toMatchObject([{ table: "public.t", error: { code: "TABLE_REPLACED" } }]);
  await tables.lookAtAll();
  expect(tables.takeDue(21n)).toEqual([]);
});

test("where columns are chosen by the definition, another key of the table's own holds nothing and is told", async () => {
  const catalog = { tables: [ONE], lsn: 10 };
  const { begin, lines } = identities(catalog, { keys: { "public.t": ["tenant"] } });
  const tables = await begin();
  catalog.tables = [{ ...ONE, key: ["tenant", "id"] }];
  await tables.lookAtAll();
  expect(tables.differences.size).toBe(0);
  expect(lines).toEqual([expect.stringMatching(/key of public\.t was \(id\) and is \(tenant, id\) now/)]);
});

test("a key whose type is another one is another key", async () => {
  const catalog = { tables: [ONE], lsn: 10 };
  const { begin } = identities(catalog);
  const tables = await begin();
  catalog.tables = [{ ...ONE, types: { id: 25 } }];
  await tables.lookAtAll();
  expect(tables.differences.get("public.t")?.error.code).toBe("KEY_CHANGED");
});

const LIVE: FakeTable = { oid: 1, table: "live", columns: ["id"], key: ["id"] };
const STAGE: FakeTable = { oid: 2, table: "stage", columns: ["id"], key: ["id"] };

test("another table's changes under a captured name are a problem until they are accepted; the old one's stay readable", async () => {
  const catalog = { tables: [LIVE, STAGE], lsn: 10 };
  const { begin } = identities(catalog);
  const tables = await begin();
  catalog.tables = [
    { ...LIVE, table: "live_old" },
    { ...STAGE, table: "live" },
  ];
  catalog.lsn = 20;
  const taken = relation({ ...STAGE, table: "live" });
  expect(tables.mustLook(taken)).toBe(true);
  await tables.lookFor(taken);
  expect(tables.view(taken)?.spans).toMatchObject([{ problem: { code: "TABLE_REPLACED" } }]);
  // Under its new name, which is not captured, it still is the captured one.
  expect(tables.view(relation({ ...LIVE, table: "live_old" }))).toMatchObject({
    name: { table: "live" },
    spans: [{ problem: { code: "TABLE_REPLACED" } }],
  });
  expect(tables.view(relation(LIVE))?.spans[0]?.problem).toBeUndefined();
  await tables.accept("public.live", (await tables.present("public.live")).now, at(20));
  expect(tables.view(taken)).toMatchObject({ passedOver: false, spans: [{ problem: undefined }] });
  expect(tables.view(relation({ ...LIVE, table: "live_old" }))).toBeUndefined();
  expect(tables.view(relation(LIVE))?.spans).toMatchObject([
    { problem: undefined },
    { from: at(20), problem: { code: "TABLE_REPLACED" } },
  ]);
});

test("two captured tables that swap their names are each told, and each accepted", async () => {
  const [a, b]: [FakeTable, FakeTable] = [
    { ...LIVE, table: "a" },
    { ...STAGE, table: "b" },
  ];
  const catalog = { tables: [a, b], lsn: 10 };
  const { begin, stored } = identities(catalog);
  const tables = await begin();
  catalog.tables = [
    { ...a, table: "b" },
    { ...b, table: "a" },
  ];
  await tables.lookAtAll();
  expect([...tables.differences.keys()]).toEqual(["public.a", "public.b"]);
  expect(tables.view(relation({ ...a, table: "b" }))).toMatchObject({
    name: { table: "b" },
    spans: [{ problem: { code: "TABLE_REPLACED" } }],
  });
  for (const name of ["public.a", "public.b"])
    await tables.accept(name, (await tables.present(name)).now, at(20));
  expect(tables.differences.size).toBe(0);
  const oids = Object.entries(stored.at(-1) ?? {}).map(([name, all]) => [name, all.at(-1)?.oid]);
  expect(oids).toEqual([
    ["public.a", 2],
    ["public.b", 1],
  ]);
  for (const one of catalog.tables) expect(tables.view(relation(one))?.spans.at(-1)?.problem).toBeUndefined();
});

test("a table that was only dropped is no difference, and one made anew under its name is", async () => {
  const catalog: { tables: FakeTable[]; lsn: number } = { tables: [LIVE], lsn: 10 };
  const { begin, stored } = identities(catalog);
  await begin();
  catalog.tables = [];
  const second = await begin(stored.at(-1));
  expect(second.differences.size).toBe(0);
  catalog.tables = [{ ...LIVE, oid: 3 }];
  await second.lookAtAll();
  expect(second.differences.get("public.live")?.error.message).toMatch(/OID 3.*OID 1.*was dropped/);
  await second.accept("public.live", undefined, at(20));
  expect(second.known).toEqual({});
});

test("a name of a key's column between two looks is told by what is left over, and by nothing less", () => {
  const key = [{ number: 1, type: 23, names: ["id", "key"] }];
  const logged = (...columns: string[]) => columns.map((name) => ({ name, type: name === "v" ? 25 : 23 }));
  expect(withNameBetween(key, logged("t_id", "v"), ["key", "v"])).toEqual([
    { number: 1, type: 23, names: ["id", "t_id", "key"] },
  ]);
  expect(withNameBetween(key, logged("t_id", "gone", "v"), ["key", "v"])).toBeUndefined();
  expect(withNameBetween(key, logged("v"), ["key"])).toBeUndefined();
  expect(withNameBetween(key, logged("id", "x"), ["key"])).toBeUndefined();
});
