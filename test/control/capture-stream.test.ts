import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import test from 'node:test';
import type { CaptureRequest, Sink } from '../../control/capture/capture.ts';
import { CaptureStream } from '../../control/capture/stream.ts';

/** A client that reads as slowly as `writableLength` says. */
class FakeSocket extends EventEmitter {
  destroyed = false;
  writableLength = 0;
  readonly written: Uint8Array[] = [];

  write(bytes: Uint8Array): boolean {
    this.written.push(bytes);
    return true;
  }
}

function started(): {
  socket: FakeSocket;
  stream: CaptureStream;
  ends: string[];
  asked: CaptureRequest[];
  sink: () => Sink;
} {
  const socket = new FakeSocket();
  const ends: string[] = [];
  const asked: CaptureRequest[] = [];
  let sink: Sink | undefined;
  const stream = new CaptureStream(socket as unknown as Socket, {
    capture: (request) => {
      asked.push(request);
      return {
        start: (given) => (sink = given),
        finish: async () => void ends.push('finish'),
        abandon: async () => void ends.push('abandon'),
      };
    },
  });
  return { socket, stream, ends, asked, sink: () => sink! };
}

test('a capture is ended once, however its client goes', async () => {
  for (const [goes, expected] of [
    [async (stream: CaptureStream) => stream.close(), 'abandon'],
    [async (stream: CaptureStream) => stream.finish(), 'finish'],
    [async (stream: CaptureStream) => void (await Promise.all([stream.finish(), stream.close()])), 'finish'],
  ] as const) {
    const { stream, ends } = started();
    await stream.ask({});
    stream.open();
    await goes(stream);
    stream.close();
    assert.deepEqual(ends, [expected]);
  }
  const { socket, stream, ends } = started();
  socket.destroyed = true; // it went while the daemon began
  await stream.ask({});
  stream.close();
  assert.deepEqual(ends, ['abandon']);
});

test('a client that does not read has no room after 8 MB', async () => {
  const { socket, stream, sink } = started();
  await stream.ask({ filter: 'icmp', snapLength: 96 });
  stream.open();
  assert.equal(sink().hasRoom(), true);
  socket.writableLength = 8 << 20;
  assert.equal(sink().hasRoom(), false);
});

test('whoever can open the socket can send anything', async () => {
  const { stream, asked } = started();
  for (const [args, message] of [
    [{ filter: 'host' }, /the filter ends too early/],
    [{ outerFilter: 'frob' }, /not a word of a filter/],
    [{ snapLength: 0 }, /a snap length is 1 to 262144/],
    [{ snapLength: 'x' }, /a snap length is 1 to 262144/],
    [{ dev: 'no/name' }, /no\/name/],
  ] as const) {
    await assert.rejects(stream.ask(args), message);
  }
  assert.deepEqual(asked, []);
  await stream.ask({});
  await assert.rejects(stream.ask({}), /captures already/);
});
