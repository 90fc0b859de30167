import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSecureContext } from 'node:tls';
import { makeCertificate } from './certificate.ts';
import { newIdentity } from './identity.ts';
import { newNonce, nonceCa } from './nonce.ts';
import { ServerContexts } from './server-contexts.ts';

test('the undocumented setters of a context are there in this Node', () => {
  const native = createSecureContext().context;
  const advice = `Node ${process.version} changed its SecureContext: see server-contexts.ts before going on`;
  for (const name of ['init', 'setKey', 'setCert', 'addCACert'])
    assert.equal(typeof native[name], 'function', `${name}: ${advice}`);
});

test('each handshake gets its own certificate', () => {
  const contexts = new ServerContexts();
  for (const identity of [newIdentity(), newIdentity()]) {
    for (let i = 0; i < 3; i++) {
      const certificate = makeCertificate({ ...identity, now: Date.now() });
      const oneWay = contexts.oneWay(identity, certificate);
      assert.deepEqual(new Uint8Array(oneWay.context.getCertificate()), certificate);
      const mutual = contexts.mutual(identity, certificate, nonceCa(newNonce()));
      assert.deepEqual(new Uint8Array(mutual.context.getCertificate()), certificate);
      assert.notEqual(mutual.context, contexts.mutual(identity, certificate, nonceCa(newNonce())).context);
    }
  }
});

test('a certificate of another key is refused by the context', () => {
  const contexts = new ServerContexts();
  const certificate = makeCertificate({ ...newIdentity(), now: Date.now() });
  assert.throws(() => contexts.oneWay(newIdentity(), certificate), /key values mismatch/);
});
