import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import type { ShopResult } from "../../lib/local/shop/run.ts";
import { eventually } from "../eventually.ts";
import { npmStart, type Started } from "./npm-start.ts";

const runs: Started[] = [];
function start(...args: string[]): Started {
  const run = npmStart(...args);
  runs.push(run);
  return run;
}
afterEach(async () => {
  for (const run of runs.splice(0)) {
    try {
      run.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await run.finished;
  }
});

/** The URL behind a word that the start prints: `  read model  psql '…'`. */
function url(run: Started, name: string): Promise<string> {
  return eventually(() => new RegExp(`${name} +psql '([^']+)'`).exec(run.printed())?.[1], {
    what: `${name} in the output`,
  });
}

async function query<R extends pg.QueryResultRow>(connectionString: string, sql: string): Promise<R[]> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe("npm start -- --changes --exit --json", () => {
  it("lets that many changes take effect, and finds every table equal at the consumers", async () => {
    const { code, stdout, stderr } = await start("--changes", "3000", "--exit", "--json").finished;
    expect(code, stderr).toBe(0);
    expect(stdout.trim().split("\n"), "one line on standard output").toHaveLength(1);
    const result = JSON.parse(stdout) as ShopResult;
    expect(Object.keys(result)).toEqual([
      "changes",
      "published",
      "applied",
      "duplicates",
      "deadLettered",
      "mismatches",
      "seconds",
    ]);
    expect(result.mismatches).toBe(0);
    expect(result.changes).toBeGreaterThanOrEqual(3000);
    // What the workload counted, PostgreSQL's log held: not one more, not one less.
    expect(result.published).toBe(result.changes);
    expect(result.applied + result.deadLettered).toBe(result.changes);
  });

  it("loses and doubles nothing when capture and a handler's process are killed on the way", async () => {
    const run = start("--changes", "4000", "--rate", "400", "--exit", "--json");
    const readModel = await url(run, "read model");
    for (const command of [/functions\/capture\/main\.ts/, /order-summary\.ts handler/]) {
      const [{ count }] = (await query<{ count: string }>(readModel, "SELECT count(*) FROM orders")) as [
        { count: string },
      ];
      await eventually(
        async () =>
          (await query(readModel, `SELECT FROM orders OFFSET ${count}::int + 50 LIMIT 1`)).length > 0,
        { what: "more orders in the read model" },
      );
      process.kill(processOf(run.pid, command), "SIGKILL");
    }
    const { code, stdout, stderr } = await run.finished;
    expect(code, stderr).toBe(0);
    const result = JSON.parse(stdout) as ShopResult;
    expect(result.mismatches).toBe(0);
    // The counts of a killed process are lost with it: the tables are what counts.
    expect(stderr).toContain("capture: ended, starting it again: killed");
  });

  it("ends with an error and names the rows when a consumer's table was altered behind its back", async () => {
    const run = start("--changes", "1500", "--rate", "400", "--exit", "--json");
    const readModel = await url(run, "read model");
    await eventually(async () => (await query(readModel, "SELECT FROM orders LIMIT 1")).length === 1, {
      what: "an order in the read model",
    });
    await query(
      readModel,
      "INSERT INTO orders (id, status, topic_partition, position) VALUES (-7, 'forged', 0, repeat('F', 34))",
    );
    const { code, stdout, stderr } = await run.finished;
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ mismatches: 1 });
    expect(stderr).toContain("mismatch: orders -7: extra");
  });
});

describe("npm start", () => {
  it("shows one's own change arriving, and stops within seconds on Ctrl-C, leaving nothing behind", async () => {
    const run = start();
    const shop = await url(run, "shop");
    const readModel = await url(run, "read model");
    const id = await eventually(
      async () =>
        (await query<{ id: string }>(shop, "SELECT max(id) AS id FROM orders HAVING max(id) > 20"))[0]?.id,
      { what: "orders of the workload" },
    );
    await query(shop, `UPDATE orders SET total = 123456.78 WHERE id = ${id}`);
    await query(shop, "BEGIN; UPDATE orders SET total = 999; ROLLBACK");
    await eventually(
      async () => {
        const rows = await query<{ total: string }>(
          readModel,
          `SELECT total FROM orders WHERE id = ${id} OR total = 999`,
        );
        return rows.length === 1 && rows[0]?.total === "123456.78";
      },
      { what: "the change in the read model" },
    );
    await eventually(() => /order-summary .* applied/.test(run.printed()), { what: "a line of figures" });
    const children = descendants(run.pid);
    expect(children.length).toBeGreaterThan(6);
    run.kill("SIGINT");
    await eventually(() => children.every((pid) => !isAlive(pid)), {
      what: "every child process to end",
      deadlineMs: 30_000,
    });
    await run.finished;
    await expect(query(shop, "SELECT 1")).rejects.toThrow();
  });

  it("runs twice at once, and a killed one takes its children with it", async () => {
    const [first, second] = [start(), start()];
    const urls = [await url(first, "shop"), await url(second, "shop")];
    expect(urls[0]).not.toBe(urls[1]);
    for (const run of [first, second]) {
      await eventually(() => /order-summary .* applied/.test(run.printed()), { what: "a line of figures" });
    }
    const children = descendants(first.pid);
    const directory = dataDirectoryOf(first.pid);
    await access(directory);
    // The host itself, not npm: what the out-of-memory killer would do.
    process.kill(processOf(first.pid, /^\S*node\S* lib\/local\/main\.ts/), "SIGKILL");
    await eventually(() => children.every((pid) => !isAlive(pid)), { what: "every child process to end" });
    await eventually(
      () =>
        access(directory).then(
          () => false,
          () => true,
        ),
      {
        what: "the data directory to be removed",
      },
    );
    expect(await query(urls[1] as string, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });
});

describe("npm start with bad input", () => {
  it.each([
    [["--changes", "abc"], /--changes.*abc/s],
    [["--unknown"], /unknown option '--unknown'/],
    [["--pipeline", "absent.ts"], /absent\.ts/],
    [["--database-url", "postgres://nobody@127.0.0.1:1/none"], /127\.0\.0\.1:1 cannot be reached/],
  ])("%j: says what is wrong, without a stack, before anything starts", async (args, message) => {
    const { code, stdout, stderr } = await start(...args).finished;
    expect(code).toBeGreaterThan(0);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^ +at /m);
    expect(stdout).not.toContain("starting");
  });

  it("names a handler file that is missing before anything starts", async () => {
    const directory = await mkdtemp(join(tmpdir(), "tributary-test-"));
    const file = join(directory, "pipeline.ts");
    const pipeline = new URL("../../lib/definition/pipeline.ts", import.meta.url).href;
    await writeFile(
      file,
      `import { definePipeline, postgres } from ${JSON.stringify(pipeline)};
       export default definePipeline({
         name: "shop",
         source: postgres({ tables: ["public.*"] }),
         consumers: [{ name: "absent", entry: "functions/absent.ts", topics: ["*"] }],
       });`,
    );
    const { code, stdout, stderr } = await start("--pipeline", file).finished;
    await rm(directory, { recursive: true });
    expect(code).toBe(2);
    // Relative to the project of the definition, which is its folder here: not to the folder that npm start runs in.
    expect(stderr).toMatch(/consumers\[0\]\.entry: .*functions\/absent\.ts/);
    expect(stderr).toContain(`looked for ${join(directory, "functions/absent.ts")}`);
    expect(stdout).not.toContain("starting");
  });

  it("names a port that is taken", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as { port: number };
    const { code, stderr } = await start("--port", String(port)).finished;
    taken.close();
    expect(code).toBe(1);
    expect(stderr).toContain(`Port ${port} on 127.0.0.1 is taken`);
    expect(stderr).not.toMatch(/^ +at /m);
  });
});

function processes(): { pid: number; parent: number; command: string }[] {
  const table = execFileSync("ps", ["-eo", "pid=,ppid=,args="], { encoding: "utf8" });
  return table.split("\n").flatMap((line) => {
    const match = /^ *(\d+) +(\d+) (.*)$/.exec(line);
    return match ? [{ pid: Number(match[1]), parent: Number(match[2]), command: match[3] ?? "" }] : [];
  });
}

/** All processes below one, however deep. */
function descendants(root: number): number[] {
  const all = processes();
  const below = (parent: number): number[] =>
    all.filter((p) => p.parent === parent).flatMap(({ pid }) => [pid, ...below(pid)]);
  return below(root);
}

/** The one process below `root` whose command line matches. */
function processOf(root: number, command: RegExp): number {
  const below = new Set(descendants(root));
  const found = processes().find((p) => below.has(p.pid) && command.test(p.command));
  if (found === undefined) throw new Error(`no process ${command} below ${root}`);
  return found.pid;
}

function isAlive(pid: number): boolean {
  return processes().some((p) => p.pid === pid && !p.command.includes("<defunct>"));
}

function dataDirectoryOf(root: number): string {
  const below = new Set(descendants(root));
  const server = processes().find((p) => below.has(p.pid) && /\/postgres -D /.test(p.command));
  const directory = / -D (\S+)/.exec(server?.command ?? "")?.[1];
  if (directory === undefined) throw new Error("no PostgreSQL server among the processes");
  return directory;
}
