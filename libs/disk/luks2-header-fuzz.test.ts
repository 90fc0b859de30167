import { it } from 'node:test';
import { fuzz } from './luks2-header.fuzz.ts';

it('no bytes break the LUKS2 header validator', () => fuzz(300));
