/** One step of a row: a backlog of its own, written and read like those of the other steps. */
export interface Step {
  readonly name: string;
  readonly changes: number;
  readonly setup: readonly string[];
  readonly write: readonly string[];
  readonly partitions?: number;
}

/** How something grows. */
export interface Row {
  readonly name: string;
  readonly grows: string;
  /** What the cost of a step is counted by; `byte`: of what is sent to Kinesis, where the changes themselves grow. */
  readonly per: "change" | "byte";
  steps(quick: boolean): readonly Step[];
}

const TABLE = "CREATE TABLE t (id bigint PRIMARY KEY, note text NOT NULL)";
const NOTE = "'Please leave the parcel with the neighbour on the second floor; the bell does not work.'";

/** Inserts of `changes` rows in transactions of `size` into `t`. */
function inTransactions(changes: number, size: number): string {
  return `DO $$ BEGIN FOR i IN 0..${changes / size - 1} LOOP
    INSERT INTO t SELECT i::bigint * ${size} + g, ${NOTE} FROM generate_series(1, ${size}) g; COMMIT; END LOOP; END $$`;
}

function sized(name: string, bytes: number, total: number): Step {
  const changes = Math.max(100, Math.round(total / (bytes + 600)));
  return {
    name,
    changes,
    // Neither compressed nor kept in the row above 2 kB: the log carries every byte.
    setup: [TABLE, "ALTER TABLE t ALTER note SET STORAGE EXTERNAL"],
    write: [
      `DO $$ BEGIN FOR i IN 1..${changes} LOOP INSERT INTO t VALUES (i, repeat('0123456789', ${bytes / 10}));
       IF i % 100 = 0 OR i % ${Math.max(1, Math.round(1e7 / bytes))} = 0 THEN COMMIT; END IF; END LOOP; END $$`,
    ],
  };
}

function columns(count: number, values: number): Step {
  const changes = Math.max(500, Math.round(values / (count + 20)));
  const names = Array.from({ length: count - 1 }, (_, i) => `c${i + 1}`);
  const list = ["id bigint PRIMARY KEY", ...names.map((name) => `${name} int NOT NULL`)].join(", ");
  return {
    name: `${count}`,
    changes,
    setup: [`CREATE TABLE t (${list})`],
    write: [
      `DO $$ BEGIN FOR i IN 0..${Math.ceil(changes / 100) - 1} LOOP
       INSERT INTO t SELECT ${["g", ...names.map((_, i) => `g + ${i}`)].join(", ")}
         FROM generate_series(i * 100 + 1, least(i * 100 + 100, ${changes})) g; COMMIT; END LOOP; END $$`,
    ],
  };
}

/** Transactions of 100 rows, over ten tables where there are ten. */
function tables(count: number, quick: boolean): Step {
  const changes = quick ? 40_000 : 400_000;
  const names = Array.from({ length: count }, (_, i) => `t${i}`);
  const note = NOTE.replaceAll("'", "''");
  return {
    name: `${count}`,
    changes,
    setup: names.map((name) => `CREATE TABLE ${name} (id bigint PRIMARY KEY, note text NOT NULL)`),
    write: [
      `DO $$ DECLARE n bigint := 0; BEGIN FOR i IN 0..${changes / 100 - 1} LOOP
         FOR k IN 0..9 LOOP
           EXECUTE format('INSERT INTO t%s SELECT %s + g, ${note} FROM generate_series(1, 10) g', (i * 10 + k) % ${count}, n);
           n := n + 10;
         END LOOP; COMMIT; END LOOP; END $$`,
    ],
  };
}

/** Every row of "How cost grows" (docs/13). */
export const ROWS: readonly Row[] = [
  {
    name: "tables",
    grows: "tables, changes spread evenly, 64 partitions each",
    per: "change",
    steps: (quick) => [1, 10, 100, 1_000, 5_000].map((count) => tables(count, quick)),
  },
  {
    name: "small-tables",
    grows: "tables, changes spread evenly, 4 partitions each",
    per: "change",
    steps: (quick) => [1, 10, 100, 1_000, 5_000].map((count) => ({ ...tables(count, quick), partitions: 4 })),
  },
  {
    name: "transactions",
    grows: "rows of a transaction",
    per: "change",
    steps: (quick) =>
      (quick ? [1, 10, 1_000, 50_000] : [1, 10, 1_000, 100_000, 1_000_000]).map((size) => {
        const changes = Math.max(size, quick ? 50_000 : 400_000);
        return { name: `${size}`, changes, setup: [TABLE], write: [inTransactions(changes, size)] };
      }),
  },
  {
    name: "rows",
    grows: "bytes of a row",
    per: "byte",
    steps: (quick) => {
      const total = quick ? 30e6 : 250e6;
      return [
        sized("100 B", 100, total),
        sized("1 kB", 1_000, total),
        sized("10 kB", 10_000, total),
        sized("100 kB", 100_000, total),
        sized("1 MB", 1_000_000, total),
      ];
    },
  },
  {
    name: "columns",
    grows: "columns of a table, integers",
    per: "byte",
    steps: (quick) => [1, 10, 100, 400, 1_600].map((count) => columns(count, quick ? 500_000 : 5_000_000)),
  },
  {
    name: "partitions",
    grows: "partitions of a topic",
    per: "change",
    steps: (quick) =>
      [1, 8, 64, 512, 4_096].map((partitions) => {
        const changes = quick ? 50_000 : 400_000;
        return {
          name: `${partitions}`,
          changes,
          partitions,
          setup: [TABLE],
          write: [inTransactions(changes, 100)],
        };
      }),
  },
  {
    name: "backlog",
    grows: "changes that wait, in transactions of 100",
    per: "change",
    steps: (quick) =>
      (quick ? [50_000, 200_000] : [100_000, 500_000, 1_000_000, 5_000_000]).map((changes) => ({
        name: `${changes}`,
        changes,
        setup: [TABLE],
        write: [inTransactions(changes, 100)],
      })),
  },
];
