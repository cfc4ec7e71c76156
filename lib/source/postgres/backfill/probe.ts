import * as z from "zod";
import { PROBE } from "../../../change/control-event.ts";
import { formatTable, type TableName } from "../../../change/table-pattern.ts";
import type { RouteTable } from "../../../definition/route.ts";
import { placeOfMessage } from "../decode/pgoutput/messages.ts";
import type { SlotState } from "../slot/slot-record.ts";
import { controlEvent } from "./control-event.ts";
import type { Delivery } from "./delivery.ts";

const probe = z.object({ slot: z.string(), table: z.string(), id: z.string().min(1).max(200) });

/** A probe of ours as a control event of its table's topic; undefined where it is another slot's, or names no captured table. */
export function probeDelivery(
  content: Buffer,
  lsn: bigint,
  options: {
    readonly pipeline: { readonly name: string };
    readonly state: Pick<SlotState, "slot" | "database" | "epoch">;
    readonly tables: readonly TableName[];
    readonly route: RouteTable;
  },
): Delivery | undefined {
  const { pipeline, state, tables, route } = options;
  let asked: z.output<typeof probe>;
  try {
    asked = probe.parse(JSON.parse(content.toString("utf8")));
  } catch {
    return undefined;
  }
  const table = tables.find((candidate) => formatTable(candidate) === asked.table);
  if (!table || asked.slot !== state.slot) return undefined;
  const { database, epoch } = state;
  const place = { pipeline: pipeline.name, database, epoch, lsn: placeOfMessage(lsn), ordinal: 1, table };
  const event = controlEvent(PROBE, asked, { ...place, topic: route(table).topic, nowMs: Date.now() });
  return { lsn, slices: [[event]], given: () => {}, failed: () => {} };
}
