import { gcpHome } from './home-gcp.ts';
import { lifeWith } from './life.ts';

lifeWith({ name: 'Google Cloud', home: await gcpHome(), recoverWithoutStore: true });
