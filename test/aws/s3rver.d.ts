/** The package comes without types: what we use of it. */
declare module "s3rver" {
  export default class S3rver {
    constructor(options: {
      address: string;
      port: number;
      silent: boolean;
      directory: string;
    });
    /** Once it runs. */
    readonly httpServer: import("node:http").Server;
    run(): Promise<{ readonly port: number }>;
    close(): Promise<void>;
  }
}
