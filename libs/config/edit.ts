import { ParseError } from '@asterism/errors/errors';
import { isMap, parseDocument } from 'yaml';
import type { ClusterConfig } from './cluster-config.ts';
import { MAX_FILE_BYTES } from './strict.ts';

/**
 * The text of a configuration with another image and its measurements. Everything else stays, comments too.
 *
 * @throws ParseError (ERR_CONFIG) where the text is no YAML mapping
 */
export function withImage(
  yaml: string,
  image: string,
  measurements: ClusterConfig['attestation']['qemuVtpm']['measurements'],
): string {
  const document = yaml.length > MAX_FILE_BYTES ? undefined : parseDocument(yaml, { schema: 'core' });
  if (document === undefined || document.errors.length > 0 || !isMap(document.contents)) {
    throw new ParseError('the configuration is not valid YAML; mend it first', { code: 'ERR_CONFIG' });
  }
  document.setIn(['image'], image);
  const byIndex = Object.entries(measurements).sort(([a], [b]) => Number(a) - Number(b));
  const node = document.createNode(new Map(byIndex.map(([index, entry]) => [Number(index), entry])));
  document.setIn(['attestation', 'qemuVtpm', 'measurements'], node);
  return document.toString({ lineWidth: 0 });
}
