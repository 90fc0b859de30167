import { kmipHome } from './home-kmip.ts';
import { lifeWith } from './life.ts';

lifeWith({ name: 'KMIP', home: await kmipHome(), outages: ['rotation'] });
