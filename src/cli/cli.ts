// The terminal's door: one command a task of deno.json.
import { auditFolders } from "../audit/audit_trail.ts";
import { type Config, mistakeLines } from "../config/config.ts";
import { readEnvironment } from "../config/environment.ts";
import { toFault } from "../faults/fault.ts";
import { generateSigningKey } from "../identity/signing_keys.ts";
import { printError, printLine } from "../telemetry/terminal.ts";
import { generateMasterKey } from "../vault/master_key.ts";
import { buildModels } from "./build_models.ts";
import { rotateSigningKey, setPassword } from "./offline.ts";
import { permissionFlags } from "./permission_flags.ts";
import { settingsReference } from "./settings_reference.ts";
import { verifyAudit } from "./verify_audit.ts";

interface Settings {
  readonly config: Config;
  readonly files: readonly string[];
}

/** Each command's work; returns the exit code. */
const COMMANDS: Readonly<
  Record<string, { readonly about: string; run(parameters: readonly string[]): Promise<number> | number }>
> = {
  "models:build": {
    about: "make the artefacts of the models folder that are missing",
    async run() {
      const { config } = settings();
      await buildModels({
        modelsDirectory: config.modelsDir,
        packagesDirectory: "node_modules",
        print: printLine,
      });
      return 0;
    },
  },
  "flags": {
    about: "print the permission flags that the server needs under the current settings",
    run() {
      const { config, files } = settings();
      printLine(permissionFlags(config, files).join(" "));
      return 0;
    },
  },
  "keys": {
    about: "make a master key and a signing key for production; print them",
    async run() {
      printLine(`PORTCULLIS_MASTER_KEY=${generateMasterKey()}\n`);
      printLine(`PORTCULLIS_SIGNING_KEY='${(await generateSigningKey()).trim()}'\n`);
      // To the other stream: what comes on this one can be sourced.
      printError(
        "Keep both where only the server reads them, best as files named by PORTCULLIS_MASTER_KEY_FILE",
      );
      printError("and PORTCULLIS_SIGNING_KEY_FILE. Who loses the master key loses what is sealed under it.");
      return 0;
    },
  },
  "user:password": {
    about: "give a user a new password while the server is stopped: user:password [NAME], default admin",
    async run([username = "admin"]) {
      return await setPassword(settings().config, username, printLine);
    },
  },
  "signing-key:rotate": {
    about: "make a new signing key while the server is stopped",
    async run() {
      return await rotateSigningKey(settings().config, printLine);
    },
  },
  "audit:verify": {
    about: "check the audit trail of a data folder or of a copy of one: audit:verify [FOLDER], default data",
    async run([dataDir = "data"]) {
      return await verifyAudit({
        ...auditFolders(dataDir),
        print: printLine,
      });
    },
  },
  "settings": {
    about: "print the reference of all settings as Markdown",
    run() {
      printLine(settingsReference());
      return 0;
    },
  },
};

function settings(): Settings {
  const outcome = readEnvironment();
  if (outcome.ok) return outcome;
  for (const line of mistakeLines("Cannot go on: the settings are wrong.", outcome.mistakes)) {
    printError(line);
  }
  Deno.exit(78);
}

if (import.meta.main) {
  const [name = "", ...parameters] = Deno.args;
  const command = COMMANDS[name];
  if (command === undefined) {
    printError("Commands:");
    for (const [each, { about }] of Object.entries(COMMANDS)) printError(`  ${each.padEnd(20)}${about}`);
    Deno.exit(64);
  }
  try {
    Deno.exit(await command.run(parameters));
  } catch (thrown) {
    printError(`Cannot ${name}: ${toFault(thrown).message}`);
    Deno.exit(1);
  }
}
