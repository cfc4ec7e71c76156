import { consumer, Operation } from "tributary-cdc";

/*
 * The smallest consumer: prints how many changes of which table came. `npm start -- --database-url …` runs it on a
 * database of your own; a good place to start from. What a row holds (`event.row`) is left out of the log on purpose.
 */
export const handler = consumer("print-changes")
  .onBatch("*", {}, (events) => {
    const changes: Record<string, number> = {};
    for (const { schema, table, operation, partition } of events) {
      // A truncate comes once in every partition: counted in the first.
      if (operation === Operation.Truncate && partition !== 0) continue;
      const what = `${schema}.${table} ${operation}`;
      changes[what] = (changes[what] ?? 0) + 1;
    }
    console.log(JSON.stringify({ changes }));
  })
  .handler();
