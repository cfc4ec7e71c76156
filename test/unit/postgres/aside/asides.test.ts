import { test } from "vitest";
import { formatPosition } from "../../../../lib/change/position.ts";
import type { Aside } from "../../../../lib/source/postgres/aside/aside-record.ts";
import { Asides } from "../../../../lib/source/postgres/aside/asides.ts";
import { eventually } from "../../../eventually.ts";
import { MemoryAsides } from "../../../postgres/aside-record.ts";
import { MemoryBackfills } from "../../../postgres/backfill-record.ts";
import { KeptLog } from "../../../postgres/source.ts";

const ORDERS = "public.orders";
const place = (commitLsn: bigint) => formatPosition({ epoch: 1, commitLsn, ordinal: 0 });
const aside: Aside = {
  ...{ topic: "shop.public.orders", table: ORDERS, code: "TEXT_ENCODING", message: "m" },
  ...{ position: formatPosition({ epoch: 1, commitLsn: 100n, ordinal: 1 }), since: 1 },
  ...{ sent: true, reread: false },
};

/** A task that starts with one change put aside whose table is to be read again. */
async function scene() {
  const record = new MemoryAsides();
  await record.write(aside);
  const backfills = new MemoryBackfills();
  const open = () =>
    Asides.open({
      ...{ record, queue: record, backfills, tables: [ORDERS], all: true, epoch: 1 },
      ...{ pipeline: "shop", database: "shop", isHeld: () => false },
      log: new KeptLog(),
    });
  return { record, backfills, open };
}

const begun = (startPosition: string) => ({
  ...{ startPosition, lastKey: null, keyColumns: [], chunk: 0, rows: 0, bytes: 0 },
  ...{ startedAt: 1, updatedAt: 1 },
});

test("a backfill that another asked for counts once it says where it began: before its first write it may have read the row", async () => {
  const { record, backfills, open } = await scene();
  await backfills.request(ORDERS, { sweep: true, requestedAt: 1 });
  let lists = 0;
  const list = backfills.list.bind(backfills);
  backfills.list = async () => {
    lists++;
    return await list();
  };
  const asides = await open();
  await eventually(() => lists > 0, { what: "a look at the backfills" });
  // It began and read the row before the change; only now it could write so.
  await backfills.write(backfills.of(ORDERS), { status: "done", epoch: 1, progress: begun(place(90n)) });
  await eventually(() => backfills.of(ORDERS).run === 2, { what: "the next one", deadlineMs: 15_000 });
  await eventually(async () => (await record.list())[0]?.reread, { what: "it to be noted" });
  await asides.close();
});
