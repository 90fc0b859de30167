import { zero } from '@asterism/bytes/bytes';
import { MASTER_SECRET_FILE, parseMasterSecret, renderMasterSecret } from '@asterism/config/master-secret';
import { Command, Option } from 'commander';
import { contextOf } from '../../context.ts';
import { decryptWith, encryptTo, parseIdentities, parseRecipients } from '../../flows/escrow.ts';
import { checkOfCluster, masterSecretOfFile } from '../../flows/master-secret-source.ts';
import { repeated } from '../../options.ts';
import { readText, writeNew } from './files.ts';
import { masterSecretOption } from './secret-options.ts';

interface EscrowOptions {
  readonly recipient?: readonly string[];
  readonly recipientFile?: readonly string[];
  readonly masterSecret?: string;
  readonly out: string;
}

interface UnescrowOptions {
  readonly identity: readonly string[];
  readonly out?: string;
}

export function escrowCommand(): Command {
  return new Command('escrow')
    .description('Encrypt the master secret to X25519 recipients of age, each of whom can open it alone.')
    .option('--recipient <key>', 'who can open it (age1...); repeat it for each', repeated)
    .option('--recipient-file <file>', 'recipients, one a line; repeat it for each file', repeated)
    .addOption(masterSecretOption())
    .requiredOption('--out <file>', 'the armored age file to write; none is overwritten')
    .addHelpText(
      'after',
      `
Open it with asterism keys unescrow, or with age itself: age --decrypt --identity FILE ESCROW`,
    )
    .action(escrow);
}

export function unescrowCommand(): Command {
  return new Command('unescrow')
    .description('Open an escrowed master secret, and write its file.')
    .argument('<escrow>', 'armored file of asterism keys escrow')
    .addOption(
      new Option(
        '--identity <file>',
        'file with X25519 identities, as age-keygen writes it; repeat it for each',
      )
        .argParser(repeated)
        .makeOptionMandatory(),
    )
    .option('--out <file>', `the file to write (default: ${MASTER_SECRET_FILE} in the workspace)`)
    .action(unescrow);
}

async function escrow(options: EscrowOptions, command: Command): Promise<void> {
  const context = contextOf(command);
  const { workspace, out } = context;
  const recipients = (options.recipient ?? []).flatMap((one) => parseRecipients(one, '--recipient'));
  for (const file of options.recipientFile ?? [])
    recipients.push(...parseRecipients(await readText(file), file));
  if (recipients.length === 0) command.error('error: a recipient is needed: --recipient or --recipient-file');
  const secret = await masterSecretOfFile(context, options.masterSecret);
  const state = await workspace.state();
  checkOfCluster(secret, state, options.masterSecret ?? workspace.path(MASTER_SECRET_FILE));
  const armored = await encryptTo(recipients, renderMasterSecret(secret));
  zero(secret.key);
  const path = await writeNew(options.out, armored);
  out.result(
    { file: path, recipients },
    `Wrote ${path}, which any of these can open:\n  ${recipients.join('\n  ')}`,
  );
}

async function unescrow(file: string, options: UnescrowOptions, command: Command): Promise<void> {
  const { workspace, out } = contextOf(command);
  const identities: string[] = [];
  for (const name of options.identity) identities.push(...parseIdentities(await readText(name), name));
  const secret = parseMasterSecret(await decryptWith(identities, await readText(file), file), file);
  checkOfCluster(secret, await workspace.state(), file);
  const path = await writeNew(options.out ?? workspace.path(MASTER_SECRET_FILE), renderMasterSecret(secret));
  zero(secret.key);
  out.result({ file: path }, `Wrote the master secret to ${path}.`);
}
