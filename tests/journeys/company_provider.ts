// Company provider: an OpenID Connect provider as companies run them, that goes down, comes back and rotates its keys.
//
// It names groups in a claim within a claim, gives tokens without a scope of ours, and binds them to keys (RFC 9449).
import { createServer, type RequestListener, type Server } from "node:http";
import Provider from "oidc-provider";
import * as client from "openid-client";
import type { ProviderKey } from "../identity/oidc/provider_under_test.ts";

/** The provider. */
export interface CompanyProvider {
  readonly issuer: string;
  /** How often its key set was read. */
  readonly keyRequests: () => number;
  /** An access token of its machine client, as that client's library gets it. */
  token(keyPair?: client.CryptoKeyPair): Promise<string>;
  /** From now on it signs with the first of these keys and publishes them all. */
  useKeys(...keys: readonly ProviderKey[]): void;
  start(): Promise<void>;
  /** Nothing answers at its address any more. */
  stop(): Promise<void>;
}

const CLIENT_ID = "robot";

/** Makes it; it answers from `start` on. */
export function makeCompanyProvider(
  { port, audience, groups, key }: {
    port: number;
    audience: string;
    groups: readonly string[];
    key: ProviderKey;
  },
): CompanyProvider {
  const issuer = `http://127.0.0.1:${port}`;
  const secret = crypto.randomUUID();
  let listener: RequestListener;
  let keyRequests = 0;
  let server: Server | undefined;

  /** Keys belong to a provider for life: other keys are another provider behind the same address. */
  function useKeys(...keys: readonly ProviderKey[]): void {
    const alg = keys[0]?.alg;
    listener = new Provider(issuer, {
      jwks: { keys: [...keys] },
      clients: [{
        client_id: CLIENT_ID,
        client_secret: secret,
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
        id_token_signed_response_alg: alg,
      }],
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        dPoP: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: () => ({
            scope: "",
            audience,
            accessTokenTTL: 600,
            accessTokenFormat: "jwt",
            jwt: { sign: { alg } },
          }),
        },
      },
      extraTokenClaims: () => ({ directory: { "groups/all": groups } }),
    }).callback();
  }
  useKeys(key);

  return {
    issuer,
    keyRequests: () => keyRequests,
    useKeys,
    async token(keyPair) {
      const configuration = await client.discovery(
        new URL(issuer),
        CLIENT_ID,
        undefined,
        client.ClientSecretBasic(secret),
        { execute: [client.allowInsecureRequests] },
      );
      const { access_token: token } = await client.clientCredentialsGrant(
        configuration,
        { resource: audience },
        keyPair === undefined ? {} : { DPoP: client.getDPoPHandle(configuration, keyPair) },
      );
      return token;
    },
    async start() {
      const opened = createServer((request, response) => {
        if (request.url === "/jwks") keyRequests++;
        // So that nothing of a test outlives it.
        response.setHeader("Connection", "close");
        listener(request, response);
      });
      server = opened;
      await new Promise<void>((resolve) => opened.listen(port, "127.0.0.1", resolve));
    },
    async stop() {
      const opened = server;
      server = undefined;
      if (opened !== undefined) await new Promise<void>((resolve) => opened.close(() => resolve()));
    },
  };
}
