// Certificates: authorities of a file of the settings, for calls to one host.
import { Fault } from "../faults/fault.ts";

/** The runtime takes a text without a certificate for an empty list and says nothing. */
export function readCertificates(path: string): string {
  const text = Deno.readTextFileSync(path);
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new Fault("unavailable", `Cannot trust ${path}: it holds no PEM certificate`);
}
