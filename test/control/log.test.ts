import assert from 'node:assert/strict';
import test from 'node:test';
import { commandLog } from '../../cli/log.ts';
import { type LogFormat, type LogLevel, openLog } from '../../control/log.ts';

function lines(level: LogLevel, format: LogFormat): string[] {
  const written: string[] = [];
  const log = openLog(
    { level, format },
    (text) => written.push(text),
    () => new Date(0),
  );
  log('tried', { level: 'debug' });
  log('flannel.1 is up', { device: 'flannel.1' });
  log('VTEP 192.0.2.2 cannot be reached: no route', { level: 'warn', peer: '192.0.2.2' });
  log('worker 1 failed\n    at turn', { level: 'error', worker: 1 });
  return written;
}

test('for people: the messages of a level and all graver ones', () => {
  assert.deepEqual(lines('warn', 'human'), [
    'uvxlan: VTEP 192.0.2.2 cannot be reached: no route\n',
    'uvxlan: worker 1 failed\n    at turn\n',
  ]);
  const counts = (['error', 'warn', 'info', 'debug'] as const).map((level) => lines(level, 'human').length);
  assert.deepEqual(counts, [1, 2, 3, 4]);
});

test('JSON: one object a line, with time, level, message and what it is about', () => {
  const records = lines('info', 'json').map((line) => {
    assert.match(line, /^\{.*\}\n$/);
    return JSON.parse(line);
  });
  const time = '1970-01-01T00:00:00.000Z';
  assert.deepEqual(records, [
    { time, level: 'info', msg: 'flannel.1 is up', device: 'flannel.1' },
    { time, level: 'warn', msg: 'VTEP 192.0.2.2 cannot be reached: no route', peer: '192.0.2.2' },
    { time, level: 'error', msg: 'worker 1 failed\n    at turn', worker: 1 },
  ]);
});

test('wrong words are refused, and say where they may have come from', () => {
  assert.throws(
    () => commandLog('loud', undefined, {}),
    /--log-level \(or UVXLAN_LOG_LEVEL\): "loud" is unknown, known are error/,
  );
  assert.throws(() => commandLog('', '', { UVXLAN_LOG_FORMAT: 'xml' }), /UVXLAN_LOG_FORMAT\): "xml" is unknown/);
});
