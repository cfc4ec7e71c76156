import { consumer } from "../../../index.ts";
import { isPoisoned } from "../mischief.ts";
import { SinkSession } from "./session.ts";

/** A sink that fails for good on some changes: they must be in the dead letters, and nowhere else. */
const session = new SinkSession("dead-letters");

export const handler = session.recorded(
  consumer("dead-letters")
    .on("checked.*", ["create", "update", "delete", "truncate"], async (event) => {
      if (isPoisoned(event.position)) throw new Error("poisoned");
      await session.append(event);
    })
    .handler(),
);
