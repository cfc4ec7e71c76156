/**
 * Assumptions of an estimate, beside the load and the prices. Each can be wrong for a given pipeline: the
 * command prints those that matter.
 */
export const ASSUMPTIONS = {
  /** Bytes of a record around its events. https: docs, Formats on the wire */
  recordOverheadBytes: 120,
  /** Within so long the changes of one partition share a record: a PutRecords round trip and the gathering before it. */
  packingMs: 20,
  /** Largest record the writer packs. */
  recordBytes: 1024 * 1024,
  /** Shards that an on-demand stream begins with. */
  onDemandShards: 4,
  /** MB/s and records/s that a shard takes in, and MB/s that it gives to all its readers. */
  shardInMBps: 1,
  shardInRecords: 1000,
  shardOutMBps: 2,
  /** Lambda asks each shard so often for records; with a fan-out of its own a consumer is handed them about so often. */
  pollsPerSecond: 1,
  fanOutPushesPerSecond: 5,
  /** Time of an invocation before and behind its handlers: taking and closing the fence, and the library itself. */
  invocationMs: 25,
  /** A fence item: bytes of its key, of a partition's mark, and of the token of one that is taken. */
  fenceKeyBytes: 100,
  fenceMarkBytes: 46,
  fenceTokenBytes: 19,
  fenceGroup: 32,
  /** The capture task's record and lease: writes a second, each of so many units. */
  captureWritesPerSecond: 1.2,
  captureWriteUnits: 2,
  /** Of a million changes so many become dead letters, and so many are too large for the stream, of so many bytes. */
  deadLettersPerMillion: 10,
  /** Writes of a letter's items beside its own size: begun, taken off again; each of one unit. */
  deadLetterWrites: 2,
  oversizePerMillion: 10,
  oversizeBytes: 2 * 1024 * 1024,
  /** Beyond the stream's retention: a dead letter's, and that of a parked change. The bucket keeps each object until then. */
  oversizeDays: 90,
  /**
   * Each role asks for a data key of each encrypted part about every five minutes, and keeps it meanwhile.
   * https://docs.aws.amazon.com/streams/latest/dev/costs-performance.html
   */
  encryptedParts: 3,
  keyRequestsPerHour: 12,
  /** Metrics of the capture task, of each table (at most 20, and one for the others), of each consumer: its own, what capture tells of it, and its mapping's. */
  captureMetrics: 22,
  tableMetrics: 2,
  namedTables: 20,
  consumerMetrics: 13,
  /** An alarm is billed by the metrics that it computes with: `Unread` takes three. */
  captureAlarmMetrics: 12,
  consumerAlarmMetrics: 16,
  /** With a topic: `Unhealthy`, and each alarm that keeps still while another one says the cause. */
  captureCompositeAlarms: 2,
  consumerCompositeAlarms: 2,
  /** Bytes of log lines: metrics of the capture task (three a minute), of a table, of an invocation; Lambda's own of an invocation. */
  captureLineBytes: 2200,
  tableLineBytes: 330,
  metricsLinesPerMinute: 3,
  invocationLineBytes: 850,
  lambdaLineBytes: 420,
  /** Logs are kept so long by default, and stored in so much of their size (AWS compresses them; of its pricing page, by memory). */
  logRetentionDays: 14,
  logCompression: 0.15,
  /** On-demand Advantage bills an account and region at least for so much in and, as is assumed, out. */
  advantageMiBps: 25,
  /** Interface endpoints of the capture task (Kinesis, logs, Secrets Manager, SQS, ECR twice), in so many zones. */
  endpoints: 6,
  zones: 2,
  /** DMS: storage of the replication instance. MSK: brokers, copies of the data, changes a second that a Connect unit decodes. */
  dmsStorageGb: 100,
  mskBrokers: 3,
  mskCopies: 3,
  changesPerConnectUnit: 5000,
} as const;
