import * as z from "zod";
import type { KeyPart, KeyRecord } from "../source/known-keys.ts";
import { LeasedTable } from "./leased-table.ts";
import { persistentTable, type StatePlace } from "./persistent-table.ts";
import { knownKeysKey } from "./state-key.ts";

const rowKeys = z.array(z.array(z.string()));

/**
 * The known keys of a pipeline in the state table, one item a part. Each carries the generation that wrote it, and an older
 * one cannot write there any more.
 */
export function keyRecord(place: StatePlace, generation: number): KeyRecord {
  const { pipeline } = place;
  const table = new LeasedTable(place, generation);
  return {
    async *read() {
      const key = knownKeysKey(pipeline);
      for await (const page of persistentTable(place).pages(key))
        yield page.map((item): KeyPart => {
          const text = (name: string) => item[name]?.S ?? "";
          const keys = rowKeys.parse(JSON.parse(text("keys")));
          return { id: Number(text("sk").slice(key.sk.length)), table: text("table"), keys };
        });
    },
    async write({ id, table: of, keys }) {
      const key = knownKeysKey(pipeline, id);
      if (keys.length === 0) await table.delete(key);
      else await table.put(key, { table: { S: of }, keys: { S: JSON.stringify(keys) } });
    },
  };
}
