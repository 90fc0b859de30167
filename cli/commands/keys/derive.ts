import { zero } from '@asterism/bytes/bytes';
import { toHex } from '@asterism/bytes/encoding';
import { MASTER_SECRET_FILE } from '@asterism/config/master-secret';
import { DEK_PREFIX, deriveKey, MAX_DERIVED_BYTES } from '@asterism/crypto/derive';
import { Command, InvalidArgumentError } from 'commander';
import { contextOf } from '../../context.ts';
import { type MasterSecretSource, masterSecretFor } from '../../flows/master-secret-source.ts';
import { integer } from '../../options.ts';
import { addSecretOptions } from './secret-options.ts';

interface DeriveOptions extends MasterSecretSource {
  readonly dataKeyId: string;
  readonly length: number;
}

export function deriveCommand(): Command {
  const command = new Command('derive').description(
    'Derive a data key offline, for disaster recovery: hexadecimal on standard output.',
  );
  return addSecretOptions(command)
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
    .action(derive);
}

async function derive(options: DeriveOptions, command: Command): Promise<void> {
  const context = contextOf(command);
  const secret = await masterSecretFor(context, options);
  const derived = deriveKey(secret.key, secret.salt, DEK_PREFIX + options.dataKeyId, options.length);
  const key = toHex(derived);
  zero(secret.key, derived);
  context.out.result({ dataKeyId: options.dataKeyId, length: options.length, key }, key);
}

/** LUKS2 UUIDs count in lower case, as nodes ask for them; other ids as they are. */
function parseId(text: string): string {
  if (!/^[\x21-\x7e]{1,256}$/.test(text))
    throw new InvalidArgumentError('1 to 256 visible ASCII characters are needed.');
  if (text.startsWith(DEK_PREFIX))
    throw new InvalidArgumentError(`give the id without its "${DEK_PREFIX}" prefix.`);
  return /^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/.test(text) ? text.toLowerCase() : text;
}
