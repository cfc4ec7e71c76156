import { startLambdaFunction } from "../../../../lib/local/lambda/host.ts";

/** A host of its own process, for the test that kills it: invokes the handler with the event it was given. */
const [entry = "", event = "{}"] = process.argv.slice(2);
const fn = await startLambdaFunction({ entry, timeoutMs: 600_000, concurrency: 1 });
await fn.invoke(JSON.parse(event));
