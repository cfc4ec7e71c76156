import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { inShell, NewUser } from "./new-user.ts";
import { type Block, blocksOf, commandsOf } from "./page-blocks.ts";
import { ShellCommand } from "./shell-command.ts";

/*
 * docs/00-tutorial.md, played from its beginning to its end on the packed packages: commands are run, files are written, SQL is run on the
 * database of `npm run dev`, and what the page says is printed must be.
 */

const NAME = "shop-changes";
const minute = 60_000;
/** What becomes of a command that is another test's. */
const LEFT_OUT = Symbol("left out");

/** Runs SQL as the reader does with the line of `npm run dev` that begins with `psql`. */
async function runSql(dev: ShellCommand | undefined, text: string): Promise<void> {
  const url = /psql '([^']+)'/.exec(dev?.printed ?? "")?.[1];
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(text);
  await client.end();
}

let user: NewUser;
let dev: ShellCommand | undefined;
beforeAll(async () => {
  user = await NewUser.begin();
});
afterAll(async () => {
  await dev?.end();
  await user?.end();
});

test("the tutorial works from its beginning to its end", { timeout: 10 * minute }, async () => {
  // What npm create would install is linked before.
  const project = await user.installed(NAME);
  const done: string[] = [];
  const step = async (what: string, work: () => Promise<unknown>) => {
    const outcome = await work().catch((error: Error) => {
      throw new Error(`${what}: ${error.message}`, { cause: error });
    });
    if (outcome !== LEFT_OUT) done.push(what);
  };
  const command = async (words: readonly string[]) => {
    const [name, ...args] = words;
    const line = words.join(" ");
    // A database of the reader's is pages.test.ts's, and there is no account.
    if (line.includes("--database-url") || line === "npm run deploy" || name === "cd") return LEFT_OUT;
    if (line === `npm create tributary-cdc ${NAME}`)
      return await inShell(user.directory, "node", user.create, NAME, "--no-install");
    if (line === "npm run dev") {
      dev = new ShellCommand(project, "npm", "run", "dev");
      return await dev.prints("running; from another terminal");
    }
    return await inShell(project, name as string, ...args);
  };
  const play: Readonly<Record<string, (block: Block) => Promise<unknown>>> = {
    sh: async (block) => {
      for (const words of commandsOf(block)) await step(words.join(" "), () => command(words));
    },
    sql: ({ text }) => step(text, () => runSql(dev, text)),
    text: ({ text }) => step(text, async () => await dev?.prints(text.trim())),
    ts: async ({ text }) => {
      const path = /^\/\/ (\S+)\n/.exec(text)?.[1] ?? "";
      await step(path, async () => {
        await writeFile(join(project, path), text);
        if (path === "src/orders.ts") await dev?.prints("orders: reloaded");
      });
    },
  };
  for (const block of await blocksOf("docs/00-tutorial.md")) {
    const playing = play[block.language];
    expect(playing, block.place).toBeDefined();
    await playing?.(block);
  }
  expect(done).toEqual(
    expect.arrayContaining([
      "npm run dev",
      "src/orders.ts",
      "npm test",
      "npm run typecheck",
      "npx cdk synth",
    ]),
  );
});
