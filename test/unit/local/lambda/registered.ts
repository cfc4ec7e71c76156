import { consumer, Operation } from "../../../../lib/index.ts";

const ORIGIN = Symbol.for("tributary.handler-origin");
const none = async () => undefined;

export const handler = consumer("orders")
  .on("public.orders", Operation.Create, none)
  .onBatch("shop.sales.*", {}, none)
  .handler();
/** As middleware around a whole handler makes it. */
export const wrapped = (...all: Parameters<typeof handler>) => handler(...all);
/** What an earlier version of the library tells. */
export const earlier = Object.assign(async () => undefined, { [ORIGIN]: { consumer: "orders" } });
/** Something else under the same name. */
export const foreign = Object.assign(async () => undefined, { [ORIGIN]: { consumer: 7, patterns: "all" } });
