// Attack signatures: targets that nobody asks an inference API for honestly: other programs' files, secrets, injections, scanners.

/** Of path and query, each. A longer target is refused for its length, which counts as well. */
export const LOOKED_AT_CHARACTERS = 2048;

/** What a part of a path is called; `..` is the way up, which clients take out before they send. */
const NAMES: ReadonlySet<string> = new Set(words(`
  .. wp-admin wp-content wp-includes wp-json wordpress phpmyadmin phpunit adminer cgi-bin actuator server-status server-info
  jmx-console web-inf meta-inf owa ecp autodiscover _ignition _profiler telescope hnap1 boaform goform solr druid geoserver
  jenkins struts weblogic id_rsa id_ed25519 web.config credentials.json`));

/** What a part of a path begins with: hidden files and folders. */
const BEGINNINGS: readonly string[] = words(`
  .env .git .svn .hg .aws .ssh .docker .kube .htaccess .htpasswd .ds_store .vscode .idea .npmrc .bash .config .azure .terraform
  .s3cfg .netrc nmaplower`);

/** What a part of a path ends with: languages that this server does not speak, and copies of data. */
const ENDINGS: readonly string[] = words(`
  .php .php3 .php5 .php7 .phtml .phar .asp .aspx .ashx .asmx .jsp .jspx .cfm .cgi .sql .sqlite .bak .swp`);

/** What stands anywhere in path or query. */
const ANYWHERE: readonly string[] = [
  // Ways to files; of these two hold dot and slash in bytes that are no UTF-8.
  ...words(
    `../ ..\\ ..;/ /etc/passwd /etc/shadow /proc/self/ win.ini boot.ini php:// file:// expect:// phar://
    gopher:// dict:// %c0%ae %c0%af`,
  ),
  "\0",
  // SQL.
  ...["union select", "union all select", "union distinct select", "waitfor delay", "into outfile"],
  ...["into dumpfile", "drop table", "or 1=1", "and 1=1", "' or '", "' or 1", '" or "', '" or 1', "') or ("],
  ...["' and '", "' and 1", '" and "', "' --"],
  ...words(
    `'-- '; '=' information_schema pg_catalog sleep( benchmark( xp_cmdshell load_file( extractvalue( updatexml(
    group_concat( @@version`,
  ),
  // Scripts, look-ups and commands.
  ...["${jndi:", "${${", "${env:", "${lower:", "${upper:"],
  ...words(
    `<script <svg <iframe <img javascript: onerror= onload= document.cookie /bin/sh /bin/bash cmd.exe allow_url_include
    auto_prepend_file invokefunction call_user_func base64_decode( phpinfo(`,
  ),
  // What is to be asked for through this server, and scanners that say who they are.
  ...words(`169.254.169.254 metadata.google.internal oastify.com burpcollaborator interact.sh
    acunetix sqlmap nikto nessus openvas zgrab masscan`),
];

function words(text: string): readonly string[] {
  return text.trim().split(/\s+/);
}

/**
 * Whether a target is of the kind that only attacks and scanners send. To be asked of targets that nothing serves: a model may
 * be called as it likes. It looks for fixed texts only, in a bounded part of each: no text costs more than others of its length.
 *
 * @param path as it was sent
 * @param query what stands behind the question mark, as it was sent
 */
export function isProbe(path: string, query: string): boolean {
  const place = undisguised(path.slice(0, LOOKED_AT_CHARACTERS));
  const asked = undisguised(query.slice(0, LOOKED_AT_CHARACTERS).replaceAll("+", " "));
  return place.split(/[/\\]/).some(isStrange) || holdsAttack(place) || holdsAttack(asked);
}

function isStrange(part: string): boolean {
  // Some servers do not look at what stands behind a semicolon.
  const name = part.split(";", 1)[0] ?? "";
  return NAMES.has(name) || BEGINNINGS.some((beginning) => name.startsWith(beginning)) ||
    ENDINGS.some((ending) => name.endsWith(ending));
}

function holdsAttack(text: string): boolean {
  return ANYWHERE.some((signature) => text.includes(signature));
}

/** Without escapes, escaped escapes, capitals, and comments or lines instead of spaces. */
function undisguised(text: string): string {
  return decodeEscapes(decodeEscapes(text)).toLowerCase().replaceAll("/**/", " ").replace(/\s+/g, " ");
}

/** Escapes of ASCII characters: all that is looked for is ASCII. */
function decodeEscapes(text: string): string {
  return text.replace(
    /%[0-7][0-9a-f]/gi,
    (escape) => String.fromCharCode(Number.parseInt(escape.slice(1), 16)),
  );
}
