import {
  createIfAbsent,
  getIfThere,
  type KubernetesApi,
  type KubernetesObject,
  replaceUnchanged,
} from '@asterism/kubernetes/api';
import { StatusError } from '@asterism/rpc/status';

const LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-system/leases';
const NAME = 'asterism-control-plane-join';
const DURATION_S = 600;

/**
 * Lets one control plane join at a time: etcd loses its quorum when two members are added at once. The turn ends when
 * the node is Ready, or after ten minutes.
 *
 * @throws StatusError UNAVAILABLE it is another node's turn; trying again helps
 */
export async function takeTurn(api: KubernetesApi, nodeName: string, signal: AbortSignal): Promise<void> {
  const spec = {
    holderIdentity: nodeName,
    leaseDurationSeconds: DURATION_S,
    renewTime: new Date().toISOString().replace('Z', '000Z'),
  };
  const lease = {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: NAME, namespace: 'kube-system' },
    spec,
  };
  if ((await createIfAbsent(api, LEASES, lease, signal)) !== undefined) return;
  const present = await api.call<Lease>('GET', `${LEASES}/${NAME}`, undefined, signal);
  const { holderIdentity: holder = '', renewTime = '' } = present.spec ?? {};
  // A time that is missing, or further ahead than clocks differ, must not keep everybody out for ever.
  const lasts = Math.abs(Date.now() - Date.parse(renewTime)) <= DURATION_S * 1000;
  if (holder !== nodeName && holder !== '' && lasts && !(await isReady(api, holder, signal)))
    throw busy(holder);
  const taken = await replaceUnchanged(api, `${LEASES}/${NAME}`, { ...present, spec }, signal);
  if (taken === undefined) throw busy('another node');
}

async function isReady(api: KubernetesApi, node: string, signal: AbortSignal): Promise<boolean> {
  const found = await getIfThere<Node>(api, `/api/v1/nodes/${encodeURIComponent(node)}`, signal);
  return (
    found?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false
  );
}

const busy = (holder: string): StatusError =>
  new StatusError('UNAVAILABLE', 'ERR_JOIN_TURN', `${holder} is joining as a control plane; one at a time`);

interface Lease extends KubernetesObject {
  readonly spec?: { readonly holderIdentity?: string; readonly renewTime?: string };
}
interface Node extends KubernetesObject {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}
