import { vaultHome } from './home-vault.ts';
import { lifeWith } from './life.ts';

lifeWith({ name: 'OpenBao', home: await vaultHome() });
