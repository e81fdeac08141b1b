// Tests of the metadata: that it says what the code does, under the names of the RFCs, and never what a Host header says.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import * as oauth4webapi from "oauth4webapi";
import { ACTIONS } from "../../../src/access/action.ts";
import { ALGORITHMS } from "../../../src/identity/public_key.ts";
import { ISSUER, withOauth } from "./oauth_under_test.ts";

const SERVER = "/.well-known/oauth-authorization-server";
const RESOURCE = "/.well-known/oauth-protected-resource";
const METHODS = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

Deno.test("the metadata of the authorization server has the endpoints that are served (RFC 8414 §2)", async () => {
  await withOauth(async ({ call, routes }) => {
    const response = await call(SERVER);
    deepStrictEqual([response.status, response.headers.get("content-type")], [200, "application/json"]);
    const metadata = await response.json();
    deepStrictEqual(metadata, {
      issuer: ISSUER,
      token_endpoint: `${ISSUER}/oauth2/token`,
      jwks_uri: `${ISSUER}/.well-known/jwks.json`,
      scopes_supported: Object.keys(ACTIONS),
      response_types_supported: [],
      grant_types_supported: ["client_credentials", "refresh_token"],
      token_endpoint_auth_methods_supported: [...METHODS, "none"],
      token_endpoint_auth_signing_alg_values_supported: [...ALGORITHMS],
      revocation_endpoint: `${ISSUER}/oauth2/revoke`,
      revocation_endpoint_auth_methods_supported: [...METHODS, "none"],
      revocation_endpoint_auth_signing_alg_values_supported: [...ALGORITHMS],
      introspection_endpoint: `${ISSUER}/oauth2/introspect`,
      introspection_endpoint_auth_methods_supported: METHODS,
      introspection_endpoint_auth_signing_alg_values_supported: [...ALGORITHMS],
      dpop_signing_alg_values_supported: [...ALGORITHMS],
      protected_resources: [ISSUER],
    });
    for (const endpoint of ["token", "revoke", "introspect"]) {
      strictEqual(
        routes.some((route) => route.method === "POST" && route.path === `/oauth2/${endpoint}`),
        true,
      );
    }
  });
});

Deno.test("the metadata of the protected resource names its servers, external issuers included (RFC 9728 §2)", async () => {
  const externalIssuers = ["https://login.example.com/tenant"];
  await withOauth(async ({ call }) => {
    const response = await call(RESOURCE);
    deepStrictEqual(await response.json(), {
      resource: ISSUER,
      resource_name: "Portcullis",
      authorization_servers: [ISSUER, ...externalIssuers],
      scopes_supported: Object.keys(ACTIONS),
      bearer_methods_supported: ["header"],
      dpop_signing_alg_values_supported: [...ALGORITHMS],
      dpop_bound_access_tokens_required: false,
    });
  }, { externalIssuers });
});

Deno.test("a client library takes the metadata for what it asked, which it checks against the issuer (RFC 8414 §3.3, RFC 9728 §3.3)", async () => {
  await withOauth(async ({ call }) => {
    const server = await oauth4webapi.processDiscoveryResponse(new URL(ISSUER), await call(SERVER));
    strictEqual(server.token_endpoint, `${ISSUER}/oauth2/token`);
    const resource = await oauth4webapi.processResourceDiscoveryResponse(
      new URL(ISSUER),
      await call(RESOURCE),
    );
    strictEqual(resource.resource, ISSUER);
  });
});

Deno.test("metadata is built from the settings and never from the Host header, or from what a proxy says of it", async () => {
  await withOauth(async ({ call }) => {
    for (const path of [SERVER, RESOURCE]) {
      const plain = await (await call(path)).text();
      const forwarded = await call(path, {
        headers: {
          "x-forwarded-host": "evil.example.com",
          "x-forwarded-proto": "http",
          "forwarded": "host=evil",
        },
      });
      strictEqual(await forwarded.text(), plain);
      const foreign = await call(path, { headers: { host: "evil.example.com" } });
      strictEqual(foreign.status, 400);
      strictEqual((await foreign.text()).includes("evil"), false);
    }
  });
});

Deno.test("metadata is public, may be kept for minutes, and leaves no record", async () => {
  await withOauth(async ({ call, events }) => {
    for (const path of [SERVER, RESOURCE]) {
      const response = await call(path, { method: "HEAD" });
      deepStrictEqual([response.status, response.headers.get("cache-control")], [200, "public, max-age=300"]);
      strictEqual((await call(path, { method: "POST" })).status, 405);
    }
    deepStrictEqual(events(), []);
  });
});
