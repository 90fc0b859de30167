import { awsHome } from './home-aws.ts';
import { vaultHome } from './home-vault.ts';
import { lifeWith } from './life.ts';

// To an emulator keys that are disabled are as good as others: the cluster moves away, and the whole KMS ends.
lifeWith({
  name: 'AWS, then OpenBao',
  home: await awsHome(),
  next: await vaultHome(),
  recoverWithoutStore: true,
});
