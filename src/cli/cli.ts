// The terminal's door: one command a task of deno.json.
import { type Config, mistakeLines } from "../config/config.ts";
import { readEnvironment, readToken, setProxyVariables } from "../config/environment.ts";
import { toFault } from "../faults/fault.ts";
import { generateSigningKey } from "../identity/signing_keys.ts";
import { openProgressBar } from "../telemetry/progress_bar.ts";
import { printError, printLine } from "../telemetry/terminal.ts";
import { generateMasterKey } from "../vault/master_key.ts";
import { backUp } from "./backup.ts";
import { buildModels } from "./build_models.ts";
import { addModel, listModels, removeModel, verifyModels } from "./models.ts";
import { rotateSigningKey, setPassword } from "./offline.ts";
import { modelsFlags, permissionFlags, vaultFlags } from "./permission_flags.ts";
import { PROVE_USAGE, proveEntryCommand } from "./prove_entry.ts";
import { restore } from "./restore.ts";
import { rotateVault } from "./rotate_vault.ts";
import { settingsReference } from "./settings_reference.ts";
import { VERIFY_USAGE, verifyAuditCommand } from "./verify_audit.ts";

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
  "models:add": {
    about:
      "seal a model into the models folder: models:add PATH [--id ID --license TEXT --see ROLES --use ROLES …]",
    run: (parameters) => addModel(settings().config, parameters, printLine),
  },
  "models:list": {
    about: "list the models of the models folder",
    run: () => listModels(settings().config, printLine),
  },
  "models:verify": {
    about: "read every chunk of one model or of all: models:verify [ID]",
    run: (parameters) => verifyModels(settings().config, parameters, printLine),
  },
  "models:remove": {
    about: "destroy the keys of a model and delete it: models:remove ID --yes",
    run: (parameters) => removeModel(settings().config, parameters, printLine),
  },
  "flags": {
    about:
      "print the permission flags that the server needs under the current settings, or the commands on models or the vault: flags [models|vault]",
    run([who]) {
      const { config, files } = settings();
      const flags = who === "models"
        ? modelsFlags(config)
        : who === "vault"
        ? vaultFlags(config, files)
        : permissionFlags(config, files);
      printLine(flags.join(" "));
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
  "vault:rotate": {
    about:
      "put everything that is sealed under a new data key, on the data folder or by the server that runs",
    async run() {
      const bar = openProgressBar();
      const print = (line: string): void => {
        bar.clear();
        printLine(line);
      };
      const progress = (done: number, total: number): void => bar.draw(done, total, "records");
      return await rotateVault({
        config: settings().config,
        token: readToken(),
        proxyVariables: setProxyVariables(),
        print,
        progress,
      });
    },
  },
  "audit:verify": {
    about: `check the audit trail of a data folder (default: data) or of a copy: ${VERIFY_USAGE}`,
    async run(parameters) {
      const bar = openProgressBar();
      const print = (line: string): void => {
        bar.clear();
        printLine(line);
      };
      return await verifyAuditCommand(parameters, { print, progress: bar.draw });
    },
  },
  "audit:prove": {
    about: `prove that an entry is in the trail: ${PROVE_USAGE}`,
    run: (parameters) => proveEntryCommand(parameters, printLine),
  },
  "backup": {
    about: "copy the data folder, also while a server runs on it: backup FOLDER [--with-master-key]",
    async run(parameters) {
      const folder = parameters.find((each) => !each.startsWith("--"));
      const withMasterKey = parameters.includes("--with-master-key");
      if (folder === undefined || parameters.length > (withMasterKey ? 2 : 1)) {
        return wrongUse("backup FOLDER [--with-master-key]");
      }
      return await backUp({ config: settings().config, folder, withMasterKey, print: printLine });
    },
  },
  "restore": {
    about: "put a backup into an empty data folder: restore FOLDER",
    async run([folder, ...more]) {
      if (folder === undefined || more.length > 0) return wrongUse("restore FOLDER");
      return await restore({ config: settings().config, folder, print: printLine });
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

function wrongUse(usage: string): number {
  printError(`Usage: deno task ${usage}`);
  return 64;
}

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
