// Issuer settings: identity providers whose access tokens are accepted beside our own.
import { z } from "zod";
import { filePath, isLoopback, structured, teamName } from "./structured_settings.ts";

/** Every signature that can be verified; none is symmetric (RFC 8725 §2.1). */
const algorithm = z.enum(["EdDSA", "Ed25519", "ES256", "ES384", "RS256", "PS256"]);
const name = z.string().regex(/^[a-z][a-z0-9-]{0,63}$/, "is no name (lower-case letters, digits and -)");

/** An address that stays as it is written, for `iss` is compared letter by letter (RFC 7519 §4.1.1). */
const address = z.string().regex(/^[\x21-\x7e]{1,255}$/, "is no address of at most 255 characters").refine(
  (text) => {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    return url !== undefined && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
  },
  // The rules below need an address; without `abort` they would be tried on what is none.
  { error: "is no http or https address without user and password", abort: true },
);

const issuer = z.strictObject({
  // OIDC Discovery §3: no query and no fragment.
  issuer: address.regex(/^[^?#]*$/, "must end with its path, without ? and #"),
  audience: z.string().regex(/^[\x21-\x7e]{1,255}$/, "is no text without spaces").optional(),
  jwksUrl: address.regex(/^[^#]*$/, "must be without #").optional(),
  discovery: z.boolean().default(false),
  algorithms: z.array(algorithm).min(1).max(6).default([
    "EdDSA",
    "Ed25519",
    "ES256",
    "ES384",
    "RS256",
    "PS256",
  ]),
  leewaySeconds: z.int().min(0).max(60).default(5),
  lifetimeSecondsMax: z.int().min(60).max(86_400).default(3600),
  tokenType: z.enum(["at+jwt", "JWT"]).default("at+jwt"),
  // RFC 6901; the whole of the claims is no list of roles.
  rolesClaim: z.string().max(500).regex(/^(?:\/(?:[^~/]|~[01])*)+$/, "is no JSON Pointer").default("/roles"),
  roles: z.record(z.string().max(255), z.array(name).max(32)).default({}),
  team: teamName.default("default"),
  caFile: filePath.optional(),
  /** Plain HTTP to another machine: only when said so. */
  plainHttp: z.boolean().default(false),
});

/** One issuer as the settings have it. */
export type IssuerSetting = z.infer<typeof issuer>;

/** `issuers`. */
export const issuerList = structured(
  "a list of issuers (docs/issuers.md)",
  z.array(issuer).max(32).superRefine((issuers, context) => {
    issuers.forEach((each, index) => {
      const wrong = (field: keyof IssuerSetting, message: string) =>
        context.addIssue({ code: "custom", path: [index, field], message });
      if (issuers.findIndex((other) => other.issuer === each.issuer) < index) {
        wrong("issuer", `"${each.issuer}" stands twice`);
      }
      if ((each.jwksUrl === undefined) !== each.discovery) {
        wrong("jwksUrl", 'is needed, or "discovery": true; not both');
      }
      for (const field of ["issuer", "jwksUrl"] as const) {
        const url = each[field] === undefined ? undefined : new URL(each[field]);
        if (url?.protocol === "http:" && !each.plainHttp && !isLoopback(url.hostname)) {
          wrong(
            field,
            'is plain HTTP to another machine; use https, or say "plainHttp": true where the network is trusted',
          );
        }
      }
    });
  }),
);
