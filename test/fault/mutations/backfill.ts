import type { Mutation } from "./mutation.ts";

/** Breakages of backfills and rows that are read again. */
export const BACKFILL: readonly Mutation[] = [
  {
    name: "forget a row that was asked for anew while it was read",
    file: "lib/source/postgres/reread/asked-rows.ts",
    from: "    if (this.#rows.get(id) !== row) return;\n",
    to: "",
    tests: ["test/unit/postgres/reread/asked-rows.test.ts"],
  },
  {
    name: "take over rows to be read again without writing them under the new lease",
    file: "lib/source/postgres/reread/rereads.ts",
    from: "    await rereads.#writeAll();\n",
    to: "",
    tests: ["test/postgres/reread.test.ts"],
  },
  {
    name: "count a backfill that began before its table's rows were asked for",
    file: "lib/source/postgres/reread/rereads.ts",
    from: '(progress?.startPosition ?? "") >= at',
    to: '(progress?.startPosition ?? "") !== at',
    tests: ["test/postgres/reread.test.ts"],
  },
  {
    name: "show a table's changes to its backfill alone while rows of it are read again",
    file: "lib/source/postgres/backfill/listeners.ts",
    from: "first && second ? new Both(first, second) : first",
    to: "first",
    tests: ["test/unit/postgres/backfill/listeners.test.ts"],
  },
  {
    name: "keep a chunk's row under the key that it left in the window",
    file: "lib/source/postgres/backfill/change-window.ts",
    from: "      if (oldKey !== key) this.#complete(oldKey);\n",
    to: "",
    tests: ["test/unit/postgres/change-window.test.ts"],
  },
  {
    name: "a session that cannot be opened refuses the table's backfill",
    file: "lib/source/postgres/backfill/passing.ts",
    from: "  if (isOfConnecting(error)) return true;\n",
    to: "",
    tests: ["test/postgres/backfill-sessions.test.ts"],
  },
  {
    name: "a backfill waits for a secret that only a new start reads",
    file: "lib/source/postgres/backfill/table-run.ts",
    from: "        if (needsNewStart(error)) this.#options.restart(error);\n",
    to: "",
    tests: ["test/postgres/backfill-sessions.test.ts"],
  },
  {
    name: "a table that left stays read",
    file: "lib/source/postgres/backfill/backfills.ts",
    from: "if (!captured.has(backfill.table)) await this.#leave(backfill);",
    to: "if (!captured.has(backfill.table) && !hasEnded(backfill)) await this.#leave(backfill);",
    tests: ["test/postgres/backfill-again.test.ts"],
  },
  {
    name: "look for the rows of a filter without a bound",
    file: "lib/source/postgres/backfill/chunk-reader.ts",
    from: "const filtered = !keys && (where !== undefined || shape.filter !== undefined);",
    to: "const filtered = false;",
    tests: ["test/postgres/backfill-where.test.ts"],
  },
  {
    name: "take a renamed label of an enum for the same order of pages",
    file: "lib/source/postgres/backfill/table-shape.ts",
    from: "      ...(labels === null ? [] : [labels]),\n",
    to: "",
    tests: ["test/postgres/backfill-where.test.ts"],
  },
  {
    name: "a refused backfill counts as whole",
    file: "lib/source/postgres/backfill/wanted-backfills.ts",
    from: '(status === "done" || status === "cancelled") && isWhole',
    to: "isWhole",
    tests: ["test/aws/state/backfills.test.ts"],
  },
];
