import { toHex } from '@asterism/bytes/encoding';
import { MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import { WorkspaceError } from '@asterism/config/workspace';
import { DEK_PREFIX, deriveKey, MAX_DERIVED_BYTES } from '@asterism/crypto/derive';
import { Command, InvalidArgumentError } from 'commander';
import { contextOf } from '../context.ts';
import { integer } from '../options.ts';

interface DeriveOptions {
  readonly masterSecret: string;
  readonly dataKeyId: string;
  readonly length: number;
}

export function keysCommand(): Command {
  return new Command('keys').description('Work with the keys of a cluster.').addCommand(
    new Command('derive')
      .description('Derive a data key offline, for disaster recovery: hexadecimal on standard output.')
      .requiredOption('--master-secret <file>', `the master secret, e.g. ${MASTER_SECRET_FILE}`)
      .requiredOption(
        '--data-key-id <id>',
        'what the key is for, without its "key-" prefix: the UUID of a LUKS2 disk, or e.g. measurementSecret',
        parseId,
      )
      .option('--length <n>', 'bytes of the key', integer(1, MAX_DERIVED_BYTES), 32)
      .addHelpText(
        'after',
        `
The key of a disk as a file, as cryptsetup takes it:
  asterism keys derive --master-secret ${MASTER_SECRET_FILE} --data-key-id UUID | xxd -r -p > key
  cryptsetup open --key-file key DISK NAME`,
      )
      .action(derive),
  );
}

async function derive(options: DeriveOptions, command: Command): Promise<void> {
  const { workspace, out } = contextOf(command);
  const secret = await workspace.masterSecret(options.masterSecret);
  if (secret === undefined) {
    throw new WorkspaceError('ERR_NO_MASTER_SECRET', `${options.masterSecret} does not exist`);
  }
  const id = DEK_PREFIX + options.dataKeyId;
  const key = toHex(deriveKey(secret.key, secret.salt, id, options.length));
  out.result({ dataKeyId: options.dataKeyId, length: options.length, key }, key);
}

/** LUKS2 UUIDs count in lower case, as nodes ask for them; other ids as they are. */
function parseId(text: string): string {
  if (!/^[\x21-\x7e]{1,256}$/.test(text))
    throw new InvalidArgumentError('1 to 256 visible ASCII characters are needed.');
  if (text.startsWith(DEK_PREFIX))
    throw new InvalidArgumentError(`give the id without its "${DEK_PREFIX}" prefix.`);
  return /^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/.test(text) ? text.toLowerCase() : text;
}
