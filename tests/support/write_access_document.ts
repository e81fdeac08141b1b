// Writes docs/access.md.
import { BUILT_IN_ROLES } from "../../src/access/role.ts";
import { accessDocument } from "./access_document.ts";
import { openAppUnderTest } from "./app_under_test.ts";

const app = await openAppUnderTest();
await Deno.writeTextFile(
  `${import.meta.dirname}/../../docs/access.md`,
  accessDocument(app.portcullis.routes, [...BUILT_IN_ROLES.values()]),
);
await app.close();
