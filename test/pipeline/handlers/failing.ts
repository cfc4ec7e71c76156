import { consumer, Operation } from "../../../lib/index.ts";

function statusOf(row: { readonly [column: string]: unknown }): string {
  if (row.status === "lost") throw new RangeError(`there is no status "${row.status}"`);
  return String(row.status);
}

/** A handler with a mistake that shows itself with some rows; it takes creates of `orders` alone. */
export const handler = consumer("orders")
  .on("sales.orders", Operation.Create, ({ after }) => statusOf(after))
  .on("sales.ordrs", Operation.Create, () => {})
  .handler();
