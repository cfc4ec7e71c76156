import { HEALTH_FILE_VARIABLE, isAlive } from "../../lib/telemetry/health.ts";

/*
 * The container's health check: exit code 0 while the capture task's process turns, 1 when it hangs. It knows nothing of
 * lag, connections or the stream: starting anew heals none of them.
 */

process.exitCode = (await isAlive(process.env[HEALTH_FILE_VARIABLE] ?? "")) ? 0 : 1;
