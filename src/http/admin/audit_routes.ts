// Audit routes: look through the trail, take a part of it along, and get what proves that it is whole.
import { z } from "@hono/zod-openapi";
import type { AuditArchive, ExportPieces } from "../../audit/archive/audit_archive.ts";
import { type AuditQuery, REQUEST_ID, type WordColumn } from "../../audit/archive/audit_query.ts";
import { AUDIT_EVENTS } from "../../audit/audit_event.ts";
import type { SubjectLabels } from "../../audit/subject_labels.ts";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { clientNetwork, formatAddress, parseAddress } from "../../encoding/ip_address.ts";
import { encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { FAULT_TABLE } from "../../faults/fault_table.ts";
import { byteStreamAnswer } from "../event_stream.ts";
import { pageOf, pageQuery } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound } from "../require_access.ts";
import { type Answer, type AnyRoute, defineRoute } from "../route.ts";

/** What the routes need. */
export interface AuditParts {
  readonly archive: AuditArchive;
  /** How subjects stand in the trail. */
  readonly subjects: SubjectLabels;
  /** How an address does. */
  readonly labelAddress: (address: string) => string;
  /** The issuer of every account of this server. */
  readonly issuer: string;
}

const moment = z.string().refine(
  (text) => millisecondsOf(text) !== undefined,
  "is no moment such as 2026-11-22T10:00:00Z (RFC 3339), nor seconds since 1970",
).optional();
/** One line of whatever somebody else has named. */
const oneLine = z.string().regex(
  /^[^\p{C}\p{Zl}\p{Zp}]{1,256}$/u,
  "is empty, too long, or holds what cannot be seen",
)
  .optional();

const filters = {
  from: moment.describe("From here on: RFC 3339, or seconds since 1970."),
  to: moment.describe("Before this: RFC 3339, or seconds since 1970."),
  actor: oneLine.describe("A subject, plain or as it stands in the trail."),
  issuer: oneLine.describe("Who vouches for the actor. Default: this server, or whoever has such a subject."),
  type: z.string().refine(
    (text) => typesOf(text).length > 0,
    "is no type of event, nor the beginning of one up to its dot",
  )
    .optional().describe("A type of event, or all that begin so: `session.`"),
  action: z.string().regex(/^[a-z_]{1,32}:[a-z_]{1,32}$/, "is no action such as user:write").optional()
    .describe("What it took to do it, of changes and of allowed requests."),
  model: oneLine.describe("The id that was asked for, never an alias."),
  outcome: z.string().refine(
    (text) => outcomesOf(text).length > 0,
    "is neither the outcome of an inference, nor the code or the status of a refusal",
  ).optional().describe("`completed`, or the code or the status of a refusal: `forbidden`, `403`"),
  address: z.string().refine(
    (text) => parseAddress(text).ok || PSEUDONYM.test(text),
    "is no IP address and no pseudonym of one",
  )
    .optional().describe("A client's address, plain or as it stands in the trail."),
  request: z.string().regex(REQUEST_ID, "is no request's id").optional().describe(
    "As answered in `X-Request-Id`.",
  ),
};
const findQuery = z.strictObject({
  ...filters,
  ...pageQuery.shape,
  after: z.string().regex(/^[1-9]\d{0,14}$/, "is no `next` of a page").optional()
    .describe("The `next` of the page before."),
});
const exportQuery = z.strictObject({
  ...filters,
  format: z.enum(["jsonl", "csv"], "is neither jsonl nor csv").default("jsonl"),
});
type Filters = Omit<z.infer<typeof exportQuery>, "format">;

const entrySchema = z.strictObject({
  seq: z.int().describe("The entry's number; of a run of removed ones, that of the last."),
  state: z.enum(["whole", "unreadable", "removed"]).describe(
    "Why there is no event: its key is gone, or the entry was taken out when its time was over.",
  ),
  count: z.int().describe("How many entries it stands for: more than one for a run of removed ones only."),
  time: z.string().nullable(),
  hash: z.string().nullable().describe("The leaf hash (RFC 6962) of the entry as it stands in the trail."),
  event: z.record(z.string(), z.unknown()).nullable(),
});
const findAnswer = z.strictObject({
  data: z.array(entrySchema),
  next: z.string().nullable().describe("A page may be short, or empty, though there is more."),
  unsearched: z.int().describe("Newest entries that could not be searched yet; as a rule 0."),
});

/** `GET /admin/v1/audit`, `…/export`, `…/checkpoint` and `…/keys`. */
export function auditRoutes(parts: AuditParts): AnyRoute[] {
  const { archive } = parts;
  const common = {
    method: "GET",
    policy: { kind: "action", action: "audit:read" },
    dialect: problemDialect,
    rated: true,
  } as const;
  return [
    defineRoute({
      ...common,
      path: "/admin/v1/audit",
      summary: "Look through the audit trail, the newest entries first",
      query: findQuery,
      answers: { 200: { description: "A page of entries.", schema: findAnswer } },
      faults: ["request_invalid", "overloaded", "unavailable"],
      async handle(exchange) {
        const query = exchange.query as z.infer<typeof findQuery>;
        const { after, limit } = pageOf(query);
        const wanted = auditQueryOf(query, parts);
        const page = { after: after === undefined ? undefined : Number(after), limit };
        await exchange.record.reading("page", {
          ...recordedQuery(query, parts),
          after: after ?? null,
          limit,
        });
        const { entries, next, unsearched } = await archive.page(wanted, page);
        return {
          status: 200,
          body: { data: entries, next: next === undefined ? null : String(next), unsearched },
        };
      },
    }),
    defineRoute({
      ...common,
      path: "/admin/v1/audit/export",
      summary: "Take along all entries that fit, the oldest first",
      query: exportQuery,
      answers: {
        200: {
          description: "The trail's own lines (opened, where they are sealed), or CSV (RFC 4180).",
          schema: z.string(),
          mediaType: "application/x-ndjson",
        },
      },
      faults: ["request_invalid", "overloaded", "unavailable"],
      async handle(exchange) {
        const query = exchange.query as z.infer<typeof exportQuery>;
        const { format } = query;
        const wanted = auditQueryOf(query, parts);
        await exchange.record.reading(format, recordedQuery(query, parts));
        const headers = {
          "Content-Type": EXPORT_TYPES[format],
          "Content-Disposition": `attachment; filename="audit.${format}"`,
        };
        // RFC 9110 §9.3.2: of HEAD nobody takes a body.
        if (exchange.request.method === "HEAD") return { status: 200, headers };
        return { ...exportAnswer(await archive.export(wanted, format)), headers };
      },
    }),
    defineRoute({
      ...common,
      path: "/admin/v1/audit/checkpoint",
      summary: "The newest signed checkpoint of the trail (C2SP signed note)",
      answers: {
        200: { description: "The note. Keep it elsewhere.", schema: z.string(), mediaType: PLAIN_TEXT },
      },
      faults: ["not_found", "unavailable"],
      async handle(exchange) {
        const note = await archive.newestCheckpoint();
        if (note === undefined) throw objectNotFound("no checkpoint was signed yet");
        await exchange.record.allowed("audit:read", "checkpoint");
        return textAnswer(note);
      },
    }),
    defineRoute({
      ...common,
      path: "/admin/v1/audit/keys",
      summary: "The keys that verify signed checkpoints, the newest last",
      answers: {
        200: {
          description:
            "C2SP verifier keys, one a line. Keep them elsewhere: whoever changes a trail changes them.",
          schema: z.string(),
          mediaType: PLAIN_TEXT,
        },
      },
      faults: ["unavailable"],
      async handle(exchange) {
        const keys = await archive.verifierKeys();
        await exchange.record.allowed("audit:read", "keys");
        return textAnswer(keys);
      },
    }),
  ];
}

const PLAIN_TEXT = "text/plain";
const EXPORT_TYPES = {
  jsonl: "application/x-ndjson",
  csv: "text/csv; charset=utf-8; header=present",
} as const;
/** What `KeyRing.pseudonym` makes. */
const PSEUDONYM = /^[A-Za-z0-9_-]{22}$/;

function textAnswer(text: string): Answer {
  return {
    status: 200,
    headers: { "Content-Type": `${PLAIN_TEXT}; charset=utf-8` },
    bytes: encodeUtf8(text),
  };
}

/** Sent at the pace of the client. When it leaves, nothing more is asked for. */
function exportAnswer(pieces: ExportPieces): Answer {
  let isOver = false;
  return byteStreamAnswer({
    async next() {
      const piece = isOver ? undefined : await pieces.next();
      return piece === undefined ? undefined : [piece];
    },
    cancel() {
      isOver = true;
    },
  });
}

/** What is compared with the trail: each text as it may stand there, whatever the settings say or said. */
function auditQueryOf(query: Filters, { subjects, labelAddress, issuer: ownIssuer }: AuditParts): AuditQuery {
  const { actor, issuer, type, action, model, outcome, address, request } = query;
  const [fromMs, untilMs] = [query.from, query.to].map((text) =>
    text === undefined ? undefined : millisecondsOf(text)
  );
  if (fromMs !== undefined && untilMs !== undefined && fromMs >= untilMs) {
    throw new Fault("request_invalid", "Cannot search the audit trail: its time ends before it begins", {
      detail: "The query parameter to is not later than from.",
    });
  }
  const words: Partial<Record<WordColumn, readonly string[] | undefined>> = {
    type: type === undefined ? undefined : typesOf(type),
    subject: actor === undefined ? undefined : [actor, subjects.subject(issuer ?? ownIssuer, actor)],
    issuer: issuer === undefined ? undefined : [issuer],
    address: address === undefined ? undefined : addressesOf(address, labelAddress),
    model: model === undefined ? undefined : [model],
    outcome: outcome === undefined ? undefined : outcomesOf(outcome),
    action: action === undefined ? undefined : [action],
  };
  return {
    ...fromMs === undefined ? {} : { fromMs },
    ...untilMs === undefined ? {} : { untilMs },
    ...request === undefined ? {} : { request },
    words: Object.fromEntries(Object.entries(words).filter(([, texts]) => texts !== undefined)),
  };
}

/** The query as the trail keeps it: what is a person's stands there as everywhere else. */
function recordedQuery(
  { from, to, actor, issuer, type, action, model, outcome, address, request }: Filters,
  { subjects, labelAddress, issuer: ownIssuer }: AuditParts,
): Readonly<Record<string, JsonValue>> {
  const query = {
    from,
    to,
    actor: actor === undefined ? undefined : subjects.subject(issuer ?? ownIssuer, actor),
    issuer,
    type,
    action,
    model,
    outcome,
    address: address === undefined ? undefined : addressesOf(address, labelAddress)[0],
    request,
  };
  return Object.fromEntries(
    Object.entries(query).flatMap(([name, value]) => value === undefined ? [] : [[name, value]]),
  );
}

/** The label of an address first; its network, which is what bans are about; and both as they are. */
function addressesOf(text: string, labelAddress: (address: string) => string): readonly string[] {
  const address = parseAddress(text);
  if (!address.ok) return [text]; // a pseudonym
  const plain = [formatAddress(address.value), clientNetwork(address.value)];
  return [...plain.map(labelAddress), ...plain];
}

/** The types of events that begin so, where it ends with a dot; otherwise the one of that name. */
function typesOf(text: string): readonly string[] {
  return Object.keys(AUDIT_EVENTS).filter((type) =>
    type === text || (text.endsWith(".") && type.startsWith(text))
  );
}

function outcomesOf(text: string): readonly string[] {
  if (text === "completed") return [text];
  const codes = Object.values(FAULT_TABLE).filter(({ code, status }) =>
    code === text || String(status) === text
  );
  return [...new Set(codes.map(({ code }) => code))];
}

/** Milliseconds since 1970 of a moment as a query has it. */
function millisecondsOf(text: string): number | undefined {
  if (/^\d{1,11}$/.test(text)) return Number(text) * 1000;
  return z.iso.datetime({ offset: true }).safeParse(text).success ? Date.parse(text) : undefined;
}
