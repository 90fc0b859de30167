const VARIABLES = ['http_proxy', 'https_proxy', 'all_proxy', 'no_proxy'].flatMap((name) => [
  name,
  name.toUpperCase(),
]);
/** Where programs other than Node look for the certificates that they trust. */
const TRUST = ['SSL_CERT_FILE', 'SSL_CERT_DIR'];

/** The user's variables that say how to reach the network: for programs that get nothing else of the environment. */
export function networkEnvironment(): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of [...VARIABLES, ...TRUST]) {
    const value = process.env[name];
    if (value) found[name] = value;
  }
  return found;
}
