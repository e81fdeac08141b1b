// The app: the list of routes and the order of the gate. Read this file first.
import { OpenAPIHono } from "@hono/zod-openapi";
import type { Context } from "hono";
import { RequestRecord } from "../audit/request_record.ts";
import type { AuditTrail } from "../audit/audit_trail.ts";
import type { SubjectLabels } from "../audit/subject_labels.ts";
import { newId } from "../encoding/ids.ts";
import {
  type AddressBytes,
  type AddressRange,
  clientNetwork,
  formatAddress,
} from "../encoding/ip_address.ts";
import type { Principal } from "../access/principal.ts";
import { Fault, type FaultKind, toFault } from "../faults/fault.ts";
import { FAULT_TABLE } from "../faults/fault_table.ts";
import type { Authenticate, Recognition } from "../identity/authenticate.ts";
import type { DpopProofs } from "../identity/dpop_proof.ts";
import type { Limiter } from "../limits/limiter.ts";
import type { Pressure } from "../limits/pressure.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { type AccountParts, accountRoutes } from "./account/account_routes.ts";
import { type AdminParts, adminRoutes } from "./admin/admin_routes.ts";
import { anthropicDialect } from "./anthropic/anthropic_error.ts";
import { anthropicRoutes } from "./anthropic/anthropic_routes.ts";
import type { AnthropicParts } from "./anthropic/messages_route.ts";
import { buildAnswer, faultAnswer, type WireAnswer } from "./answer.ts";
import type { Challenge } from "./challenge.ts";
import { type Exchange, principalOf } from "./exchange.ts";
import { type BodyBudget, openBodyBudget } from "./middleware/body_budget.ts";
import type { BodyBounds } from "./middleware/body_pieces.ts";
import type { BanWatch } from "./middleware/ban_watch.ts";
import { clientAddress } from "./middleware/client_address.ts";
import { guessDigest, isGuessedCredential } from "./middleware/guessed_credential.ts";
import { addLimitFields } from "./middleware/limit_fields.ts";
import { parseFields } from "./middleware/parse_fields.ts";
import { parseQuery } from "./middleware/parse_query.ts";
import { type RateTiers, requireNotRefused, takeRates } from "./middleware/rate_tiers.ts";
import { readJsonBody, requireJsonAnnounced, requireNoBody } from "./middleware/read_body.ts";
import { requireSafeTarget } from "./middleware/request_target.ts";
import type { StandardHeaders } from "./middleware/standard_headers.ts";
import { oipDialect } from "./oip/oip_error.ts";
import { type OipParts, oipRoutes } from "./oip/oip_routes.ts";
import { oauthDialect } from "./oauth/oauth_error.ts";
import { type OauthParts, oauthRoutes } from "./oauth/oauth_routes.ts";
import { openaiDialect } from "./openai/openai_error.ts";
import { type OpenaiParts, openaiRoutes } from "./openai/openai_routes.ts";
import { describeRoutes } from "./operations/api_description.ts";
import { type OperationsParts, operationsRoutes } from "./operations/operations_routes.ts";
import { problemDialect } from "./problem.ts";
import { requireAccess } from "./require_access.ts";
import { type Answer, type AnyRoute, type BodyStream, defineRoute, type Dialect } from "./route.ts";

/** What the routes and the gate are made of. */
export type AppParts =
  & AccountParts
  & AdminParts
  & OauthParts
  & OpenaiParts
  & AnthropicParts
  & OipParts
  & OperationsParts
  & GateParts;

/** What the gate is made of. */
export interface GateParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly trail: AuditTrail;
  readonly authenticate: Authenticate;
  /** Makes the nonces that proofs of possession need. */
  readonly proofs: DpopProofs;
  readonly challenge: Challenge;
  readonly limiter: Limiter;
  /** Says whom to turn away under load. */
  readonly pressure: Pressure;
  readonly banWatch: BanWatch;
  readonly rateTiers: RateTiers;
  readonly standardHeaders: StandardHeaders;
  readonly bodyBounds: BodyBounds;
  /** Of all bodies under way together. */
  readonly bodiesBytesMax: number;
  readonly allowedHosts: ReadonlySet<string>;
  readonly trustedProxies: readonly AddressRange[];
  /** How an address stands in the audit trail. */
  readonly labelAddress: (address: string) => string;
  /** How subjects do. */
  readonly subjects: SubjectLabels;
}

/** The gate in use: its parts, and what it keeps count of. */
interface Gate extends GateParts {
  readonly bodyBudget: BodyBudget;
}

/** The transport's word on where a request comes from. */
export interface Peer {
  readonly remoteAddr: { readonly hostname?: string };
}

/** Answers one request. Never throws, never rejects. */
export type App = (request: Request, peer: Peer) => Promise<WireAnswer>;

/** Every route of the server, each with its policy. */
export function routeTable(parts: AppParts): readonly AnyRoute[] {
  const routes = [
    ...openaiRoutes(parts), //     GET /v1/models… · POST /v1/chat/completions · /v1/embeddings · /v1/audio/… · …
    ...anthropicRoutes(parts), //  POST /v1/messages · /v1/messages/count_tokens
    ...oipRoutes(parts), //        /v2 · /v2/health/… · /v2/models/{id} · POST /v2/models/{id}/infer
    ...accountRoutes(parts), //    POST /v1/auth/login · …/logout · …/password · /v1/auth/sessions · /v1/keys
    ...adminRoutes(parts), //      /v1/users · /v1/teams · /v1/roles · /v1/clients · /v1/signing-keys
    ...oauthRoutes(parts), //      POST /oauth2/token · …/revoke · …/introspect · /.well-known/oauth-…
    ...operationsRoutes(parts), // GET /healthz · /readyz · /.well-known/jwks.json
  ];
  return [...routes, describeRoutes(routes)]; // GET /openapi.json
}

/**
 * Makes the app over its routes.
 *
 * @throws Fault `internal` when a route has no policy or stands twice in the table
 */
export function createApp(parts: GateParts, routes: readonly AnyRoute[]): App {
  const { clock, log, allowedHosts, standardHeaders } = parts;
  const router = new OpenAPIHono<{ Bindings: Peer }>({ strict: true });
  checkRouteTable(routes);
  const gate: Gate = { ...parts, bodyBudget: bodyBudgetOf(parts, routes) };
  // The router hands on whatever a handler returns; only for HEAD it makes a Response of it.
  const serve = (route: AnyRoute, context: Context<{ Bindings: Peer }>): Promise<Response> =>
    pass(gate, route, context.req.raw, context.env, context.req.param()) as Promise<unknown> as Promise<
      Response
    >;

  // What is thrown outside a route's own net reaches the last one below.
  router.onError((thrown) => {
    throw thrown;
  });
  for (const path of new Set(routes.map((route) => route.path))) {
    // One row a path, so that the router calls it without a chain; HEAD is GET without the body (RFC 9110 §9.3.2).
    const byMethod = new Map<string, AnyRoute>(
      routes.filter((route) => route.path === path).map((route) => [route.method, route]),
    );
    const get = byMethod.get("GET");
    if (get !== undefined) byMethod.set("HEAD", get);
    const other = otherMethods(path, routes, parts);
    router.all(routerPath(path), (context) => serve(byMethod.get(context.req.method) ?? other, context));
  }
  router.notFound((context) => serve(unmatched(context.req.path), context));

  return async (request, peer) => {
    try {
      // 1. Host, target and method, before anything reads the URL.
      requireSafeTarget(request, allowedHosts);
      const answer: Response | WireAnswer = await router.fetch(request, peer);
      return answer instanceof Response ? withoutBody(answer) : answer;
    } catch (thrown) {
      const fault = toFault(thrown);
      const id = newId("req", clock.now());
      const bytes = addressOf(request, peer, parts);
      const address = formatAddress(bytes);
      await parts.banWatch.note(fault, request, clientNetwork(bytes), address, id);
      const { status, code } = FAULT_TABLE[fault.kind];
      const level = fault.kind === "internal" ? "error" : "info";
      log.write(level, "request", {
        request: id,
        route: "none",
        status,
        address,
        code,
        reason: fault.message,
      });
      return buildAnswer(
        faultAnswer(fault, problemDialect, id, parts.challenge),
        standardHeaders.forAnswer(id, null),
      );
    }
  };
}

/** Dialects whose clients read the limits as OpenAI's API says them. */
const OPENAI_FIELDS: readonly Dialect[] = [openaiDialect, anthropicDialect];

/** The answer to HEAD. */
function withoutBody({ status, headers }: Response): WireAnswer {
  return { status, headers: Object.fromEntries(headers), body: null };
}

/** One request through the gate, in the gate's order. */
async function pass(
  parts: Gate,
  route: AnyRoute,
  request: Request,
  peer: Peer,
  parameters: Readonly<Record<string, string>>,
): Promise<WireAnswer> {
  const { clock } = parts;
  const receivedMs = clock.monotonic();
  // 2. An id of ours and the headers of every answer, errors included.
  const id = newId("req", clock.now());
  const answerHeaders = parts.standardHeaders.forAnswer(id, request.headers.get("origin"));
  // 3. The client's address.
  const address = addressOf(request, peer, parts);
  const addressText = formatAddress(address);
  const record = new RequestRecord(
    parts.trail,
    { request: id, address: parts.labelAddress(addressText), route: `${route.method} ${route.path}` },
    parts.subjects,
    request.headers,
  );
  const exchange: Exchange = {
    id,
    request,
    receivedMs,
    clientNetwork: clientNetwork(address),
    address,
    parameters,
    record,
    limits: [],
    admitted: false,
    answerHeaders,
    query: undefined,
    principal: undefined,
  };

  let answer: Answer;
  let fault: Fault | undefined;
  try {
    answer = await walk(parts, route, exchange);
  } catch (thrown) {
    // 9. Errors: public words out, the private reason to log and trail.
    fault = await recordRefusal(route, exchange, toFault(thrown));
    answer = faultAnswer(fault, route.dialect, id, parts.challenge);
    await afterRefusal(parts, route, exchange, fault);
  }
  addLimitFields(answerHeaders, exchange.limits, OPENAI_FIELDS.includes(route.dialect));
  if (answer.stream === undefined) logAccess(parts, route, exchange, answer.status, addressText, fault);
  else {answer = loggedAtItsEnd(answer, answer.stream, (brokenBy) =>
      logAccess(parts, route, exchange, answer.status, addressText, brokenBy));}
  return buildAnswer(answer, answerHeaders, request.method === "HEAD");
}

function addressOf(request: Request, peer: Peer, { trustedProxies }: GateParts): AddressBytes {
  return clientAddress(
    peer.remoteAddr.hostname ?? "",
    request.headers.get("x-forwarded-for"),
    trustedProxies,
  );
}

/** Steps 4 to 8; each throws a Fault to refuse. */
async function walk(parts: Gate, route: AnyRoute, exchange: Exchange): Promise<Answer> {
  const { request } = exchange;
  const { limiter, rateTiers } = parts;
  // 4. Bans and rates by address, before anything costs.
  parts.banWatch.require(exchange.clientNetwork);
  if (route.rated) {
    const tiers = route.policy.kind === "sign_in"
      ? [rateTiers.address, rateTiers.signIn]
      : route.policy.kind === "client"
      ? [rateTiers.address, rateTiers.token]
      : [rateTiers.address];
    await takeRates(limiter, tiers, exchange.clientNetwork, exchange.limits);
  }
  if (route.policy.kind === "nothing") return await route.handle(exchange, undefined as never);
  // 5. Query and body by what is announced: media type, encoding, length. Nothing is read yet.
  if (route.query === undefined) requireNoQuery(request);
  else exchange.query = parseQuery(route.query, request.url);
  let held = 0;
  const bounds = {
    ...boundsOf(route, parts),
    // A body that did not say how large it is counted as the largest till now.
    onRead(bytes: number) {
      parts.bodyBudget.giveBack(caller, held - heldBytesOf(route, bytes));
      held = heldBytesOf(route, bytes);
    },
  };
  if (route.bodyForm !== undefined) route.bodyForm.requireAnnounced(request, bounds);
  else if (route.body !== undefined) requireJsonAnnounced(request, bounds);
  else requireNoBody(request);
  let caller = exchange.clientNetwork;
  if (route.policy.kind === "action") {
    // 6. Who. 7. May.
    caller = await requirePrincipal(parts, exchange, route.dialect);
    // The act takes this one together with all other limits, in one decision.
    if (!route.admits) await takeRates(limiter, [rateTiers.user], caller, exchange.limits);
    else requireNotRefused(limiter, rateTiers.user, caller, exchange.limits);
    parts.pressure.requireRoom(principalOf(exchange).roles, route.admits === true);
    requireAccess(principalOf(exchange), route.policy.action);
  }
  const recognisedMs = parts.clock.monotonic();
  // 5, the costly part: room for the bytes, the bytes, UTF-8, JSON, strict fields. A stranger's body is not worth the work.
  held = heldBytesOf(route, announcedBytes(request, bounds));
  parts.bodyBudget.take(caller, held);
  try {
    const body = route.bodyForm !== undefined
      ? await route.bodyForm.read(request, bounds, caller)
      : route.body !== undefined
      ? parseFields(route.body, await readJsonBody(request, bounds))
      : undefined;
    // 6 and 7 again, where the body took its time: rights may have been withdrawn meanwhile (ASVS V8.3.2).
    if (route.policy.kind === "action" && parts.clock.monotonic() - recognisedMs > RECOGNISED_FOR_MS) {
      await requirePrincipal(parts, exchange, route.dialect);
      requireAccess(principalOf(exchange), route.policy.action);
    }
    // 8. The handler records what it does, before it does it.
    return await route.handle(exchange, body as never);
  } finally {
    parts.bodyBudget.giveBack(caller, held);
  }
}

function boundsOf(route: AnyRoute, { bodyBounds }: GateParts): BodyBounds {
  return route.bodyBytesMax === undefined ? bodyBounds : { ...bodyBounds, bodyBytesMax: route.bodyBytesMax };
}

/** How large the body is, or may be where it does not say. */
function announcedBytes({ headers }: Request, { bodyBytesMax }: BodyBounds): number {
  const bytes = Number(headers.get("content-length") ?? bodyBytesMax);
  return bytes >= 0 ? bytes : bodyBytesMax;
}

/** How much of a body of so many bytes the route holds. */
function heldBytesOf({ body, bodyForm }: AnyRoute, bodyBytes: number): number {
  return body === undefined && bodyForm === undefined
    ? 0
    : Math.min(bodyBytes, bodyForm?.heldBytesMax ?? bodyBytes);
}

function bodyBudgetOf(parts: GateParts, routes: readonly AnyRoute[]): BodyBudget {
  const largestBytes = Math.max(
    0,
    ...routes.map((route) => heldBytesOf(route, boundsOf(route, parts).bodyBytesMax)),
  );
  return openBodyBudget({ bodiesBytesMax: parts.bodiesBytesMax, largestBytes });
}

/** For so long a decision holds while the body comes; whole bodies come within milliseconds. */
const RECOGNISED_FOR_MS = 250;

async function requirePrincipal(parts: GateParts, exchange: Exchange, dialect: Dialect): Promise<string> {
  const { headers, method, url } = exchange.request;
  const bare = dialect.tokenHeader === undefined ? null : headers.get(dialect.tokenHeader);
  const authorization = headers.get("authorization") ?? (bare === null ? null : `Bearer ${bare}`);
  const proof = headers.get("dpop");
  // RFC 9449 §8.2: who proves is given the nonce for the next time.
  if (proof !== null) exchange.answerHeaders["DPoP-Nonce"] = parts.proofs.nonce();
  const outcome = await parts.authenticate({
    authorization,
    proof,
    proved: exchange.principal?.credential.boundTo ?? null,
    method,
    path: proof === null ? "" : pathOf(url),
    address: exchange.address,
  });
  if (!outcome.ok) {
    if (outcome.whose !== undefined) exchange.record.identify(outcome.whose);
    throw notRecognised(parts, exchange, outcome, authorization);
  }
  const { issuer, subject, team, credential } = outcome.value;
  exchange.principal = outcome.value;
  exchange.record.identify({ issuer, subject, team, credential: credential.id });
  return callerOf(outcome.value);
}

/** 401, with the words that RFC 6750 §3.1 and RFC 9449 §7.1 and §9 have for the reason. */
function notRecognised(
  parts: GateParts,
  { answerHeaders }: Exchange,
  refused: Extract<Recognition, { readonly ok: false }>,
  authorization: string | null,
): Fault {
  const { reason, claimed } = refused;
  const message = `Cannot recognise the caller: ${reason}${claimed === undefined ? "" : ` (${claimed})`}`;
  if (reason === "missing") return new Fault("unauthenticated", message);
  const isProofScheme = /^dpop /i.test(authorization ?? "");
  if (isProofScheme) answerHeaders["DPoP-Nonce"] = parts.proofs.nonce();
  const tokenError = reason === "proof_nonce_missing" || reason === "proof_nonce_wrong"
    ? "use_dpop_nonce"
    : reason.startsWith("proof_") && isProofScheme
    ? "invalid_dpop_proof"
    : "invalid_token";
  return new Fault("unauthenticated", message, {
    tokenError,
    scheme: isProofScheme ? "DPoP" : "Bearer",
    ...(isGuessedCredential(refused) ? { guess: guessDigest(authorization ?? "") } : {}),
  });
}

/** The path as it was sent; the gate has checked the form of the whole before. */
function pathOf(url: string): string {
  return new URL(url).pathname;
}

/** Few routes take query parameters; a token in one would end up in logs (RFC 6750 §2.3, ASVS V14.2.1). */
function requireNoQuery(request: Request): void {
  if (request.url.includes("?")) {
    throw new Fault(
      "query_unknown",
      "Cannot accept a request: it has query parameters and the route takes none",
    );
  }
}

/** What a refusal leaves behind besides its record: strikes of its address, and a request of its user where no limit took it yet. */
async function afterRefusal(parts: Gate, route: AnyRoute, exchange: Exchange, fault: Fault): Promise<void> {
  const { limiter, rateTiers, banWatch } = parts;
  const { principal, request, clientNetwork } = exchange;
  if (route.admits && principal !== undefined && !exchange.admitted && IS_COUNTED[fault.kind] !== false) {
    // Whoever sends what is refused before the act must not do it for nothing. The answer stays what it is.
    await takeRates(limiter, [rateTiers.user], callerOf(principal), []).catch(() => {});
  }
  await banWatch.note(fault, request, clientNetwork, formatAddress(exchange.address), exchange.id);
}

/** Refusals that are no use of the server by its caller. */
const IS_COUNTED: { readonly [Kind in FaultKind]?: false } = {
  rate_limited: false,
  budget_exhausted: false,
  overloaded: false,
  unavailable: false,
  stopping: false,
};

function callerOf({ issuer, subject }: Principal): string {
  return `${issuer} ${subject}`;
}

/**
 * Every refusal on a route that is not public is in the trail before it is answered; without a record the answer is 503. Of those
 * who are banned the ban is in the trail: it would grow by whatever they send.
 */
async function recordRefusal(route: AnyRoute, exchange: Exchange, fault: Fault): Promise<Fault> {
  const isOpen = route.policy.kind === "public" || route.policy.kind === "nothing";
  if (isOpen || fault.kind === "banned" || exchange.record.verdictRecorded) return fault;
  const { status, code } = FAULT_TABLE[fault.kind];
  try {
    await exchange.record.refused(status, code, fault.message);
    return fault;
  } catch (thrown) {
    return toFault(thrown);
  }
}

const KNOWN_METHODS: readonly string[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** One line a request. Nothing that the client wrote is in it but the method, and that only where it is a known one. */
function logAccess(
  parts: GateParts,
  route: AnyRoute,
  exchange: Exchange,
  status: number,
  address: string,
  fault: Fault | undefined,
): void {
  const method = exchange.request.method;
  parts.log.write(fault?.kind === "internal" ? "error" : "info", "request", {
    request: exchange.id,
    method: KNOWN_METHODS.includes(method) ? method : "other",
    route: route.path,
    status,
    durationMs: Math.round((parts.clock.monotonic() - exchange.receivedMs) * 100) / 100,
    address,
    subject: exchange.record.subject,
    ...(fault === undefined ? {} : { code: FAULT_TABLE[fault.kind].code, reason: fault.message }),
  });
}

/** An answer in pieces is over when the last piece is. */
function loggedAtItsEnd(
  answer: Answer,
  stream: BodyStream,
  log: (brokenBy: Fault | undefined) => void,
): Answer {
  let logged = false;
  const logOnce = (): void => {
    if (!logged) log(stream.brokenBy());
    logged = true;
  };
  return {
    ...answer,
    stream: {
      async next() {
        try {
          const pieces = await stream.next();
          if (pieces === undefined) logOnce();
          return pieces;
        } catch (thrown) {
          logOnce();
          throw thrown;
        }
      },
      cancel() {
        stream.cancel();
        logOnce();
      },
      brokenBy: () => stream.brokenBy(),
    },
  };
}

/** Refuses to start rather than serve a route that nobody decided on. */
function checkRouteTable(routes: readonly AnyRoute[]): void {
  const seen = new Set<string>();
  for (const route of routes) {
    const name = `${route.method} ${route.path}`;
    const kind: unknown = (route as { policy?: { kind?: unknown } }).policy?.kind;
    if (kind !== "public" && kind !== "sign_in" && kind !== "client" && kind !== "action") {
      throw new Fault("internal", `Cannot serve ${name}: it declares no policy`);
    }
    if (seen.has(name)) {
      throw new Fault("internal", `Cannot serve ${name}: it stands twice in the route table`);
    }
    seen.add(name);
  }
}

/** The row behind a path's other methods: 405 with Allow (RFC 9110 §15.5.6), or the answer to a permitted preflight. */
function otherMethods(path: string, routes: readonly AnyRoute[], parts: GateParts): AnyRoute {
  const here = routes.filter((route) => route.path === path);
  const allow = here.flatMap((route) => route.method === "GET" ? ["GET", "HEAD"] : [route.method]);
  return nothing(path, here[0]?.dialect ?? problemDialect, ({ request }) => {
    const { headers } = request;
    const preflight = request.method === "OPTIONS"
      ? parts.standardHeaders.forPreflight(
        headers.get("origin"),
        headers.get("access-control-request-method"),
      )
      : undefined;
    if (preflight !== undefined) return { status: 204, headers: preflight };
    throw new Fault("method_not_allowed", "Cannot serve a request: the path has no such method", {
      allow,
      detail: `This method does not work here. Allowed: ${allow.join(", ")}.`,
    });
  });
}

/** The row behind a path that has none; a client of a dialect gets its answer in that dialect. */
function unmatched(path: string): AnyRoute {
  const dialect = path.startsWith("/v1/messages")
    ? anthropicDialect
    : path.startsWith("/v1/")
    ? openaiDialect
    : path.startsWith("/oauth2/")
    ? oauthDialect
    : path.startsWith("/v2/")
    ? oipDialect
    : problemDialect;
  return nothing("unmatched", dialect, () => {
    throw new Fault("not_found", "Cannot serve a request: no route has its path", {
      detail: "There is no such route. GET /openapi.json lists what there is.",
    });
  });
}

/** A row behind which nothing is: under the rate, and answered without a look at query, body or credential. */
function nothing(path: string, dialect: Dialect, handle: AnyRoute["handle"]): AnyRoute {
  const policy = { kind: "nothing" } as const;
  return defineRoute({
    method: "GET",
    path,
    summary: "",
    policy,
    dialect,
    rated: true,
    answers: {},
    faults: [],
    handle,
  });
}

/** OpenAPI's `{name}` to the router's `:name`. */
function routerPath(path: string): string {
  return path.replace(/\{(\w+)\}/g, ":$1");
}
