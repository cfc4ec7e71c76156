/* A process that runs a server and does nothing else, for tests that end it in unkind ways. */
import { startEmbeddedPostgres } from "../../lib/local/embedded-postgres.ts";

const server = await startEmbeddedPostgres({ dataDirectory: process.env.DATA_DIRECTORY });
process.send?.({ url: server.url, dataDirectory: server.dataDirectory });
