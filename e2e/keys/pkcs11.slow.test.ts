import { pkcs11Home } from './home-pkcs11.ts';
import { lifeWith } from './life.ts';

lifeWith({ name: 'an HSM', home: await pkcs11Home(), outages: ['recovery'] });
