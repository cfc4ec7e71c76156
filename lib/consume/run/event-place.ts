/** Where an event was found. */
export interface EventPlace {
  readonly topic: string;
  readonly partition: number;
}
