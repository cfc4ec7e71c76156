import { setTimeout as sleep } from "node:timers/promises";
import { formatLsn } from "../../change/lsn.ts";
import type { TributaryError } from "../../change/tributary-error.ts";
import { sourceKind } from "../../source/index.ts";
import { withConnection } from "../../source/postgres/link/connection.ts";
import { checkSlotKind, readSlot, type SlotFacts, slotMissing } from "../../source/postgres/slot/slot.ts";
import { slotNames } from "../../source/postgres/slots/assignment.ts";
import { type CaptureRecord, readCaptureRecord } from "../../state/capture-record.ts";
import { readCaptureReports } from "../../state/capture-report.ts";
import { Sightings } from "../capture-standing.ts";
import { readState } from "./capture-report.ts";
import { type Check, NotChecked, outcomeOf } from "./check.ts";
import { CaptureServiceError } from "./doctor-errors.ts";
import { type Examination, needed } from "./examination.ts";

/** Longer than connecting may take, and longer than an unread slot is watched. */
const SLOT_MS = 45_000;
/** A capture task that has lost its session takes the slot again within this, and reports otherwise. */
const INACTIVE_MS = 5_000;
const POLL_MS = 500;

/** Returns the state table's record of a slot's capture; undefined if no table is named. */
interface Known {
  readonly record: CaptureRecord;
  /** Its capture task says that it reads the slot. */
  readonly runs: boolean;
}

/** The replication slots as the server has them, held against what capture has on record and reports. */
export function slotChecks(examination: Examination): readonly Check[] {
  const { pipeline } = examination;
  const log = pipeline && sourceKind(pipeline.source).throughSlots?.(pipeline);
  if (!log) return [];
  const numbers = sourceKind(log.source).tasks(log.source);
  return numbers.map((number) => ({
    name: numbers.length > 1 ? `slot ${number}` : "slot",
    deadlineMs: SLOT_MS,
    async look(signal) {
      await needed(examination.session(), "needs a session with the database: see database");
      const known = await knownOf(examination, number, signal);
      if (known?.record.newEpoch) throw new NotChecked("a new epoch begins at the next start of capture");
      const state = known?.record.slot;
      const name = state?.slot ?? slotNames(log.source, number).slot;
      const connection = await examination.connection();
      return await withConnection(connection, { signal }, async (client) => {
        const read = () => readSlot((sql) => client.query(sql), name);
        const slot = await read();
        if (!slot && state) return outcomeOf([slotMissing(state)], "");
        if (!slot)
          throw new NotChecked(
            known
              ? "capture has not been started yet"
              : `the server has no slot "${name}", and nothing names the state table, which knows whether capture was ever started`,
          );
        const errors: TributaryError[] = [];
        try {
          checkSlotKind(slot, connection.database);
        } catch (error) {
          errors.push(error as TributaryError);
        }
        if (errors.length === 0 && known?.runs && !(await isRead(slot, read, signal)))
          errors.push(new CaptureServiceError(inactive(slot)));
        return outcomeOf(errors, inWords(slot));
      });
    },
  }));
}

/** @throws NotChecked where the state table is named and cannot be read */
async function knownOf(
  examination: Examination,
  slot: number,
  signal: AbortSignal,
): Promise<Known | undefined> {
  if (!examination.subject.resources) return undefined;
  return await readState(examination, signal, async (place) => {
    const [record, reports] = await Promise.all([
      readCaptureRecord({ ...place, slot }),
      readCaptureReports(place),
    ]);
    const sightings = new Sightings();
    const runs = reports.some(
      ({ slot: of, report }) =>
        of === slot &&
        report !== undefined &&
        (report.state === "RUNNING" || report.state === "HOLDING") &&
        sightings.isAlive(report, performance.now(), Date.now()),
    );
    return { record, runs };
  });
}

async function isRead(
  { activePid }: SlotFacts,
  read: () => Promise<SlotFacts | undefined>,
  signal: AbortSignal,
): Promise<boolean> {
  const until = performance.now() + INACTIVE_MS;
  for (let pid = activePid; pid === undefined; pid = (await read())?.activePid) {
    if (performance.now() > until) return false;
    await sleep(POLL_MS, undefined, { signal });
  }
  return true;
}

function inactive({ name, confirmedLsn }: SlotFacts) {
  return {
    message: `the capture task reports that it runs, and nobody reads from the slot "${name}", which stands at ${formatLsn(confirmedLsn)}: the server keeps its WAL`,
    remedy:
      "See that the task and this command are at the same server (the log of the task names its own); then start the task again: it takes the slot anew.",
  };
}

function inWords({ name, activePid, walStatus, confirmedLsn }: SlotFacts): string {
  const reader = activePid === undefined ? "read by nobody" : `read by process ${activePid}`;
  return `${name} at ${formatLsn(confirmedLsn)}, ${reader}, WAL ${walStatus ?? "unknown"}`;
}
