/**
 * The package `tributary-cdc-local`: what stands for PostgreSQL and for AWS on this machine. tributary-cdc loads it by the
 * name `#local` alone (`local-parts.ts`): this file here, the package where others install it.
 */

export {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  removeEmbeddedPostgres,
  startEmbeddedPostgres,
} from "./embedded-postgres.ts";
export { type Emulators, type RefusedCall, refusedText, startEmulators } from "./emulators.ts";
