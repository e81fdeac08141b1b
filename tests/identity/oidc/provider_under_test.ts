// Provider under test: a real OpenID Connect provider on a loopback port, whose keys can be rotated while it runs.
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, type JWK } from "jose";
import Provider from "oidc-provider";

/** A signing key as the provider takes it: a private JWK with `kid`, `alg` and `use`. */
export type ProviderKey = JWK & { readonly kid: string };

/** The provider. */
export interface ProviderUnderTest {
  readonly issuer: string;
  /** How often its key set was read. */
  readonly keyRequests: () => number;
  /** A JWT access token (RFC 9068) of its machine client, for the audience of the test. */
  token(): Promise<string>;
  /** From now on it signs with the first of these keys and publishes them all. */
  useKeys(...keys: readonly ProviderKey[]): void;
  close(): Promise<void>;
}

const CLIENT_ID = "robot";
const CLIENT_SECRET = crypto.randomUUID();

export async function makeProviderKey(kid: string, alg: "ES256" | "RS256" | "EdDSA"): Promise<ProviderKey> {
  const { privateKey } = await generateKeyPair(alg, { extractable: true, modulusLength: 3072 });
  return { ...await exportJWK(privateKey), kid, alg, use: "sig" };
}

/** @param roles what its tokens say in the claim `roles` */
export async function startProvider(
  { audience, roles, keys }: {
    audience: string;
    roles: readonly string[];
    keys: readonly [ProviderKey, ...ProviderKey[]];
  },
): Promise<ProviderUnderTest> {
  let listener: RequestListener = (_, response) => response.destroy();
  let keyRequests = 0;
  const server = createServer((request, response) => {
    if (request.url === "/jwks") keyRequests++;
    // So that nothing of a test outlives it.
    response.setHeader("Connection", "close");
    listener(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  /** Keys belong to a provider for life: other keys are another provider behind the same address. */
  function useKeys(...next: readonly ProviderKey[]): void {
    const alg = next[0]?.alg;
    const provider = new Provider(issuer, {
      jwks: { keys: [...next] },
      clients: [{
        client_id: CLIENT_ID,
        client_secret: CLIENT_SECRET,
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
        id_token_signed_response_alg: alg,
      }],
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: () => ({
            scope: "model:infer",
            audience,
            accessTokenTTL: 600,
            accessTokenFormat: "jwt",
            jwt: { sign: { alg } },
          }),
        },
      },
      extraTokenClaims: () => ({ roles }),
    });
    listener = provider.callback();
  }
  useKeys(...keys);

  return {
    issuer,
    keyRequests: () => keyRequests,
    useKeys,
    async token() {
      const response = await fetch(`${issuer}/token`, {
        method: "POST",
        headers: { authorization: `Basic ${btoa(`${CLIENT_ID}:${CLIENT_SECRET}`)}` },
        body: new URLSearchParams({
          grant_type: "client_credentials",
          resource: audience,
          scope: "model:infer",
        }),
      });
      const answer = await response.json();
      if (typeof answer.access_token !== "string") throw new Error(JSON.stringify(answer));
      return answer.access_token;
    },
    close: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}
