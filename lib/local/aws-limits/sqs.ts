import * as z from "zod";
import { type AwsRefusal, binaryBytes, firstRefusal, utf8Bytes } from "../../aws/refusal.ts";

/** "Amazon SQS message quotas". */
const QUOTAS =
  "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html";
const SEND = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html";
const RECEIVE =
  "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html";
const ATTRIBUTES =
  "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html";
/** The largest MaximumMessageSize that a queue can have, and its default; also of a batch in sum. */
const MESSAGE_BYTES = 1024 * 1024;
const BATCH_ENTRIES = 10;
const MESSAGE_ATTRIBUTES = 10;

/** All characters of XML 1.0: #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF. */
const REFUSED_CHARACTER = /[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/u;

const attribute = z.looseObject({
  DataType: z.string().optional(),
  StringValue: z.string().optional(),
  BinaryValue: z.unknown().optional(),
});
const message = z.looseObject({
  MessageBody: z.string().optional(),
  MessageAttributes: z.record(z.string(), attribute).optional(),
});
const batch = z.looseObject({ Entries: z.array(message) });
const batchOf = z.looseObject({ Entries: z.array(z.unknown()) });
const receive = z.looseObject({
  MaxNumberOfMessages: z.number().nullish(),
  WaitTimeSeconds: z.number().nullish(),
});
type Message = z.infer<typeof message>;

/**
 * Returns why SQS refuses a request, or undefined. A wrong message of a batch is refused as the whole batch, where AWS fails that
 * entry alone: nothing of ours sends batches.
 */
export function sqsRefusal(operation: string, input: unknown): AwsRefusal | undefined {
  if (operation === "SendMessage") {
    const parsed = message.safeParse(input);
    return parsed.success ? messageRefusal(parsed.data) : undefined;
  }
  if (operation === "ReceiveMessage") return receiveRefusal(input);
  const entries = batchOf.safeParse(input);
  if (operation.endsWith("Batch") && entries.success && entries.data.Entries.length > BATCH_ENTRIES) {
    const sent = entries.data.Entries.length;
    return refused(
      "TooManyEntriesInBatchRequest",
      `Maximum number of entries per request are ${BATCH_ENTRIES}. You have sent ${sent}.`,
      QUOTAS,
    );
  }
  if (operation !== "SendMessageBatch") return undefined;
  const parsed = batch.safeParse(input);
  if (!parsed.success) return undefined;
  const { Entries } = parsed.data;
  const bytes = Entries.reduce((sum, entry) => sum + messageBytes(entry), 0);
  return firstRefusal([
    () =>
      bytes > MESSAGE_BYTES
        ? refused(
            "BatchRequestTooLong",
            `Batch requests cannot be longer than ${MESSAGE_BYTES} bytes. You have sent ${bytes} bytes.`,
            QUOTAS,
          )
        : undefined,
    ...Entries.map((entry) => () => messageRefusal(entry)),
  ]);
}

function receiveRefusal(input: unknown): AwsRefusal | undefined {
  const { MaxNumberOfMessages: messages, WaitTimeSeconds: seconds } = receive.safeParse(input).data ?? {};
  const wrong = (value: number, name: string, reason: string) =>
    invalid(`Value ${value} for parameter ${name} is invalid. Reason: ${reason}.`, RECEIVE);
  if (typeof messages === "number" && (messages < 1 || messages > 10)) {
    return wrong(messages, "MaxNumberOfMessages", "Must be between 1 and 10, if provided");
  }
  if (typeof seconds === "number" && (seconds < 0 || seconds > 20)) {
    return wrong(seconds, "WaitTimeSeconds", "Must be >= 0 and <= 20, if provided");
  }
  return undefined;
}

function messageRefusal(sent: Message): AwsRefusal | undefined {
  const { MessageBody = "", MessageAttributes = {} } = sent;
  if (MessageBody === "") {
    return refused("MissingParameter", "The request must contain the parameter MessageBody.", SEND);
  }
  const attributes = Object.entries(MessageAttributes);
  const texts = [MessageBody, ...attributes.flatMap(([, { StringValue }]) => StringValue ?? [])];
  if (texts.some((text) => REFUSED_CHARACTER.test(text))) {
    return refused("InvalidMessageContents", "Invalid characters found", SEND);
  }
  if (messageBytes(sent) > MESSAGE_BYTES) {
    return invalid(
      `One or more parameters are invalid. Reason: Message must be shorter than ${MESSAGE_BYTES} bytes.`,
      QUOTAS,
    );
  }
  if (attributes.length > MESSAGE_ATTRIBUTES) {
    return invalid(
      `Number of message attributes [${attributes.length}] exceeds the allowed maximum [${MESSAGE_ATTRIBUTES}].`,
      ATTRIBUTES,
    );
  }
  return firstRefusal(attributes.map((one) => () => attributeRefusal(...one)));
}

/** Body, and name, type and value of each attribute. */
function messageBytes({ MessageBody = "", MessageAttributes = {} }: Message): number {
  let bytes = utf8Bytes(MessageBody);
  for (const [name, { DataType = "", StringValue = "", BinaryValue }] of Object.entries(MessageAttributes)) {
    bytes += utf8Bytes(name) + utf8Bytes(DataType) + utf8Bytes(StringValue) + binaryBytes(BinaryValue);
  }
  return bytes;
}

function attributeRefusal(name: string, given: z.infer<typeof attribute>): AwsRefusal | undefined {
  const proper = /^[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*$/.test(name) && name.length <= 256;
  if (!proper || /^(?:aws|amazon)\./i.test(name)) {
    return invalid(`Message attribute name '${name}' is invalid.`, ATTRIBUTES);
  }
  if (!/^(?:String|Number|Binary)(?:\..*)?$/.test(given.DataType ?? "")) {
    return invalid(
      `The type of message (user) attribute '${name}' is invalid. You must use only the following supported type prefixes: Binary, Number, String.`,
      ATTRIBUTES,
    );
  }
  if ((given.StringValue ?? "") === "" && binaryBytes(given.BinaryValue) === 0) {
    return invalid(`Message (user) attribute '${name}' must contain a non-empty value.`, ATTRIBUTES);
  }
  return undefined;
}

function invalid(message: string, page: string): AwsRefusal {
  return refused("InvalidParameterValue", message, page);
}

function refused(code: string, message: string, page: string): AwsRefusal {
  return { code, message, page };
}
