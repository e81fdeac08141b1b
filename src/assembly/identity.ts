// Assembly of identity and access: people, programs, their credentials, other issuers, and what roles give.
import { openRoleBook, type RoleBook } from "../access/role_book.ts";
import type { Config } from "../config/config.ts";
import { toFault } from "../faults/fault.ts";
import { type AccessTokens, LIFETIME_SECONDS_MAX, openAccessTokens } from "../identity/access_token.ts";
import { type ApiKeys, openApiKeys } from "../identity/api_keys.ts";
import { type Authenticate, openAuthenticate } from "../identity/authenticate.ts";
import { type Clients, clientStanding, openClients } from "../identity/clients.ts";
import { type DpopProofs, openDpopProofs } from "../identity/dpop_proof.ts";
import { openMemoryReplayStore } from "../identity/memory_replay_store.ts";
import { type ExternalTokens, openExternalTokens } from "../identity/oidc/external_tokens.ts";
import type { ReplayStore } from "../identity/replay_store.ts";
import { openRevocations, type Revocations } from "../identity/revocation.ts";
import { openSessions, type Sessions } from "../identity/sessions.ts";
import { openSignIn, type SignIn } from "../identity/sign_in.ts";
import { openSigningKeys, type SigningKeys } from "../identity/signing_keys.ts";
import { openStandings, type Standing, type Standings } from "../identity/standings.ts";
import { openStoredReplayStore } from "../identity/stored_replay_store.ts";
import { openTeams, type Teams } from "../identity/teams.ts";
import { openUsers, type Users, userStanding } from "../identity/users.ts";
import { openLockout } from "../limits/lockout.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { type SealedTable, sealedTable } from "../vault/sealed_store.ts";
import { readCertificates } from "./certificates.ts";
import type { Opened, Trust } from "./trust.ts";

/** Who somebody is and what that one may do: the parts behind the gate, the account routes and the commands. */
export interface Identity {
  readonly teams: Teams;
  readonly users: Users;
  readonly sessions: Sessions;
  readonly signIn: SignIn;
  readonly clients: Clients;
  readonly apiKeys: ApiKeys;
  readonly roleBook: RoleBook;
  readonly signingKeys: SigningKeys;
  readonly revocations: Revocations;
  readonly accessTokens: AccessTokens;
  readonly externalTokens: readonly ExternalTokens[];
  readonly standings: Standings;
  readonly proofs: DpopProofs;
  /** Of clients' assertions. */
  readonly replays: ReplayStore;
  readonly authenticate: Authenticate;
  /** Tells whether what others changed is known. */
  readonly feed: ChangeFeed;
}

/** Opens all of it over the store. */
export async function openIdentity(
  { store, keyRing, trail, feed, redis }: Trust,
  config: Config,
  clock: Clock,
  log: Log,
  opened: Opened,
): Promise<Identity> {
  const issuer = config.publicUrl;
  const sealed = (table: string): SealedTable => sealedTable(store, keyRing, table);
  const matter = { store, sealed, keyRing, clock, feed };
  const isShared = redis !== undefined;
  const standings = openStandings(async (subject): Promise<Standing | undefined> => {
    const client = subject.startsWith("cli_") ? await clients.read(subject) : undefined;
    return client === undefined
      ? userStanding((await users.read(subject))?.value)
      : clientStanding(client.value);
  }, feed);

  const roleBook = await openRoleBook(store, sealed("roles"), feed);
  const teams = await openTeams(matter);
  const users = await openUsers({ ...matter, teams, standings });
  const clients = openClients({ ...matter, teams, standings });
  const apiKeys = openApiKeys(matter);
  // Whatever cannot be written keeps nothing else from being closed.
  opened.push(() =>
    apiKeys.flush().catch((thrown) =>
      log.write("warn", "keys.uses_not_written", { reason: toFault(thrown).message })
    )
  );
  const revocations = await openRevocations(store, clock, feed);
  const sessions = openSessions({ ...matter, revocations, ttlSeconds: config.sessionTtlSeconds });
  const signIn = await openSignIn({ ...matter, users, lockout: openLockout(matter) });

  const signingKeys = await openSigningKeys({
    store,
    table: sealed("signing_keys"),
    clock,
    feed,
    signsAfterMs: isShared ? config.storeStaleMsMax : 0,
    configured: config.signingKey,
    overlapMs: LIFETIME_SECONDS_MAX * 1000,
    recordRotation: (before, next) =>
      trail.record({
        type: "command.changed",
        command: config.signingKey === undefined ? "first start" : "settings",
        object: "signing_key",
        before: before === null ? null : { active: before },
        after: { active: next },
      }),
  });
  const accessTokens = openAccessTokens({
    issuer,
    ttlSeconds: config.tokenTtlSeconds,
    keys: signingKeys,
    revocations,
    clock,
  });
  const externalTokens = config.issuers.map(({ caFile, ...settings }) =>
    openExternalTokens(
      {
        ...settings,
        audience: settings.audience ?? issuer,
        caCertificates: caFile === undefined ? undefined : readCertificates(caFile),
      },
      clock,
      log,
    )
  );
  opened.push(async () => {
    for (const external of externalTokens) await external.close();
  });
  const replays = openStoredReplayStore(store);
  // A proof's nonce is of this process and ends with it, unless instances share it; an assertion has none, and must not work again
  // after a restart.
  const proofs = openDpopProofs({
    publicUrl: issuer,
    clock,
    replays: isShared ? replays : openMemoryReplayStore(clock),
    nonceKey: isShared ? keyRing.keyedHash("dpop_nonce", issuer) : undefined,
  });
  const authenticate = openAuthenticate({
    accessTokens,
    apiKeys,
    externalTokens,
    revocations,
    standings,
    proofs,
    feed,
    grantsOf: (team, roles) => roleBook.grantsOf(team, roles),
  });
  return {
    teams,
    users,
    sessions,
    signIn,
    clients,
    apiKeys,
    roleBook,
    signingKeys,
    revocations,
    accessTokens,
    externalTokens,
    standings,
    proofs,
    replays,
    authenticate,
    feed,
  };
}
