import { expect, test } from "vitest";
import { CaptureLeaseLostError } from "../../../lib/source/capture-lease-lost.ts";
import type { UnhealedTable } from "../../../lib/source/postgres/contract/unhealed-record.ts";
import { CaptureState } from "../../../lib/state/capture-state.ts";
import type { StatePlace } from "../../../lib/state/persistent-table.ts";
import { TableNotUnhealedError } from "../../../lib/state/state-errors.ts";
import { acceptUnhealed, readUnhealed, unhealedRecord } from "../../../lib/state/unhealed.ts";
import { emulatedAws } from "../emulated.ts";

const aws = emulatedAws();

async function store(): Promise<StatePlace> {
  return {
    dynamodb: aws().dynamodb,
    table: await aws().freshTable(),
    pipeline: "shop",
    signal: new AbortController().signal,
  };
}

const place = (n: number) => ({ position: `00000001000000000000000${n}0000000000`, atMs: n });
const entry: UnhealedTable = {
  table: 'public."Odd#name"',
  reasons: ['the publication "p" leaves out update'],
  since: place(1),
  until: place(2),
  asks: false,
};

test("a table with missing changes comes back as it was written, until a backfill or an operator ends it", async () => {
  const at = await store();
  const record = unhealedRecord(at, 3);
  await record.write(entry);
  await record.write({ ...entry, table: "public.t" });
  expect(await record.list()).toEqual([entry, { ...entry, table: "public.t" }]);
  await acceptUnhealed(at, entry.table);
  await expect(acceptUnhealed(at, entry.table)).rejects.toThrow(TableNotUnhealedError);
  expect((await readUnhealed(at)).map(({ table }) => table)).toEqual(["public.t"]);
  await record.end("public.t");
  expect(await readUnhealed(at)).toEqual([]);
});

test("a task that was taken over brings back nothing that its successor or an operator ended", async () => {
  const at = await store();
  await unhealedRecord(at, 4).write(entry);
  await expect(unhealedRecord(at, 3).end(entry.table)).rejects.toThrow(CaptureLeaseLostError);
  await acceptUnhealed(at, entry.table);
  await expect(unhealedRecord(at, 3).write(entry)).rejects.toThrow(CaptureLeaseLostError);
  expect(await readUnhealed(at)).toEqual([]);
});

test("what the publication said is kept beside the slot's state, however many tables it names", async () => {
  const { dynamodb, table, pipeline, signal } = await store();
  const capture = await CaptureState.take({ dynamodb, table, pipeline, signal, log: () => {} });
  const published = (n: number) => ({
    ...{ oid: n, xmin: String(700 + n), schema: "public", table: `t${n}` },
    ...{ columns: null, filter: null },
  });
  const terms = {
    ...{
      oid: 1,
      xmin: "700",
      owner: 10,
      every: false,
      insert: true,
      update: true,
      delete: true,
      truncate: true,
    },
    ...{
      viaRoot: true,
      generated: null,
      schemas: [],
      tables: Array.from({ length: 5000 }, (_, i) => published(i)),
    },
  };
  const state = {
    ...{ epoch: 1, slot: "s", publication: "p", database: "d", systemId: "1", timeline: 1, confirmedLsn: 5n },
    ...{ recentCommits: [], terms, termsSeen: { lsn: 4n, atMs: 1 } },
    leaves: { 7: [{ oid: 8, schema: "public", table: "p1", file: 9, space: 0, edges: ["700"] }] },
    truncates: [{ root: 7, xid: 701, lsn: 3n }],
  };
  await capture.write(state);
  expect(await capture.read()).toEqual(state);
  const fewer = { ...state, confirmedLsn: 6n, terms: { ...terms, tables: terms.tables.slice(1) } };
  await capture.write(fewer);
  // A write that knows of none leaves them.
  const { terms: _, leaves: __, ...older } = fewer;
  await capture.write({ ...older, confirmedLsn: 7n });
  expect(await capture.read()).toEqual({ ...fewer, confirmedLsn: 7n });
  await capture.beginEpoch({ epoch: 2 }, undefined);
  expect(await capture.read()).toBeUndefined();
  await capture.write({ ...older, epoch: 2 });
  expect(await capture.read()).toEqual({ ...older, epoch: 2 });
  await capture.release();
});
