import { TributaryError } from "../errors.ts";

/** A Kinesis record is not of the format ("Formats on the wire"): another producer wrote it, or it is damaged. */
export class RecordFormatError extends TributaryError {
  readonly code = "RECORD_FORMAT";
  readonly retry = "stop";

  /** `problem` names places and kinds, never what stands there: a record holds row values. */
  constructor(problem: string) {
    super({
      message: `A Kinesis record is not a Tributary record: ${problem}`,
      remedy:
        "Let nothing but Tributary's capture task write to the stream; if it did, consumer and capture are of versions that do not fit: deploy the consumer's newer version first.",
    });
  }
}
