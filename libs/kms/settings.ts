/** What a backend or a store is opened with. All values were checked against its row of the catalogue. */
export interface Settings {
  /** Not secret: as in the URI and in the configuration. */
  readonly parameters: Readonly<Record<string, string | undefined>>;
  /**
   * Secret (or at least not for logs): never in a URI that is printed. Empty: whatever the machine offers, as the
   * cloud's SDK looks for it (environment, files, workload identity, instance metadata).
   */
  readonly credentials: Readonly<Record<string, string | undefined>>;
}

/** One value that a user gives. */
export interface Value {
  /** For the reference documentation and error messages, e.g. `AWS region, such as eu-central-1`. */
  readonly about: string;
  readonly pattern: RegExp;
  readonly required?: boolean;
}

/** A KMS or a store, as configuration, URIs and documentation know it. */
export interface Home {
  readonly about: string;
  readonly parameters: Readonly<Record<string, Value>>;
  readonly credentials: Readonly<Record<string, Value>>;
}
