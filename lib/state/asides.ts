import { type AttributeValue, DeleteItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import * as z from "zod";
import type { PositionText } from "../change/position.ts";
import type { Aside, AsideRecord } from "../source/postgres/aside/aside-record.ts";
import type { HoldStore } from "./holds.ts";
import { itemsOf } from "./items.ts";
import { asideKey, type StateKey, wantedAsideKey } from "./state-key.ts";
import { persistently } from "./table-call.ts";
import { notNewer, underLease } from "./under-lease.ts";

const stored = z.object({
  topic: z.string(),
  table: z.string(),
  position: z.string().regex(/^[0-9A-F]{24}[0-9]{10}$/),
  code: z.string(),
  message: z.string(),
  since: z.number(),
  sent: z.boolean(),
  reread: z.boolean(),
});

/** Changes that were put aside and that the slot has not passed. @throws StateTableError, StateTableUnavailableError */
export async function readAsides(store: HoldStore): Promise<Aside[]> {
  const items = await itemsOf(store, asideKey(store.pipeline));
  return items.map((item) => stored.parse(JSON.parse(item.aside?.S ?? "null")));
}

/** Positions of changes that operators want put aside. @throws StateTableError, StateTableUnavailableError */
export async function readWantedAsides(store: HoldStore): Promise<PositionText[]> {
  const key = wantedAsideKey(store.pipeline);
  return (await itemsOf(store, key)).map((item) => (item.sk?.S ?? "").slice(key.sk.length));
}

/** Asks the capture task to put one change aside when it comes to it. @throws StateTableError, StateTableUnavailableError */
export async function wantAside(store: HoldStore, position: PositionText): Promise<void> {
  const { dynamodb, table, pipeline } = store;
  await persistently(store, () =>
    dynamodb.send(new PutItemCommand({ TableName: table, Item: asKey(wantedAsideKey(pipeline, position)) })),
  );
}

/** Takes that back; a change that was put aside already stays so. @throws StateTableError, StateTableUnavailableError */
export async function unwantAside(store: HoldStore, position: PositionText): Promise<void> {
  const Key = asKey(wantedAsideKey(store.pipeline, position));
  await persistently(store, () =>
    store.dynamodb.send(new DeleteItemCommand({ TableName: store.table, Key })),
  );
}

/** Changes that were put aside, as the capture task that holds the lease keeps them. */
export function asideRecord(store: HoldStore, generation: number): AsideRecord {
  const { dynamodb, table, pipeline } = store;
  const condition = notNewer(generation);
  const send = (command: () => Promise<unknown>) => underLease(store, generation, command);
  const keyOf = ({ topic, position }: Aside) => asKey(asideKey(pipeline, { topic, position }));
  return {
    list: () => readAsides(store),
    write: (aside) =>
      send(() =>
        dynamodb.send(
          new PutItemCommand({
            TableName: table,
            Item: {
              ...keyOf(aside),
              aside: { S: JSON.stringify(aside) },
              generation: { N: String(generation) },
            },
            ...condition,
          }),
        ),
      ),
    remove: (aside) =>
      send(() => dynamodb.send(new DeleteItemCommand({ TableName: table, Key: keyOf(aside), ...condition }))),
    wanted: () => readWantedAsides(store),
    met: (position) => unwantAside(store, position),
  };
}

function asKey({ pk, sk }: StateKey): Record<string, AttributeValue> {
  return { pk: { S: pk }, sk: { S: sk } };
}
