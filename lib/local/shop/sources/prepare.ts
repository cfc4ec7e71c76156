import type pg from "pg";
import type { Pipeline } from "../../../definition/definition.ts";
import { sourceKind } from "../../../source/index.ts";

/** Makes what the definition's source needs in the shop's database. */
export async function prepareSource(client: pg.ClientBase, definition: Pipeline): Promise<void> {
  for (const statement of await sourceKind(definition.source).prepare(definition))
    await client.query(statement);
}
