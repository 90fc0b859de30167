import { Command } from 'commander';
import { type Context, contextOf } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { runVerify, type VerifyOptions } from '../flows/run-verify.ts';
import { exitCodeOfAll, type NodeVerdict, VERIFY_PORT } from '../flows/verify-node.ts';
import { hex32, hostAndPort } from '../options.ts';
import type { LoadParts } from '../parts.ts';

export function verifyCommand(load: LoadParts): Command {
  return new Command('verify')
    .description(
      'Ask nodes for fresh evidence of what they booted and which cluster they belong to, and judge it.',
    )
    .option(
      '-e, --node-endpoint <host[:port]>',
      `ask this node only (default: every node of the state file; port ${VERIFY_PORT})`,
      hostAndPort(VERIFY_PORT),
    )
    .option('--cluster-id <hex>', 'expect this cluster id instead of that of the state file', hex32)
    .action(async (options: VerifyOptions, command: Command) => {
      const context = contextOf(command);
      const parts = await load();
      const verdicts = await context.progress.phase('verify', () => runVerify(context, parts, options));
      const trust = parts.trustStatement(await context.workspace.config());
      process.exitCode = exitCodeOfAll(verdicts);
      const passed = process.exitCode === EXIT.done;
      context.out.result(
        { outcome: passed ? 'passed' : 'failed', nodes: verdicts, trust },
        describe(context, verdicts, trust),
      );
    });
}

function describe({ out }: Context, verdicts: readonly NodeVerdict[], trust: string): string {
  const blocks = verdicts.map((verdict) =>
    [
      `${verdict.node} (${verdict.endpoint}): ${verdict.outcome}`,
      ...verdict.checks.map((check) => out.checkLine(check)),
      ...(verdict.error === undefined ? [] : [`  ${verdict.error}`]),
    ].join('\n'),
  );
  const good = verdicts.filter((verdict) => verdict.outcome === 'passed').length;
  return [...blocks, `${good} of ${verdicts.length} nodes verified`, trust].join('\n');
}
