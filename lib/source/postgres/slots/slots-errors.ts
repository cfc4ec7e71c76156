import { defineError } from "../../../change/tributary-error.ts";
import { NEW_EPOCH_DROP_SLOT } from "../../../definition/new-epoch.ts";

/** The definition names fewer slots than the pipeline has: their tables would have no reader. */
export class SlotsReducedError extends defineError("SLOTS_REDUCED", "stop").from(
  (pipeline: string, stored: number, now: number) => ({
    message: `pipeline "${pipeline}" is spread over ${stored} slots, and source.slots is ${now}: the tables of the others would have no reader`,
    remedy: `Put source.slots back to ${stored}. To go on with fewer, stop every capture task and begin a new epoch, which drops them all: ${NEW_EPOCH_DROP_SLOT}`,
  }),
) {}

/** The first slot's task does not run with this definition yet, or has no slot yet: the others follow it. */
export class FirstSlotMissingError extends defineError("FIRST_SLOT_MISSING", "restart") {}

/** A new epoch was begun, and this slot still belongs to the one before. */
export class SlotEpochError extends defineError("SLOT_EPOCH", "stop").from(
  (slot: string, own: number, now: number) => ({
    message: `the slot "${slot}" belongs to epoch ${own}, and the pipeline's first slot to epoch ${now}: a new epoch was begun and did not come to its end`,
    remedy: `Begin it again, with every capture task stopped: ${NEW_EPOCH_DROP_SLOT}`,
  }),
) {}

/** Tables that share a topic stand in publications of two slots: someone changed them by hand. */
export class TopicSplitError extends defineError("TOPIC_SPLIT", "stop").from(
  (topic: string, publications: readonly string[]) => ({
    message: `tables of the topic "${topic}" are published by ${publications.map((name) => `"${name}"`).join(" and ")}: two slots would write one topic, and its order would be lost`,
    remedy:
      "Publications of a pipeline with several slots must not be changed by hand. Begin a new epoch, with every capture task stopped and these publications dropped.",
  }),
) {}

/** A table has, or had, the name of another slot's: what follows would go to a topic that two slots write. */
export class TableRenamedError extends defineError("TABLE_RENAMED", "restart").from(
  (slot: string, topic: string) => ({
    message: `a table of the slot "${slot}" was renamed, and its changes go to the topic "${topic}" now, which was not this slot's when the task began`,
    remedy: `The task starts anew and looks at the names again. Where it ends here each time, the changes made under that name can be in no order with another slot's: begin a new epoch, with every capture task stopped: ${NEW_EPOCH_DROP_SLOT}`,
  }),
) {}

/** A table was renamed to what another slot writes: its changes must not overtake those. */
export class TopicTakenError extends defineError("TOPIC_TAKEN", "stop").from(
  (topics: readonly string[], slot: string) => ({
    message: `tables of the slot "${slot}" have names now whose topics another slot writes (${topics.join(", ")}): two slots would write one topic, and its order would be lost`,
    remedy: `Rename the tables back. Or begin a new epoch, with every capture task stopped: ${NEW_EPOCH_DROP_SLOT}`,
  }),
) {}

/** A table cannot be moved between slots: the role may not, or the publications are not ours. */
export class TableMoveRefusedError extends defineError("TABLE_MOVE_REFUSED", "stop") {}

/** A table is not moved yet: it is in use, or the slot that has it is not as far. */
export class TableMoveDelayedError extends defineError("TABLE_MOVE_DELAYED", "restart") {}

/** Tables went to another slot of the pipeline meanwhile; `from` is the slot or publication that had them. */
export class TablesMovedError extends defineError("TABLES_MOVED", "restart").from(
  (from: string, tables: readonly string[]) => ({
    message: `${tables.join(", ")} moved from "${from}" to another slot of the pipeline`,
    remedy: "Nothing to do: the task starts anew without them.",
  }),
) {}
