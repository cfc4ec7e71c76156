import type { SourceMessage } from "../../../change/change-stream.ts";
import type { PositionText } from "../../../change/position.ts";
import type { TributaryError } from "../../../change/tributary-error.ts";
import type { RouteTable } from "../../../definition/route.ts";
import type { TypeCatalog } from "../catalog/type-catalog.ts";
import type { HeldMessage } from "../hold/held-change.ts";
import type { TableIdentities } from "../identity/table-identities.ts";
import type { IncompleteCreate } from "../reread/incomplete-create.ts";
import type { CommitFingerprint } from "../slot/slot-record.ts";
import type { DecodedPipeline } from "./decoded-pipeline.ts";
import type { OwnMessage } from "./logical-messages.ts";
import type { TextEncoding } from "./values/text.ts";

/** Dependencies and settings of `ChangeDecoder`. */
export interface ChangeDecoderOptions {
  readonly pipeline: DecodedPipeline;
  /** Name of the database: `source.db`. */
  readonly database: string;
  /** `source.mode` of the events of rows; omit for none. */
  readonly mode?: string | undefined;
  readonly epoch: number;
  readonly route: RouteTable;
  readonly catalog: TypeCatalog;
  readonly encoding: TextEncoding;
  /** Tables that the captured names stand for, if that is kept. */
  readonly identities?: TableIdentities | undefined;
  /** Milliseconds since 1970 UTC; the clock of `ts_ms`. */
  readonly now?: () => number;
  /** Changes at or before this position are not given. */
  readonly resumeAfter?: PositionText;
  /** Called at every BEGIN, replayed ones too: the forked-history check (rule 19). An error thrown here leaves `decode`. */
  readonly onBegin?: (commit: CommitFingerprint) => void;
  /** Why changes must not go to a topic, if so: thrown at the first one. */
  readonly refuses?: (topic: string) => TributaryError | undefined;
  /**
   * Takes a change aside that cannot become an event: puts into `out` what is to stand in its place, if anything. Where it gives
   * false, and without it, the error leaves `decode`.
   */
  readonly takeAside?: (change: HeldMessage, error: Error, out: SourceMessage[]) => boolean;
  /** Changes of a transaction that were put aside before, the `asidePlace` of each: they are taken aside again. */
  readonly putAside?: (commitLsn: bigint) => ReadonlySet<string> | undefined;
  /** A row's create was given without a value that did not travel, and that no consumer may have. */
  readonly onIncomplete?: (create: IncompleteCreate) => void;
  /** Called for each table that a TRUNCATE names, replayed ones too. */
  readonly onTruncate?: (oid: number) => void;
  /** Messages of our own. Gives whether the caller sees to the acknowledgement of its place. */
  readonly onMessage?: (message: OwnMessage) => boolean;
}
