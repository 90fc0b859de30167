/** Hex SHA-256 of every program without C parts, by Kubernetes version: the build is reproducible. */
export const PINNED_PROGRAMS: Readonly<Record<string, Readonly<Record<string, string>>>> = {};
