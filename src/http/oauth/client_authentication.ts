// Client authentication: from what a request brings, in its header or in its form, to a client (RFC 6749 §2.3).
import { z } from "@hono/zod-openapi";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { OWN_CLIENT } from "../../identity/access_token.ts";
import type { Client, Clients } from "../../identity/clients.ts";
import { type AssertionRefusal, verifyClientAssertion } from "../../identity/oauth/client_assertion.ts";
import type { ReplayStore } from "../../identity/replay_store.ts";
import { isIdText, parseJws } from "../../identity/strict_jws.ts";
import type { Clock } from "../../time/clock.ts";
import type { Exchange } from "../exchange.ts";
import { guessDigest } from "../middleware/guessed_credential.ts";
import { decodeFormText } from "./form_body.ts";
import { TOKEN_PATH } from "./oauth_paths.ts";

/** What authentication needs. */
export interface ClientAuthenticationParts {
  /** The public origin of this server. */
  readonly issuer: string;
  readonly clients: Clients;
  readonly replays: ReplayStore;
  readonly clock: Clock;
}

/** How a client can prove itself, by the names of OAuth's registry. */
export const CLIENT_AUTHENTICATION_METHODS = [
  "client_secret_basic",
  "client_secret_post",
  "private_key_jwt",
] as const;

/** The parameters of a form that are about its client. */
export const clientFields = {
  client_id: z.string().optional(),
  client_secret: z.string().optional(),
  client_assertion_type: z.string().optional(),
  client_assertion: z.string().optional(),
};

/** Their values. */
export type ClientFields = z.infer<z.ZodObject<typeof clientFields>>;

type ClientRefusal =
  | "scheme_unknown"
  | "credentials_malformed"
  | "client_id_differs"
  | "assertion_type_unknown"
  | "not_authenticated"
  | AssertionRefusal
  | Extract<Awaited<ReturnType<Clients["verifySecret"]>>, { readonly ok: false }>["reason"];

const ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/** RFC 7617 §2: one base64 text, canonical, of which no second stands for the same bytes. */
const BASIC = /^basic +([A-Za-z0-9+/]+={0,2})$/i;

/**
 * The client behind a request; undefined where it brings no proof of one, as the public client of this server does: whoever
 * holds its tokens is it. From here on the record knows the client.
 *
 * @param path the endpoint's own
 * @throws Fault `client_refused` · `request_invalid` where it proves itself in more than one way, or in half of one
 */
export async function authenticateClient(
  parts: ClientAuthenticationParts,
  exchange: Exchange,
  path: string,
  fields: ClientFields,
): Promise<Client | undefined> {
  const authorization = exchange.request.headers.get("authorization");
  const { client_id: id, client_secret: secret, client_assertion, client_assertion_type } = fields;
  const byAssertion = client_assertion !== undefined || client_assertion_type !== undefined;
  if ([authorization !== null, secret !== undefined, byAssertion].filter(Boolean).length > 1) {
    throw new Fault("request_invalid", "Cannot authenticate a client: it does so in more than one way", {
      detail: "Authenticate the client in one way only.",
    });
  }
  const outcome = authorization !== null
    ? await verifyHeader(parts, authorization, id)
    : secret !== undefined
    ? await verifySecret(parts, requireWhole(id), secret)
    : byAssertion
    ? await verifyAssertion(parts, path, fields)
    : id === undefined || id === OWN_CLIENT
    ? ok(undefined)
    : no("not_authenticated");
  if (!outcome.ok) throw clientRefused(outcome.reason, proofIn(authorization, fields));
  if (outcome.value !== undefined) {
    const { id: subject, team } = outcome.value;
    exchange.record.identify({ issuer: parts.issuer, subject, team, credential: subject });
  }
  return outcome.value;
}

/** Like `authenticateClient`, where the public client will not do. */
export async function requireClient(
  ...request: Parameters<typeof authenticateClient>
): Promise<Client> {
  const client = await authenticateClient(...request);
  if (client === undefined) throw clientRefused("not_authenticated");
  return client;
}

/** Refusals of what was never given to anybody: no secret and no signature was right. */
const GUESSES: ReadonlySet<ClientRefusal> = new Set(
  [
    "scheme_unknown",
    "credentials_malformed",
    "client_unknown",
    "secret_wrong",
    "assertion_malformed",
    "assertion_header_refused",
    "assertion_client_unknown",
    "assertion_signature_wrong",
  ] as const,
);

/**
 * What is answered to a client that is none, is not the right one, or does not say which one it is.
 *
 * @param proof what it proved itself with: whether it is one guess more
 */
export function clientRefused(reason: ClientRefusal, proof: readonly string[] = []): Fault {
  const details = GUESSES.has(reason) ? { guess: guessDigest(...proof) } : {};
  return new Fault("client_refused", `Cannot authenticate a client: ${reason}`, details);
}

/**
 * What tells one guess from another. Each assertion is a new text, and a client that was deleted goes on to sign them: there it is
 * the client that is named, for nobody finds a key by trying.
 */
function proofIn(
  authorization: string | null,
  { client_id: id = "", client_secret: secret = "", client_assertion: assertion }: ClientFields,
): readonly string[] {
  if (authorization !== null) return [authorization];
  if (assertion === undefined) return [id, secret];
  const jws = parseJws(assertion);
  const issuer = jws.ok ? jws.value.claims.iss : undefined;
  return [typeof issuer === "string" ? issuer : assertion];
}

/** RFC 6749 §2.3.1: id and secret are form-encoded first, so that a colon or a character beyond ASCII survives. */
async function verifyHeader(
  parts: ClientAuthenticationParts,
  authorization: string,
  idInForm: string | undefined,
): Promise<Outcome<Client, ClientRefusal>> {
  const [, base64] = BASIC.exec(authorization) ?? [];
  if (base64 === undefined) return no("scheme_unknown");
  const text = decodeBase64(base64);
  const colon = text?.indexOf(":") ?? -1;
  if (text === undefined || colon === -1) return no("credentials_malformed");
  const id = decodeFormText(text.slice(0, colon));
  const secret = decodeFormText(text.slice(colon + 1));
  if (!id.ok || !secret.ok) return no("credentials_malformed");
  if (idInForm !== undefined && idInForm !== id.value) return no("client_id_differs");
  return await verifySecret(parts, id.value, secret.value);
}

async function verifySecret(
  { clients }: ClientAuthenticationParts,
  id: string,
  secret: string,
): Promise<Outcome<Client, ClientRefusal>> {
  return isIdText(id) ? await clients.verifySecret(id, secret) : no("credentials_malformed");
}

/** RFC 7523 §2.2 and §3. */
async function verifyAssertion(
  { issuer, clients, replays, clock }: ClientAuthenticationParts,
  path: string,
  { client_id, client_assertion, client_assertion_type }: ClientFields,
): Promise<Outcome<Client, ClientRefusal>> {
  const assertion = requireWhole(client_assertion);
  if (requireWhole(client_assertion_type) !== ASSERTION_TYPE) return no("assertion_type_unknown");
  let client: Client | undefined;
  const verified = await verifyClientAssertion(assertion, {
    ...(client_id === undefined ? {} : { clientIdHint: client_id }),
    async keysOf(clientId) {
      client = (await clients.read(clientId))?.value;
      return client?.authentication === "private_key_jwt" && !client.disabled ? client.keys : undefined;
    },
    audiences: [issuer, `${issuer}${TOKEN_PATH}`, `${issuer}${path}`],
    nowSeconds: clock.now() / 1000,
    replays,
  });
  if (!verified.ok) return verified;
  return client === undefined ? no("assertion_client_unknown") : ok(client);
}

function requireWhole(parameter: string | undefined): string {
  if (parameter === undefined) {
    throw new Fault("request_invalid", "Cannot authenticate a client: half of what proves it is missing", {
      detail: "Send client_id with client_secret, and client_assertion with client_assertion_type.",
    });
  }
  return parameter;
}

function decodeBase64(text: string): string | undefined {
  try {
    const bytes = Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
    const decoded = decodeUtf8(bytes);
    return decoded.ok ? decoded.value : undefined;
  } catch {
    return undefined;
  }
}
