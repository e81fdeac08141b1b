// Certificates: authorities of a file of the settings, for calls to one host.
import { Fault } from "../faults/fault.ts";

/**
 * Reads a file in PEM, and tries it: otherwise the first call would stumble over it.
 *
 * @throws Fault `unavailable` when there is no certificate in it, or one that cannot be used
 */
export function readCertificates(path: string): string {
  const text = Deno.readTextFileSync(path);
  // The runtime takes a text without a certificate for an empty list and says nothing.
  if (!text.includes("-----BEGIN CERTIFICATE-----")) {
    throw new Fault("unavailable", `Cannot trust ${path}: it holds no PEM certificate`);
  }
  try {
    Deno.createHttpClient({ caCerts: [text] }).close();
  } catch (cause) {
    throw new Fault("unavailable", `Cannot trust ${path}: it holds a damaged certificate`, { cause });
  }
  return text;
}
