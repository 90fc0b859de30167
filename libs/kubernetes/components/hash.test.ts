import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { componentsConfigMapName, componentsHash } from './hash.ts';

/** What v2.6 installs for v1.26.2: CNI plugins, crictl, kubelet, kubeadm, kubectl. */
const components = [
  'f3a841324845ca6bf0d4091b4fc7f97e18a623172158b72fc3fdcdb9d42d2d37',
  'cda5e2143bf19f6b548110ffba0fe3565e03e8743fadd625fee3d62fc4134eed',
  'e6dd2ee432a093492936ff8505f084b5ed41662f50231f1c11ae08ee8582a3f5',
  '277d880dc6d79994fd333e49d42943b7c9183b1c4ffdbf9da59f806acec7fd82',
  'fcf86d21fb1a49b012bce7845cf00081d2dd7a59f424b28621799deceb5227b3',
].map((hex) => ({ hash: `sha256:${hex}` }));

describe('hash of a set of components', () => {
  it('is that of v2.6', () => {
    assert.equal(
      componentsConfigMapName(components),
      'k8s-components-sha256-34c236ab3b928558379ae47db59f50221c5efc1168b7ae3dbbb4fbc04c0b502c',
    );
  });

  it('changes with the order and with every component', () => {
    const before = componentsHash(components);
    assert.notEqual(componentsHash(components.toReversed()), before);
    for (let i = 0; i < components.length; i++) {
      assert.notEqual(componentsHash(components.toSpliced(i, 1)), before);
    }
  });
});
