import { writeFile } from "node:fs/promises";
import pg from "pg";
import { afterEach, describe, expect, test } from "vitest";
import { beginEpoch, type EpochOptions } from "../../lib/admin/begin-epoch.ts";
import { retireSlots } from "../../lib/capture/retire-slots.ts";
import { definePipeline, type Pipeline, type PipelineInput } from "../../lib/definition/pipeline.ts";
import { connectionFromUrl } from "../../lib/source/postgres/link/connection.ts";
import { SlotForeignError } from "../../lib/source/postgres/postgres-errors.ts";
import { CaptureState } from "../../lib/state/capture-state.ts";
import { emulatedAws } from "../aws/emulated.ts";
import { freshDatabase, withPostgres } from "../postgres/server.ts";
import { KeptLog } from "../postgres/source.ts";
import { CaptureBench } from "./capture-bench.ts";

const aws = emulatedAws();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});
const signal = new AbortController().signal;
const LEASE_MS = 1_500;

describe("what is to be dropped at the server stays noted until it is", () => {
  withPostgres((server) => {
    async function scene() {
      const url = await freshDatabase(server());
      const bench = await CaptureBench.create(aws(), url, { source: {} });
      cleanups.push(() => bench.end());
      const { default: definition } = (await import(bench.environment.TRIBUTARY_PIPELINE as string)) as {
        default: PipelineInput;
      };
      const table = bench.environment.TRIBUTARY_STATE_TABLE as string;
      const slots = async () => {
        const { rows } = await bench.client.query<{ slot_name: string }>(
          "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()",
        );
        return rows.map(({ slot_name }) => slot_name);
      };
      const with_ = (source: object): Pipeline =>
        definePipeline({ ...definition, source: { ...definition.source, ...source } } as PipelineInput);
      return { url, bench, table, slots, with_, definition };
    }

    /** `epoch new --drop-slot` that dies once the record is written; gives its options for the next try. */
    async function dyingEpoch(url: string, stateTable: string, pipeline: Pipeline): Promise<EpochOptions> {
      let dead = false;
      const plain = connectionFromUrl(url);
      const password = async () => {
        if (dead) throw new Error("killed");
        return typeof plain.password === "string" ? plain.password : "";
      };
      const connection = { ...plain, password };
      const whole = CaptureState.prototype.beginEpoch;
      CaptureState.prototype.beginEpoch = async function dying(...args) {
        await whole.apply(this, args);
        dead = true;
      };
      const place = { pipeline, dynamodb: aws().dynamodb, stateTable, dropSlot: true, leaseMs: LEASE_MS };
      const options = { ...place, connection, signal, log: () => {} };
      try {
        await expect(beginEpoch(options)).rejects.toThrow();
        expect(dead, "the record was written").toBe(true);
      } finally {
        CaptureState.prototype.beginEpoch = whole;
      }
      return { ...options, connection: connectionFromUrl(url) };
    }

    test("a further slot that is given up, its task killed behind its record", async () => {
      const { url, bench, table, slots, with_ } = await scene();
      const place = {
        dynamodb: aws().dynamodb,
        table,
        pipeline: "shop",
        signal,
        log: () => {},
        leaseMs: 500,
      };
      const [slot, publication] = [`${bench.slot}_slot2`, "tributary_shop_slot2"];
      await bench.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
      const second = await CaptureState.take({ ...place, slot: 2 });
      const server = {
        database: bench.slot,
        systemId: "1",
        timeline: 1,
        confirmedLsn: 1n,
        recentCommits: [],
      };
      await second.write({ epoch: 1, slot, publication, ...server });
      await second.forgetSlot();
      await second.release();
      const pipeline = with_({ slots: 1 });
      const options = {
        pipeline,
        connection: connectionFromUrl(url),
        dynamodb: aws().dynamodb,
        stateTable: table,
      };
      const counts: number[] = [];
      await retireSlots(
        { ...options, leaseMs: 500, log: new KeptLog() } as never,
        pipeline as never,
        2,
        async (count) => void counts.push(count),
        signal,
      );
      expect(await slots()).toEqual([]);
      expect(counts).toEqual([1]);
    });

    test("two slots, where `epoch new` to one of them was killed: repeated", async () => {
      const { url, bench, table, slots, with_, definition } = await scene();
      await bench.client.query("CREATE TABLE t2 (id int PRIMARY KEY); CREATE TABLE t3 (id int PRIMARY KEY)");
      const two = (bench.environment.TRIBUTARY_PIPELINE as string).replace(".mjs", "-two.mjs");
      const source = { ...definition.source, slots: 2 };
      await writeFile(two, `export default ${JSON.stringify({ ...definition, source })};`);
      const environment = { TRIBUTARY_LEASE_MS: String(LEASE_MS), TRIBUTARY_PIPELINE: two };
      const tasks = [bench.capture(environment), bench.capture({ ...environment, TRIBUTARY_SLOT: "2" })];
      for (const task of tasks) await task.printed("streaming from slot");
      for (const task of tasks) task.signal("SIGTERM");
      for (const task of tasks) await task.ended;
      expect(await slots()).toHaveLength(2);
      await beginEpoch(await dyingEpoch(url, table, with_({ slots: 1 })));
      expect(await slots()).toEqual([]);
      const { rows } = await bench.client.query("SELECT pubname FROM pg_publication");
      expect(rows).toEqual([{ pubname: "tributary_shop" }]);
    });

    test("a slot that gets another name, where `epoch new` was killed: by the next start alone", async () => {
      const { url, bench, table, slots, with_, definition } = await scene();
      const environment = { TRIBUTARY_LEASE_MS: String(LEASE_MS) };
      const first = bench.capture(environment);
      await first.printed("streaming from slot");
      first.signal("SIGTERM");
      await first.ended;
      const slot = `${bench.slot}_new`;
      await dyingEpoch(url, table, with_({ slot }));
      expect(await slots()).toEqual([bench.slot]);
      const renamed = (bench.environment.TRIBUTARY_PIPELINE as string).replace(".mjs", "-new.mjs");
      const source = { ...definition.source, slot };
      await writeFile(renamed, `export default ${JSON.stringify({ ...definition, source })};`);
      const again = bench.capture({ ...environment, TRIBUTARY_PIPELINE: renamed });
      await again.printed("streaming from slot");
      expect(await slots()).toEqual([slot]);
      again.signal("SIGTERM");
      await again.ended;
    });

    test.each([
      ["a standby's", "SELECT pg_create_physical_replication_slot($1, true)"],
      ["another database's", "SELECT pg_create_logical_replication_slot($1, 'pgoutput')"],
    ])("a slot of that name that is %s is never dropped", async (_, create) => {
      const { url, bench, table, with_ } = await scene();
      const other = new pg.Client({ connectionString: await freshDatabase(server()) });
      await other.connect();
      cleanups.push(() => other.end());
      await other.query(create, [bench.slot]);
      const place = { pipeline: with_({}), dynamodb: aws().dynamodb, stateTable: table, dropSlot: true };
      const more = { above: 1, leaseMs: LEASE_MS, signal, log: () => {} };
      await expect(
        beginEpoch({ ...place, ...more, connection: connectionFromUrl(url) }),
      ).rejects.toBeInstanceOf(SlotForeignError);
      const { rows } = await other.query("SELECT pg_drop_replication_slot($1)", [bench.slot]);
      expect(rows).toHaveLength(1);
    });
  });
});
