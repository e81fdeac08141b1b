// Tests of the files with authorities: what the runtime would stumble over at the first call is found at the start.
import { strictEqual, throws } from "node:assert/strict";
import { readCertificates } from "../../src/assembly/certificates.ts";
import { makeSelfSignedCertificate } from "../support/self_signed_certificate.ts";

Deno.test("a file of authorities is taken with one certificate or several, and refused where one of them cannot be used", async () => {
  const path = await Deno.makeTempFile();
  try {
    const { certificatePem, privateKeyPem } = await makeSelfSignedCertificate();
    const other = await makeSelfSignedCertificate();
    for (const good of [certificatePem, `# ours\n${certificatePem}\n${other.certificatePem}`]) {
      Deno.writeTextFileSync(path, good);
      strictEqual(readCertificates(path), good);
    }
    const bad = [
      "",
      privateKeyPem,
      certificatePem.slice(0, -40),
      certificatePem.replace(/\n.{40}/, "\n"),
      "-----BEGIN CERTIFICATE-----\nMIIB torn copy\n-----END CERTIFICATE-----\n",
      `${certificatePem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`,
    ];
    for (const text of bad) {
      Deno.writeTextFileSync(path, text);
      throws(() => readCertificates(path), { kind: "unavailable" }, text);
    }
  } finally {
    await Deno.remove(path);
  }
});
