/* A process that runs the emulators and does nothing else, for tests that end it in unkind ways. */
import { startEmulators } from "../../lib/local/emulators.ts";

const { kinesis, dynamodb, sqs } = await startEmulators();
process.send?.([kinesis.pid, dynamodb.pid, sqs.pid]);
