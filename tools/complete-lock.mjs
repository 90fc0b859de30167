// Completes package-lock.json with entries for optional packages of other platforms. npm leaves them out where they
// are not to be had when the lock file is written, and then `npm ci` refuses the file on every machine.
// With --check it writes nothing and exits 1 where entries are missing. Plain JavaScript, like tools/installed.mjs.
import { readFileSync, writeFileSync } from 'node:fs';

const path = new URL('../package-lock.json', import.meta.url);
const text = readFileSync(path, 'utf8');
const lock = JSON.parse(text);
const added = [];

for (const [parent, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const nested = `${parent}/node_modules/${name}`;
    const hoisted = `node_modules/${name}`;
    if (lock.packages[nested] !== undefined || lock.packages[hoisted] !== undefined) continue;
    // Binaries are named after their platform; anything else must not be guessed.
    const [, os, cpu, libc] =
      /(aix|android|darwin|freebsd|linux|netbsd|openbsd|openharmony|sunos|win32)-(arm64|armv7|arm|ia32|loong64|mips64el|ppc64|riscv64|s390x|x64)(?:-(musl|gnu))?$/.exec(
        name,
      ) ?? [];
    if (os === undefined || !/^\d+\.\d+\.\d+$/.test(version)) {
      console.error(`lock file: ${name}@${version} of ${parent} is missing, and is no binary of another platform`);
      process.exitCode = 1;
      continue;
    }
    lock.packages[hoisted] = {
      version,
      cpu: [cpu === 'armv7' ? 'arm' : cpu],
      ...(entry.dev ? { dev: true } : {}),
      ...(libc === 'musl' ? { libc: ['musl'] } : {}),
      ...(entry.license ? { license: entry.license } : {}),
      optional: true,
      os: [os],
    };
    added.push(name);
  }
}

if (added.length > 0 && process.argv.includes('--check')) {
  console.error(`lock file: no entries for ${added.join(', ')}; run: tools/node tools/complete-lock.mjs`);
  process.exitCode = 1;
} else if (added.length > 0) {
  const { '': root, ...rest } = lock.packages;
  lock.packages = { '': root, ...Object.fromEntries(Object.entries(rest).sort(([a], [b]) => a.localeCompare(b, 'en'))) };
  writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
  console.log(`lock file: ${added.length} entries added`);
}
