import { kmipHome } from './home-kmip.ts';
import { vaultHome } from './home-vault.ts';
import { lifeWith } from './life.ts';

lifeWith({
  name: 'OpenBao, then KMIP',
  home: await vaultHome(),
  outages: ['init', 'recovery'],
  next: await kmipHome(),
});
