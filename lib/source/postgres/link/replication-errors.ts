import pg from "pg";
import { TributaryError } from "../../../change/tributary-error.ts";
import { NEW_EPOCH, NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";
import {
  ReplicationLinkError,
  ReplicationStreamError,
  SlotInUseError,
  SlotLostError,
  SlotMissingError,
} from "../postgres-errors.ts";

/**
 * Turns an error of the replication session into one of ours. Typed ones are themselves; SQLSTATE classes of the server's:
 * https://www.postgresql.org/docs/current/errcodes-appendix.html
 *
 * `when`: a missing object (42704) is the slot while a link is opened, and the publication while it is read.
 */
export function explainStreamError(
  error: unknown,
  slot: string,
  when: "opening" | "reading",
): TributaryError {
  if (error instanceof TributaryError) return error;
  const cause = error as Error;
  const link = (message: string, remedy: string) => new ReplicationLinkError({ message, remedy, cause });
  if (!(error instanceof pg.DatabaseError)) {
    return link(
      `the replication link ended: ${cause.message}`,
      "Nothing to do: it is opened anew. When it repeats, look at the network and the server's log.",
    );
  }
  const code = error.code ?? "";
  if (code === "55006") return slotInUse(slot, holderIn(error.message), undefined, error);
  if (/^(57P|08|53|58)/.test(code)) {
    return link(
      `the server ended the replication link (${code}): ${error.message}`,
      "Nothing to do: it is opened anew as soon as the server takes connections.",
    );
  }
  if (code === "55000" && /slot/i.test(error.message)) {
    return new SlotLostError({
      message: `the server refuses the replication slot "${slot}": ${error.message}`,
      remedy: `When its WAL is gone, changes are missing from here on, and a new epoch must begin: ${NEW_EPOCH_DROP_SLOT}`,
      cause,
    });
  }
  if (code === "42704" && when === "opening") {
    return new SlotMissingError({
      message: `the replication slot "${slot}" does not exist any more: it was dropped just now`,
      remedy: `Changes may be missing from there on, and a new epoch must begin: ${NEW_EPOCH}`,
      cause,
    });
  }
  return new ReplicationStreamError({
    message: `the server cannot go on decoding from slot "${slot}" (${code}): ${error.message}`,
    remedy:
      code === "42704"
        ? `The publication was dropped, or made after the slot: the slot cannot be decoded any more, and a new epoch must begin: ${NEW_EPOCH_DROP_SLOT}`
        : "See the server's log. Starting again would meet the same place of the log.",
    cause,
  });
}

/** The process id at the end of "replication slot … is active for PID 4711", in whatever language. */
function holderIn(message: string): number | undefined {
  const pid = /(\d+)\D*$/.exec(message)?.[1];
  return pid === undefined ? undefined : Number(pid);
}

/** Another process reads from the slot. */
export function slotInUse(
  slot: string,
  pid: number | undefined,
  holder: string | undefined,
  cause?: unknown,
): SlotInUseError {
  const who = pid === undefined ? "another process" : `process ${pid}${holder ? ` ("${holder}")` : ""}`;
  return new SlotInUseError({
    message: `the replication slot "${slot}" is in use by ${who}`,
    remedy:
      pid === undefined
        ? `SELECT active_pid FROM pg_replication_slots WHERE slot_name = '${slot}'; tells who. Two pipelines must not share a slot.`
        : `If that reader is the pipeline, leave it. Else stop it, or read from another slot (source.slot; tail --slot). A reader that hangs: SELECT pg_terminate_backend(${pid});`,
    cause,
  });
}
