// Refusals: the ways to be refused, each with the routes that it speaks of, how a good call is spoilt, and what is answered.
import type { AnyRoute } from "../../src/http/route.ts";
import type { AppUnderTest } from "../support/app_under_test.ts";
import { type Call, goodCalls } from "./good_calls.ts";

export interface Refusal {
  readonly name: string;
  /** Whether the row speaks of this route at all. */
  applies(route: AnyRoute): boolean;
  /** How the good call is spoilt. */
  spoil(call: Call, route: AnyRoute, accounts: Accounts): Call | Promise<Call>;
  readonly status: number;
  readonly code: string;
}

/** Who the spoilt calls are sent by. */
export interface Accounts {
  readonly identity: AppUnderTest["portcullis"]["identity"];
  readonly adminId: string;
  /** Without a role. */
  readonly clientId: string;
  readonly disabledId: string;
}

/** For each route. */
export const GOOD_CALLS = goodCalls("open", "generalist");

/** A route in the table. */
export function nameOf({ method, path }: AnyRoute): string {
  return `${method} ${path}`;
}

const isProtected = ({ policy }: AnyRoute): boolean => policy.kind === "action";
const isForClients = ({ policy }: AnyRoute): boolean => policy.kind === "client";
const takesBody = ({ body, bodyForm }: AnyRoute): boolean => body !== undefined || bodyForm !== undefined;
const takesJson = (route: AnyRoute): boolean => GOOD_CALLS[nameOf(route)]?.json !== undefined;
const takesForm = (route: AnyRoute): boolean => GOOD_CALLS[nameOf(route)]?.form !== undefined;
const takesQuery = ({ query }: AnyRoute): boolean => query !== undefined;
const any = (): boolean => true;

/** Where the query is none of pages. */
const BAD_QUERIES: Readonly<Record<string, string>> = {
  "DELETE /v1/bans/{id}": "forget=perhaps",
  "GET /v1/usage": "from=2026-02-29",
  "DELETE /admin/v1/subjects/{id}/payload-key": "issuer=",
  "GET /admin/v1/audit/export": "format=xml",
};

const withQuery = (query: string) => ({ path, init }: Call): Call => ({ path: `${path}?${query}`, init });
const withHeader = (name: string, value: string | undefined) => ({ path, init }: Call): Call => {
  const headers = new Headers(init.headers);
  if (value === undefined) headers.delete(name);
  else headers.set(name, value);
  return { path, init: { ...init, headers } };
};
const withToken = (token: string, scheme = "Bearer") => withHeader("authorization", `${scheme} ${token}`);
const withBody = (body: string | Uint8Array<ArrayBuffer>) => ({ path, init }: Call): Call => ({
  path,
  init: { ...init, body },
});

const bodiesThatAreNoJson: readonly (readonly [string, string | Uint8Array<ArrayBuffer>])[] = [
  ["that is not UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])],
  ["that is not JSON", "{"],
  ["that is empty", ""],
  ["with a member twice", '{"model":"open","\\u006dodel":"open"}'],
  ["with a member called __proto__", '{"__proto__":{}}'],
  ["that is nested too deep", "[".repeat(40) + "]".repeat(40)],
];
const bodiesThatAreNoForm: readonly (readonly [string, string | Uint8Array<ArrayBuffer>])[] = [
  ["that is not UTF-8", new Uint8Array([0x61, 0x3d, 0xff])],
  ["whose escapes are not UTF-8", "token=%ff"],
  ["with a malformed escape", "token=%zz"],
  ["that is empty", ""],
  ["with a parameter twice", "token=a&token=b"],
  ["with a parameter twice, once by another spelling and empty", "token=a&%74oken="],
  ["with more parameters than can be", Array.from({ length: 40 }, (_, at) => `p${at}=1`).join("&")],
];

export const REFUSALS: readonly Refusal[] = [
  {
    name: "a Host that is not on the allow-list",
    applies: any,
    spoil: withHeader("host", "evil.example"),
    status: 400,
    code: "target-invalid",
  },
  {
    name: "a Host that would move the path",
    applies: any,
    spoil: withHeader("host", "127.0.0.1:8000/healthz?"),
    status: 400,
    code: "target-invalid",
  },
  {
    name: "a query parameter that it does not know",
    applies: any,
    spoil: withQuery("access_token=x"),
    status: 400,
    code: "query-unknown",
  },
  {
    name: "a repeated query parameter, where it takes none",
    applies: (route) => !takesQuery(route),
    spoil: withQuery("limit=1&limit=1"),
    status: 400,
    code: "query-unknown",
  },
  {
    name: "a repeated query parameter",
    applies: takesQuery,
    spoil: withQuery("limit=1&limit=1"),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "a repeated query parameter, once by another spelling",
    applies: takesQuery,
    spoil: withQuery("limit=1&%6cimit=2"),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "a query parameter that breaks its rule",
    applies: takesQuery,
    spoil: (call, route) => withQuery(BAD_QUERIES[nameOf(route)] ?? "limit=201")(call),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "no credential",
    applies: isProtected,
    spoil: withHeader("authorization", undefined),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a credential of another scheme",
    applies: isProtected,
    spoil: withHeader("authorization", "Basic YTpi"),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a token that is none",
    applies: isProtected,
    spoil: withToken("abc.def.ghi"),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a token that is bound to no key under the scheme of proofs",
    applies: isProtected,
    spoil: async (call, _, accounts) => withToken(await tokenOf(accounts), "DPoP")(call),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a token that is bound to a key, without a proof",
    applies: isProtected,
    spoil: async (call, _, accounts) => withToken(await tokenOf(accounts, { boundTo: A_THUMBPRINT }))(call),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a token that is bound to a key, with something that is no proof",
    applies: isProtected,
    spoil: async (call, _, accounts) =>
      withHeader("dpop", "abc.def.ghi")(
        withToken(await tokenOf(accounts, { boundTo: A_THUMBPRINT }), "DPoP")(call),
      ),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a disabled account's token",
    applies: isProtected,
    spoil: async (call, _, accounts) =>
      withToken(await tokenOf(accounts, { subject: accounts.disabledId }))(call),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "an ended session's token",
    applies: isProtected,
    async spoil(call, _, accounts) {
      const { sessions } = accounts.identity;
      const { session } = await sessions.open({
        userId: accounts.adminId,
        network: "192.0.2.1",
        boundTo: null,
      });
      const token = await tokenOf(accounts, { session: session.id });
      await sessions.end(session);
      return withToken(token)(call);
    },
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "an API key without the scope",
    applies: isProtected,
    // What no route demands: it decides on fields of answers.
    spoil: async (call, _, accounts) => withToken(await keyOf(accounts, ["upstream:read"]))(call),
    status: 403,
    code: "scope-insufficient",
  },
  {
    name: "an API key from another network than its own",
    applies: isProtected,
    spoil: async (call, _, accounts) =>
      withToken(await keyOf(accounts, ["model:read"], ["203.0.113.0/24"]))(call),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a token without the scope",
    applies: isProtected,
    async spoil(call, _, accounts) {
      const scope = [{ action: "upstream:read", on: "*", cardRole: null }] as const;
      return withToken(await tokenOf(accounts, { scope }))(call);
    },
    status: 403,
    code: "scope-insufficient",
  },
  {
    name: "the token of a client whose roles do not give the action",
    applies: isProtected,
    async spoil(call, _, accounts) {
      const { clientId } = accounts;
      return withToken(await tokenOf(accounts, { subject: clientId, clientId }))(call);
    },
    status: 403,
    code: "forbidden",
  },
  {
    name: "a client that does not prove itself",
    applies: isForClients,
    spoil: withHeader("authorization", undefined),
    status: 401,
    code: "client-refused",
  },
  {
    name: "a client with a token instead of its secret",
    applies: isForClients,
    spoil: async (call, _, accounts) => withToken(await tokenOf(accounts))(call),
    status: 401,
    code: "client-refused",
  },
  {
    name: "a client with a wrong secret",
    applies: isForClients,
    spoil: (call, _, { clientId }) =>
      withHeader("authorization", `Basic ${btoa(`${clientId}:pcs_${"A".repeat(43)}`)}`)(call),
    status: 401,
    code: "client-refused",
  },
  {
    name: "a client that proves itself in two ways",
    applies: isForClients,
    spoil: (call) => withBody(`${call.init.body}&client_id=cli_1&client_secret=x`)(call),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "a method that the path has not",
    applies: any,
    spoil: ({ path, init }, route) => ({ path, init: { ...init, method: strangeMethod(route) } }),
    status: 405,
    code: "method-not-allowed",
  },
  {
    name: "a body of another media type",
    applies: takesBody,
    spoil: withHeader("content-type", "text/plain"),
    status: 415,
    code: "media-type-unsupported",
  },
  {
    name: "no media type",
    applies: takesBody,
    spoil: withHeader("content-type", undefined),
    status: 415,
    code: "media-type-unsupported",
  },
  {
    name: "a compressed body",
    applies: takesBody,
    spoil: withHeader("content-encoding", "gzip"),
    status: 415,
    code: "media-type-unsupported",
  },
  {
    name: "a body beyond the limit",
    applies: takesBody,
    spoil: (call, route) => withBody(`{"a":"${"x".repeat(route.bodyBytesMax ?? 1024 * 1024)}"}`)(call),
    status: 413,
    code: "body-too-large",
  },
  ...bodiesThatAreNoJson.map(([name, body]): Refusal => ({
    name: `JSON ${name}`,
    applies: takesJson,
    spoil: withBody(body),
    status: 400,
    code: "request-invalid",
  })),
  ...bodiesThatAreNoForm.map(([name, body]): Refusal => ({
    name: `a form ${name}`,
    applies: takesForm,
    spoil: withBody(body),
    status: 400,
    code: "request-invalid",
  })),
  {
    name: "a field that the schema has not",
    applies: takesJson,
    spoil: (call) =>
      withBody(JSON.stringify({ ...JSON.parse(String(call.init.body)), is_admin: true }))(call),
    status: 422,
    code: "fields-invalid",
  },
  {
    name: "a body that is no object",
    applies: takesJson,
    spoil: withBody("[]"),
    status: 422,
    code: "fields-invalid",
  },
  {
    name: "a body where none is taken",
    // No Request of a GET can have one here.
    applies: (route) => route.method !== "GET" && !takesBody(route),
    spoil: (call) => withHeader("content-length", "2")(withBody("{}")(call)),
    status: 400,
    code: "request-invalid",
  },
];

const A_THUMBPRINT = "A".repeat(43);

/** A token of an admin, unless said otherwise. */
export async function tokenOf(
  { identity, adminId }: Accounts,
  order: Partial<Parameters<Accounts["identity"]["accessTokens"]["issue"]>[0]> = {},
): Promise<string> {
  const whole = { subject: adminId, session: null, scope: null, boundTo: null, ...order };
  return (await identity.accessTokens.issue(whole)).token;
}

/** An API key of an admin. */
async function keyOf(
  { identity, adminId }: Accounts,
  scopes: readonly string[],
  addresses: readonly string[] = [],
): Promise<string> {
  const { text } = await identity.apiKeys.create({
    name: "a key",
    ownerId: adminId,
    scopes,
    addresses,
    boundTo: null,
    expiresAtMs: Date.now() + 60_000,
    seenByOthers: false,
  });
  return text;
}

/** Methods of whole paths, from the table that tests hold against the routes. */
export function methodsOf(path: string): readonly string[] {
  return Object.keys(GOOD_CALLS).map((name) => name.split(" ")).filter(([, other]) => other === path)
    .map(([method = ""]) => method);
}

function strangeMethod({ path }: AnyRoute): string {
  return ["DELETE", "PUT", "PATCH"].find((method) => !methodsOf(path).includes(method)) ?? "";
}
