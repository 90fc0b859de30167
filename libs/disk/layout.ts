/** Name of the mapped state volume where a node has a kernel of its own: /dev/mapper/state. */
export const STATE_MAPPING = 'state';

/** Passphrase of a disk that was formatted at this boot. In memory only, gone at the next boot. */
export const TEMPORARY_KEY_FILE = '/run/cryptsetup-keys.d/state.key';

/** Where things lie on the state volume. */
export interface StateLayout {
  readonly root: string;
  readonly nodeState: string;
  readonly initJournal: string;
  readonly joinJournal: string;
  /** Ticket of a join under way, mode 0600; removed when the join is complete. */
  readonly joinTicket: string;
  readonly images: string;
  readonly bin: string;
  readonly kubeletPki: string;
}

/** @param root mount point of the state volume, /run/state on a node */
export function stateLayout(root = '/run/state'): StateLayout {
  return {
    root,
    nodeState: `${root}/asterism/node_state.json`,
    initJournal: `${root}/asterism/init-journal.json`,
    joinJournal: `${root}/asterism/join-journal.json`,
    joinTicket: `${root}/asterism/join-ticket.json`,
    images: `${root}/images`,
    bin: `${root}/bin`,
    kubeletPki: `${root}/kubelet/pki`,
  };
}
