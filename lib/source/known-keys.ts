/** Texts of a row's key, in key order, as its types' output functions give them. */
export type RowKey = readonly string[];

/** Some of the keys that are known of a table: what is written at once. */
export interface KeyPart {
  /** A number of its own in the pipeline. */
  readonly id: number;
  /** As people write it: `public.orders`. */
  readonly table: string;
  readonly keys: readonly RowKey[];
}

/**
 * Keeps the keys of rows that were given and not deleted since, outside the database: for a source that finds deletes by
 * comparing. `write` resolves only when the part is durable.
 */
export interface KeyRecord {
  /** All parts, in pages. */
  read(): AsyncIterable<readonly KeyPart[]>;
  /** Replaces the part of that number; one without keys goes. @throws CaptureLeaseLostError when another capture task has written there. */
  write(part: KeyPart): Promise<void>;
}
