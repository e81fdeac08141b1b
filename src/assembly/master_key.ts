// Assembly of the master key: of the settings, of the data folder, or of a key service.
import type { Config } from "../config/config.ts";
import { readSecretFile } from "../config/environment.ts";
import { Fault } from "../faults/fault.ts";
import { localMasterKey, type MasterKey, masterKeyFrom, parseMasterKeys } from "../vault/master_key.ts";
import { openOwnMasterKey } from "../vault/own_master_key.ts";
import { openTransitMasterKey } from "../vault/transit_master_key.ts";
import { readCertificates } from "./certificates.ts";

/** The master key's own file, where neither settings nor a service have it. */
export function ownMasterKeyFile(dataDir: string): string {
  return `${dataDir}/master.key`;
}

/**
 * Opens it.
 *
 * @param onClose is given what frees it
 * @throws Fault `unavailable` when it is malformed, or its service does not let us use it
 */
export async function openMasterKey(
  config: Config,
  onClose: (close: () => void) => void,
): Promise<MasterKey> {
  const { masterKey, keyServiceUrl, secretFiles } = config;
  if (keyServiceUrl !== undefined) return await openService(config, keyServiceUrl, onClose);
  if (masterKey === undefined) return await openOwnMasterKey(ownMasterKeyFile(config.dataDir));
  const keys = parseMasterKeys(masterKey);
  const file = secretFiles.PORTCULLIS_MASTER_KEY;
  if (file === undefined) return localMasterKey(keys[0], keys.slice(1));
  const read = () => parseMasterKeys(readSecretFile(file));
  return masterKeyFrom({ read, renew: () => Promise.resolve(read()), settle: () => Promise.resolve(read()) });
}

async function openService(
  config: Config,
  url: string,
  onClose: (close: () => void) => void,
): Promise<MasterKey> {
  const { keyServiceToken: token, keyServiceCaFile: caFile, secretFiles } = config;
  if (token === undefined) {
    throw new Fault("internal", "Cannot use the key service: its token was not checked");
  }
  const file = secretFiles.PORTCULLIS_KEY_SERVICE_TOKEN;
  const service = await openTransitMasterKey({
    url,
    mount: config.keyServiceMount,
    key: config.keyServiceKey,
    namespace: config.keyServiceNamespace,
    caCertificates: caFile === undefined ? undefined : readCertificates(caFile),
    readToken: () => file === undefined ? token : readSecretFile(file),
  });
  onClose(() => service.close());
  return service;
}
