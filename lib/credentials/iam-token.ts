import { Signer, type SignerConfig } from "@aws-sdk/rds-signer";
import { TokenUnavailableError } from "./credential-errors.ts";

/** Whom a token is for. */
export interface TokenOptions {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly region?: string | undefined;
  /** Default: the SDK's provider chain. */
  readonly credentials?: SignerConfig["credentials"];
}

/**
 * Gives a function that makes an RDS IAM token at each call. A token is signed here, without a request, and lives 15
 * minutes; it is a password for this host, port and user alone, so the host must be the real endpoint.
 * https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html
 */
export function iamToken({ host, port, user, region, credentials }: TokenOptions): () => Promise<string> {
  return async () => {
    try {
      const signer = new Signer({
        hostname: host,
        port,
        username: user,
        ...(region ? { region } : {}),
        ...(credentials ? { credentials } : {}),
      });
      return await signer.getAuthToken();
    } catch (error) {
      // @throws TokenUnavailableError
      throw new TokenUnavailableError(user, error);
    }
  };
}
