import { existsSync } from "node:fs";
import { consumer } from "../../../index.ts";
import { isPoisoned } from "../mischief.ts";
import { MENDED_VARIABLE } from "../sink-store.ts";
import { SinkSession } from "./session.ts";

/**
 * A sink that fails on some changes until it is mended: what comes behind them under the same key is parked, and
 * a redrive brings all of it to effect, in order.
 */
const session = new SinkSession("parked");
const mendedFile = process.env[MENDED_VARIABLE] ?? "";

export const handler = session.recorded(
  consumer("parked")
    .on("checked.*", ["create", "update", "delete"], async (event) => {
      if (isPoisoned(event.position) && !existsSync(mendedFile)) throw new Error("poisoned");
      await session.append(event);
    })
    .handler(),
);
