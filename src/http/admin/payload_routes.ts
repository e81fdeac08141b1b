// Payload routes: read what a model was asked and answered, where that is kept, and destroy the key of it.
import { z } from "@hono/zod-openapi";
import type { AuditArchive } from "../../audit/archive/audit_archive.ts";
import type { PayloadKeys } from "../../audit/payload/payload_keys.ts";
import { payloadsIn, type RecordedPayload } from "../../audit/payload/payload_record.ts";
import { openPayload, type PayloadPart } from "../../audit/payload/payload_seal.ts";
import type { SubjectLabels } from "../../audit/subject_labels.ts";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { Fault } from "../../faults/fault.ts";
import { changedMeanwhile, idInPath, inSeconds } from "../administer.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";

/** What the routes need. */
export interface PayloadParts {
  /** The issuer of every account of this server. */
  readonly issuer: string;
  readonly payloadKeys: PayloadKeys;
  readonly archive: AuditArchive;
  readonly subjects: SubjectLabels;
}

const partSchema = z.strictObject({
  model: z.string().describe("The model that it was sent to or came from."),
  cut: z.boolean().describe("Whether the rest was too long to be kept."),
  content: z.unknown().describe(
    "The request or the answer in the server's own form, media as their digests; a text where it is cut.",
  ),
});

const payloadSchema = z.strictObject({
  request: z.string(),
  issuer: z.string().nullable(),
  subject: z.string().nullable().describe("As subjects stand in the trail."),
  input: partSchema.nullable().describe("What was asked; null where it is not kept."),
  output: partSchema.nullable().describe("What was answered; null where it is not kept, or was nothing."),
});

const destroyQuery = z.strictObject({
  issuer: z.string().min(1).max(500).optional().describe(
    "Who vouches for the subject; default: this server.",
  ),
});

const DESTROYED_DESCRIPTION =
  "The payloads so far can never be read again: the key is out of the store, and out of its files where they are this server's. " +
  "Redis's append-only file holds it, sealed, until that is rewritten (BGREWRITEAOF); backups hold it, too. Where the answer is 503, the " +
  "key may be destroyed and not yet out of the files: the server tries again by itself, and so may the caller.";

/** Any subject of any issuer (RFC 7519 §4.1.2). */
const SUBJECT = /^[^\p{Cc}]{1,255}$/u;

/** `GET /admin/v1/requests/{id}/payload` and `DELETE /admin/v1/subjects/{id}/payload-key`. */
export function payloadRoutes(
  { payloadKeys, archive, subjects, issuer: ownIssuer }: PayloadParts,
): AnyRoute[] {
  const common = { dialect: problemDialect, rated: true } as const;
  return [
    defineRoute({
      ...common,
      method: "GET",
      path: "/admin/v1/requests/{id}/payload",
      summary: "What a model was asked and answered, where that is kept",
      policy: { kind: "action", action: "payload:read" },
      answers: { 200: { description: "The payload, opened.", schema: payloadSchema } },
      faults: ["not_found", "unavailable"],
      async handle(exchange) {
        const request = idInPath(exchange, "req");
        const payloads = payloadsIn(await eventsOf(archive, request));
        const [first] = payloads;
        if (first === undefined) throw objectNotFound("the trail has no payload of the request");
        const readKeys = () =>
          Promise.all(payloads.map(async (payload) => {
            const key = await payloadKeys.read(payload.key);
            if (key === undefined) throw destroyed();
            return { payload, key };
          }));
        // What nobody can read is refused, and is no reading.
        await readKeys();
        await exchange.record.reading("payload", { request });
        // Not those of before: what was destroyed while that was recorded is not given any more.
        const keys = await readKeys();
        const opened = (part: PayloadPart) => {
          const found = keys.find(({ payload }) => payload.part === part);
          return found === undefined
            ? null
            : partView(found.payload, openPayload(found.key, { request, part }, found.payload));
        };
        const body = {
          request,
          issuer: first.issuer,
          subject: first.subject,
          input: opened("input"),
          output: opened("output"),
        };
        return { status: 200, body };
      },
    }),
    defineRoute({
      ...common,
      method: "DELETE",
      path: "/admin/v1/subjects/{id}/payload-key",
      summary: "Destroy the key of all payloads of a subject",
      policy: { kind: "action", action: "payload:destroy" },
      query: destroyQuery,
      answers: { 204: { description: DESTROYED_DESCRIPTION } },
      faults: ["request_invalid", "not_found", "conflict", "unavailable"],
      async handle(exchange) {
        const { id: subject = "" } = exchange.parameters;
        const { issuer = ownIssuer } = exchange.query as z.infer<typeof destroyQuery>;
        if (!SUBJECT.test(subject)) throw objectNotFound("the path holds no subject");
        const key = await payloadKeys.find(issuer, subject);
        if (key === undefined) {
          // By a request that was not answered, or with a fault: the key may still stand in the store's files.
          const id = await payloadKeys.unscrubbed(issuer, subject);
          if (id === undefined) throw objectNotFound("the subject has no payload key");
          await exchange.record.changing("payload:destroy", `payload_key/${id}`, null, null);
          await payloadKeys.scrub();
          return { status: 204 };
        }
        const before = {
          issuer,
          subject: subjects.subject(issuer, subject),
          made: inSeconds(key.createdAtMs),
        };
        await exchange.record.changing("payload:destroy", `payload_key/${key.id}`, before, null);
        if (!await payloadKeys.destroy(key)) throw changedMeanwhile("a payload key");
        return { status: 204 };
      },
    }),
  ];
}

/** More than the pieces of both parts. */
const EVENTS_PER_PAGE = 100;

/** Every event of a request that can be read. */
async function eventsOf(
  archive: PayloadParts["archive"],
  request: string,
): Promise<readonly Readonly<Record<string, JsonValue>>[]> {
  const events: Readonly<Record<string, JsonValue>>[] = [];
  let after: number | undefined;
  let isCurrent = true;
  do {
    const page = await archive.page({ request, words: {} }, { after, limit: EVENTS_PER_PAGE });
    for (const { event } of page.entries) if (event !== null) events.push(event);
    after = page.next;
    isCurrent &&= page.unsearched === 0;
  } while (after !== undefined);
  if (events.length === 0 && !isCurrent) {
    throw new Fault("unavailable", "Cannot find a request: the newest entries are not searched yet", {
      detail: "The newest entries of the trail are not searched yet. Try again shortly.",
      retryAfterSeconds: 5,
    });
  }
  return events;
}

function partView({ model, cut }: RecordedPayload, text: string): z.infer<typeof partSchema> {
  let content: unknown = text;
  try {
    content = JSON.parse(text);
  } catch {
    // Cut in its midst.
  }
  return { model, cut, content };
}

function destroyed(): Fault {
  return new Fault("not_found", "Cannot open a payload: its key was destroyed", {
    detail: "The key of this payload was destroyed: nobody can read it any more.",
  });
}
