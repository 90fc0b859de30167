import { fromHex } from '@asterism/bytes/encoding';
import { AsterismError } from '@asterism/errors/errors';
import { Command } from 'commander';
import { type Context, contextOf } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { identityPcr } from '../flows/cluster-identity.ts';
import {
  exitCodeOfAll,
  type NodeVerdict,
  VERIFY_PORT,
  type VerifyTarget,
  verifyNodes,
} from '../flows/verify-node.ts';
import { hex32, hostAndPort } from '../options.ts';
import type { LoadParts, Parts } from '../parts.ts';

interface VerifyOptions {
  readonly nodeEndpoint?: { host: string; port: number };
  readonly clusterId?: string;
}

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

/** Verifies the nodes of a workspace, or the one that is named. */
export async function runVerify(
  { workspace, signal }: Context,
  parts: Parts,
  options: VerifyOptions,
): Promise<NodeVerdict[]> {
  const config = await workspace.config();
  const state = await workspace.state();
  const clusterId = options.clusterId ?? state?.clusterId;
  if (clusterId === undefined) {
    throw new AsterismError(
      'ERR_NO_CLUSTER_ID',
      'which cluster is expected is not known: the state file has no cluster id; give one with --cluster-id',
    );
  }
  const verifier = parts.verifier(config, identityPcr(fromHex(clusterId)));
  return await verifyNodes(targetsOf(options, state?.nodes ?? []), verifier, signal);
}

function targetsOf(
  { nodeEndpoint }: VerifyOptions,
  nodes: readonly { name: string; address: string }[],
): VerifyTarget[] {
  if (nodeEndpoint !== undefined) return [{ name: nodeEndpoint.host, ...nodeEndpoint }];
  if (nodes.length === 0) {
    throw new AsterismError('ERR_NO_NODES', 'the state file has no nodes; name one with --node-endpoint');
  }
  return nodes.map(({ name, address }) => ({ name, host: address, port: VERIFY_PORT }));
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
