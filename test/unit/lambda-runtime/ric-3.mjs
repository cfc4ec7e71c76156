// What the bootstrap of Lambda's Node 20 and 22 does with the runtime interface client.
import { run } from "aws-lambda-ric-3";

await run(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER);
