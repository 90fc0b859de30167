import { azureHome } from './home-azure.ts';
import { lifeWith } from './life.ts';

lifeWith({ name: 'Azure', home: await azureHome(), outages: ['rejoin'] });
