/** Whether this kernel runs the offload's programs as they are meant: shown on a packet, before any is attached. */
import { buildTemplate } from '../../fdb/template.ts';
import { TC_ACT_REDIRECT, TCX_EGRESS, TCX_INGRESS } from '../../system/bpf/abi.ts';
import { BpfMap, MAP_HASH } from '../../system/bpf/map.ts';
import { loadProgram, testRun } from '../../system/bpf/program.ts';
import * as libc from '../../system/libc.ts';
import { put16, put32 } from '../../wire/bytes.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, writeEthernetHeader } from '../../wire/ethernet.ts';
import { IPV4_HEADER, PROTOCOL_ICMP, writeIpv4Header } from '../../wire/ipv4.ts';
import { OUTER_LENGTH_IPV4 } from '../../wire/vxlan.ts';
import { decapProgram } from './decap-program.ts';
import { encapProgram } from './encap-program.ts';
import { OffloadMirror } from './mirror.ts';
import { DEVICE_TAP, DEVICE_VALUE } from './tables.ts';

const VNI = 1;
const PORT = 8472;
const ADDRESS = '192.0.2.1';
/** The loopback device's, for which the kernel runs what arrives in a test. */
const NOBODY = '00:00:00:00:00:00';
const [SENDER, RECEIVER] = ['02:00:00:00:00:01', '02:00:00:00:00:02'];

/** Sends a packet through one program and what comes out through the other. Returns why that does not work here; undefined: it does. */
export function offloadObstacle(): string | undefined {
  const open: (() => void)[] = [];
  try {
    const mirror = new OffloadMirror({ entries: 1, nextHops: 1, devices: 1 });
    open.push(() => mirror.close());
    const devices = new BpfMap({
      name: 'uvxlan_probe',
      type: MAP_HASH,
      keySize: 4,
      valueSize: DEVICE_VALUE,
      maxEntries: 1,
    });
    open.push(() => devices.close());
    const run = (program: ReturnType<typeof encapProgram>, attachType: number, packet: Uint8Array): Uint8Array => {
      const fd = loadProgram(program, attachType);
      open.push(() => libc.close(fd));
      const { result, packet: out } = testRun(fd, packet);
      if (result !== TC_ACT_REDIRECT) throw new Error(`a test packet is left to the workers (${program.name})`);
      return out;
    };
    put32(devices.key, 0, VNI << 8);
    new DataView(devices.value.buffer).setUint32(DEVICE_TAP, 1, true);
    devices.update();
    mirror.setNextHop(1, outerHeaders(), 1);
    mirror.setEntry(0, 0x0200, 2, 1);
    const frame = echo();
    const sent = run(
      encapProgram(mirror.maps, { device: 0, family: 4, sourcePorts: [40000, 50000] }),
      TCX_EGRESS,
      frame,
    );
    if (sent.length !== frame.length + OUTER_LENGTH_IPV4) throw new Error('a test packet has the wrong length');
    const received = run(
      decapProgram(mirror.maps, { local: ADDRESS, port: PORT, devices: devices.fd }),
      TCX_INGRESS,
      sent,
    );
    if (Buffer.compare(received, frame) !== 0) throw new Error('a test packet is not what it was');
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    for (const close of open) close();
  }
}

function outerHeaders(): ReturnType<typeof buildTemplate> {
  return buildTemplate({
    ...{ sourceMac: NOBODY, destinationMac: NOBODY, source: ADDRESS, destination: ADDRESS, port: PORT, vni: VNI },
    ...{ ttl: 64, tos: 0, df: false, udpChecksum: false, uplink: 0, mtu: 1500 },
  });
}

/** A frame with an IPv4 packet of 64 bytes. */
function echo(): Uint8Array {
  const frame = new Uint8Array(ETHER_HEADER + 64);
  const mac = (text: string) => Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
  writeEthernetHeader(frame, 0, mac(RECEIVER), mac(SENDER), ETHERTYPE_IPV4);
  const address = (last: number) => Uint8Array.of(10, 0, 0, last);
  writeIpv4Header(frame, ETHER_HEADER, {
    ...{ tos: 0, totalLength: 64, id: 1, dontFragment: true, ttl: 64, protocol: PROTOCOL_ICMP },
    ...{ source: address(1), destination: address(2) },
  });
  put16(frame, ETHER_HEADER + IPV4_HEADER, 0x0800);
  return frame;
}
