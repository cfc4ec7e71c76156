/** The package comes without types: what we use of it. */
declare module "s3rver" {
  export default class S3rver {
    constructor(options: {
      address: string;
      port: number;
      silent: boolean;
      directory: string;
    });
    run(): Promise<{ readonly port: number }>;
    close(): Promise<void>;
  }
}
