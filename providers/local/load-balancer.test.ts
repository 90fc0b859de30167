import assert from 'node:assert/strict';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { after, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '@asterism/testkit/free-port';
import { balance } from './load-balancer.ts';

const servers: Server[] = [];
after(() => {
  for (const server of servers) server.close();
});

async function backend(address: string, port: number, serve: (socket: Socket) => void): Promise<Server> {
  const server = createServer(serve);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(port, address, resolve));
  return server;
}

async function balancer(port: number, backends: () => readonly string[]): Promise<string> {
  const address = '127.0.0.100';
  servers.push(await balance(address, port, backends));
  return address;
}

async function ask(host: string, port: number): Promise<string> {
  const socket = connect({ host, port });
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text;
}

it('spreads connections over the backends, passes by those that are down, and follows their list', async () => {
  const port = await freePort();
  const one = await backend('127.0.0.101', port, (socket) => socket.end('one'));
  await backend('127.0.0.102', port, (socket) => socket.end('two'));
  let list = ['127.0.0.101', '127.0.0.102'];
  const address = await balancer(port, () => list);
  const answers = new Set([await ask(address, port), await ask(address, port)]);
  assert.deepEqual(answers, new Set(['one', 'two']));
  await new Promise((resolve) => one.close(resolve));
  for (let i = 0; i < 4; i++) assert.equal(await ask(address, port), 'two');
  await backend('127.0.0.103', port, (socket) => socket.end('three'));
  list = ['127.0.0.103'];
  assert.equal(await ask(address, port), 'three');
});

it('takes every init to the first backend that serves it, not to another each time', async () => {
  const hosts = ['127.0.0.111', '127.0.0.112', '127.0.0.113'];
  const two = await backend(hosts[1]!, 9000, (socket) => socket.end('two'));
  await backend(hosts[2]!, 9000, (socket) => socket.end('three'));
  const address = await balancer(9000, () => hosts);
  // The first one refuses, as it does before it has started.
  for (let i = 0; i < 4; i++) assert.equal(await ask(address, 9000), 'two');
  await backend(hosts[0]!, 9000, (socket) => socket.end('one'));
  for (let i = 0; i < 4; i++) assert.equal(await ask(address, 9000), 'one');
  await new Promise((resolve) => two.close(resolve));
  assert.equal(await ask(address, 9000), 'one');
});

it('closes where there is nobody, and lives on', async () => {
  const port = await freePort();
  const address = await balancer(port, () => ['127.0.0.104']);
  assert.equal(await ask(address, port).catch(() => ''), '');
  await backend('127.0.0.104', port, (socket) => socket.end('here'));
  assert.equal(await ask(address, port), 'here');
});

it('delivers all of an answer to a reader who is slower than the server that sent it and left', async () => {
  const port = await freePort();
  const size = (12 << 20) + 777;
  await backend('127.0.0.105', port, (socket) => socket.end(Buffer.alloc(size, 7)));
  const address = await balancer(port, () => ['127.0.0.105']);
  const socket = connect({ host: address, port });
  let length = 0;
  for await (const chunk of socket) {
    await sleep(2);
    length += chunk.length;
  }
  assert.equal(length, size);
});

it('lets go of a backend whose client has left', async () => {
  const port = await freePort();
  const closed = new Promise<void>((resolve) => {
    void backend('127.0.0.106', port, (socket) => {
      socket.on('error', () => {});
      socket.on('close', resolve);
      socket.resume();
    });
  });
  const address = await balancer(port, () => ['127.0.0.106']);
  const socket = connect({ host: address, port });
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  socket.destroy();
  await closed;
});
