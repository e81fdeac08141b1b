// Challenge: what a 401 or 403 says of how to come in, in the words of RFC 6750 §3, RFC 9449 §7.1 and RFC 9728 §5.1.
import type { Fault } from "../faults/fault.ts";
import { ALGORITHMS } from "../identity/public_key.ts";

/** The `WWW-Authenticate` of a Fault; undefined where its status asks for none. */
export type Challenge = (fault: Fault, status: number) => string | undefined;

const REALM = 'realm="portcullis"';

/** @param publicUrl where the metadata of this server is; never the Host header */
export function challenges(publicUrl: string): Challenge {
  const metadata = `resource_metadata="${publicUrl}/.well-known/oauth-protected-resource"`;
  return (fault, status) => {
    const { tokenError, scheme, scopeNeeded } = fault.details;
    if (status === 401) {
      // RFC 6749 §5.2.
      if (fault.kind === "client_refused") return `Basic ${REALM}`;
      // RFC 6750 §3.1: no error code where no credential was sent.
      const errorOf = (one: "Bearer" | "DPoP"): string =>
        tokenError !== undefined && (scheme ?? "Bearer") === one ? `, error="${tokenError}"` : "";
      return `Bearer ${REALM}${errorOf("Bearer")}, ${metadata}, DPoP algs="${ALGORITHMS.join(" ")}"${
        errorOf("DPoP")
      }`;
    }
    return status === 403 && scopeNeeded !== undefined
      ? `${scheme ?? "Bearer"} ${REALM}, error="insufficient_scope", scope="${scopeNeeded}"`
      : undefined;
  };
}
