// The access document: docs/access.md is what the route table and the built-in roles say.
import { strictEqual } from "node:assert/strict";
import { BUILT_IN_ROLES } from "../src/access/role.ts";
import { accessDocument } from "./support/access_document.ts";
import { openAppUnderTest } from "./support/app_under_test.ts";

Deno.test("docs/access.md is what deno task access writes", async () => {
  const app = await openAppUnderTest();
  try {
    const page = Deno.readTextFileSync(`${import.meta.dirname}/../docs/access.md`);
    const written = accessDocument(app.portcullis.routes, [...BUILT_IN_ROLES.values()]);
    strictEqual(page, written, "renew it: deno task access");
  } finally {
    await app.close();
  }
});
