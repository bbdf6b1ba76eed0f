// tshark is the judge: of every field that is named it has the same value at the same place.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { promisify } from 'node:util';
import { dissect } from '../../packets/dissect.ts';
import { type Field, type Layer, layerTitle } from '../../packets/packet.ts';
import { enhancedPacket, interfaceDescription, sectionHeader } from '../../packets/pcapng.ts';
import { lacking } from '../net/requirements.ts';
import { corpus } from './corpus.ts';

const skip = lacking('tshark');

/** A field of tshark's PDML: size and position in bytes. */
interface Judged {
  readonly name: string;
  readonly at: number;
  readonly size: number;
  readonly show: string;
}

/** tshark's name of each field; with a factor where tshark counts in bytes. null: tshark has no such field. */
const NAMES: Record<string, string | [string, number] | null> = {
  'Ethernet.destination': 'eth.dst',
  'Ethernet.source': 'eth.src',
  'Ethernet.type': 'eth.type',
  'Ethernet.length': 'eth.len',
  'VLAN.priority': 'vlan.priority',
  'VLAN.drop eligible': 'vlan.dei',
  'VLAN.VLAN id': 'vlan.id',
  'VLAN.type': 'vlan.etype',
  'VLAN.length': 'vlan.len',
  'service VLAN.priority': 'ieee8021ad.priority',
  'service VLAN.drop eligible': 'ieee8021ad.dei',
  'service VLAN.VLAN id': 'ieee8021ad.id',
  'service VLAN.type': 'ieee8021ah.etype',
  'ARP.hardware type': 'arp.hw.type',
  'ARP.protocol type': 'arp.proto.type',
  'ARP.hardware size': 'arp.hw.size',
  'ARP.protocol size': 'arp.proto.size',
  'ARP.operation': 'arp.opcode',
  'ARP.sender MAC': 'arp.src.hw_mac',
  'ARP.sender IP': 'arp.src.proto_ipv4',
  'ARP.target MAC': 'arp.dst.hw_mac',
  'ARP.target IP': 'arp.dst.proto_ipv4',
  'ARP.addresses': null,
  'IPv4.version': 'ip.version',
  'IPv4.header length': ['ip.hdr_len', 4],
  'IPv4.DSCP': 'ip.dsfield.dscp',
  'IPv4.ECN': 'ip.dsfield.ecn',
  'IPv4.total length': 'ip.len',
  'IPv4.identification': 'ip.id',
  'IPv4.reserved flag': 'ip.flags.rb',
  'IPv4.DF': 'ip.flags.df',
  'IPv4.MF': 'ip.flags.mf',
  'IPv4.fragment offset': 'ip.frag_offset',
  'IPv4.TTL': 'ip.ttl',
  'IPv4.protocol': 'ip.proto',
  'IPv4.header checksum': 'ip.checksum',
  'IPv4.source': 'ip.src',
  'IPv4.destination': 'ip.dst',
  'IPv4.option type': 'ip.opt.type',
  'IPv4.option length': 'ip.opt.len',
  'IPv4.option data': null,
  'IPv4.no operation': 'ip.opt.type',
  'IPv4.end of options': 'ip.opt.type',
  'IPv4.padding of options': null,
  'IPv4.broken option': null,
  'IPv6.version': 'ipv6.version',
  'IPv6.DSCP': 'ipv6.tclass.dscp',
  'IPv6.ECN': 'ipv6.tclass.ecn',
  'IPv6.flow label': 'ipv6.flow',
  'IPv6.payload length': 'ipv6.plen',
  'IPv6.next header': 'ipv6.nxt',
  'IPv6.hop limit': 'ipv6.hlim',
  'IPv6.source': 'ipv6.src',
  'IPv6.destination': 'ipv6.dst',
  'hop-by-hop options.next header': 'ipv6.hopopts.nxt',
  'hop-by-hop options.length': 'ipv6.hopopts.len',
  'destination options.next header': 'ipv6.dstopts.nxt',
  'destination options.length': 'ipv6.dstopts.len',
  'routing header.next header': 'ipv6.routing.nxt',
  'routing header.length': 'ipv6.routing.len',
  'routing header.routing type': 'ipv6.routing.type',
  'routing header.segments left': 'ipv6.routing.segleft',
  'routing header.routing data': null,
  'fragment header.next header': 'ipv6.fraghdr.nxt',
  'fragment header.reserved byte': 'ipv6.fraghdr.reserved_octet',
  'fragment header.fragment offset': 'ipv6.fraghdr.offset',
  'fragment header.reserved bits': 'ipv6.fraghdr.reserved_bits',
  'fragment header.M': 'ipv6.fraghdr.more',
  'fragment header.identification': 'ipv6.fraghdr.ident',
  ...forEach(['hop-by-hop options', 'destination options'], {
    'option type': 'ipv6.opt.type',
    'option length': 'ipv6.opt.length',
    'option data': null,
    Pad1: 'ipv6.opt.type',
    'broken option': null,
  }),
  'UDP.source port': 'udp.srcport',
  'UDP.destination port': 'udp.dstport',
  'UDP.length': 'udp.length',
  'UDP.checksum': 'udp.checksum',
  'TCP.source port': 'tcp.srcport',
  'TCP.destination port': 'tcp.dstport',
  'TCP.sequence number': 'tcp.seq_raw',
  'TCP.acknowledgment number': 'tcp.ack_raw',
  'TCP.header length': ['tcp.hdr_len', 4],
  'TCP.reserved': null, // its last bit is AE to tshark
  'TCP.CWR': 'tcp.flags.cwr',
  'TCP.ECE': 'tcp.flags.ece',
  'TCP.URG': 'tcp.flags.urg',
  'TCP.ACK': 'tcp.flags.ack',
  'TCP.PSH': 'tcp.flags.push',
  'TCP.RST': 'tcp.flags.reset',
  'TCP.SYN': 'tcp.flags.syn',
  'TCP.FIN': 'tcp.flags.fin',
  'TCP.window': 'tcp.window_size_value',
  'TCP.checksum': 'tcp.checksum',
  'TCP.urgent pointer': 'tcp.urgent_pointer',
  'TCP.option kind': 'tcp.option_kind',
  'TCP.option length': 'tcp.option_len',
  'TCP.option data': null,
  'TCP.no operation': 'tcp.option_kind',
  'TCP.end of options': 'tcp.option_kind',
  'TCP.padding of options': null,
  'TCP.broken option': null,
  'TCP.maximum segment size': 'tcp.options.mss_val',
  'TCP.window scale': 'tcp.options.wscale.shift',
  'TCP.timestamp value': 'tcp.options.timestamp.tsval',
  'TCP.timestamp echo reply': 'tcp.options.timestamp.tsecr',
  'TCP.SACK left edge': null, // relative to the connection's first number
  'TCP.SACK right edge': null,
  'VXLAN.G': 'vxlan.flag_g',
  'VXLAN.I': 'vxlan.flag_i',
  'VXLAN.D': 'vxlan.flag_d',
  'VXLAN.A': 'vxlan.flag_a',
  'VXLAN.reserved flags': null,
  'VXLAN.reserved': null,
  'VXLAN.group policy': 'vxlan.gbp',
  'VXLAN.VNI': 'vxlan.vni',
  'ICMP.type': 'icmp.type',
  'ICMP.code': 'icmp.code',
  'ICMP.checksum': 'icmp.checksum',
  'ICMP.identifier': 'icmp.ident',
  'ICMP.sequence number': 'icmp.seq',
  'ICMP.unused': null,
  'ICMP.next-hop MTU': 'icmp.mtu',
  'ICMP.gateway': 'icmp.redir_gw',
  'ICMP.rest of the header': null,
  'ICMPv6.type': 'icmpv6.type',
  'ICMPv6.code': 'icmpv6.code',
  'ICMPv6.checksum': 'icmpv6.checksum',
  'ICMPv6.identifier': 'icmpv6.echo.identifier',
  'ICMPv6.sequence number': 'icmpv6.echo.sequence_number',
  'ICMPv6.MTU': 'icmpv6.mtu',
  'ICMPv6.hop limit': 'icmpv6.nd.ra.cur_hop_limit',
  'ICMPv6.flags': 'icmpv6.nd.ra.flag',
  'ICMPv6.router lifetime': 'icmpv6.nd.ra.router_lifetime',
  'ICMPv6.reachable time': 'icmpv6.nd.ra.reachable_time',
  'ICMPv6.retransmission timer': 'icmpv6.nd.ra.retrans_timer',
  'ICMPv6.R': 'icmpv6.nd.na.flag.r',
  'ICMPv6.S': 'icmpv6.nd.na.flag.s',
  'ICMPv6.O': 'icmpv6.nd.na.flag.o',
  'ICMPv6.reserved': null,
  'ICMPv6.target': null, // three names, see targetName()
  'ICMPv6.destination': 'icmpv6.rd.na.destination_address',
  'ICMPv6.rest of the header': null,
  'ND option.option type': 'icmpv6.opt.type',
  'ND option.option length': 'icmpv6.opt.length',
  'ND option.option data': null,
  'ND option.link-layer address': 'icmpv6.opt.linkaddr',
  'ND option.prefix length': 'icmpv6.opt.prefix.length',
  'ND option.flags': 'icmpv6.opt.prefix.flag',
  'ND option.valid lifetime': 'icmpv6.opt.prefix.valid_lifetime',
  'ND option.preferred lifetime': 'icmpv6.opt.prefix.preferred_lifetime',
  'ND option.prefix': 'icmpv6.opt.prefix',
  'ND option.MTU': 'icmpv6.opt.mtu',
  'ND option.reserved': null,
};

function forEach(layers: readonly string[], names: Record<string, string | null>): Record<string, string | null> {
  return Object.fromEntries(
    layers.flatMap((layer) => Object.entries(names).map(([name, judged]) => [`${layer}.${name}`, judged])),
  );
}

const TARGETS: Record<number, string> = {
  135: 'icmpv6.nd.ns.target_address',
  136: 'icmpv6.nd.na.target_address',
  137: 'icmpv6.nd.rd.target_address',
};

function nameOf(layer: Layer, field: Field): string | [string, number] | null | undefined {
  if (layer.name === 'ICMPv6' && field.name === 'target') return TARGETS[layer.fields[0].value as number];
  return NAMES[`${layer.name}.${field.name}`];
}

/** Of every packet all fields that tshark has found. */
async function judge(packets: readonly Uint8Array[]): Promise<Judged[][]> {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-corpus-'));
  try {
    const file = join(directory, 'corpus.pcapng');
    const blocks = packets.map((bytes) => enhancedPacket({ interface: 0, time: 0, bytes, length: bytes.length }));
    writeFileSync(file, Buffer.concat([sectionHeader('test'), interfaceDescription('corpus', ''), ...blocks]));
    const args = ['-n', '-r', file, '-T', 'pdml', '-d', 'udp.port==8472,vxlan'];
    for (const preference of ['ip.defragment', 'ipv6.defragment']) args.push('-o', `${preference}:FALSE`);
    const { stdout } = await promisify(execFile)('tshark', args, { maxBuffer: 1 << 28 });
    const field = /<field name="([^"]*)"[^>]*? size="(\d+)" pos="(\d+)"(?: show="([^"]*)")?/g;
    return stdout
      .split('</packet>')
      .slice(0, -1)
      .map((packet) =>
        [...packet.matchAll(field)].map(([, name, size, at, show = '']) => ({
          ...{ name, size: Number(size), at: Number(at), show },
        })),
      );
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** As tshark shows it: numbers, in whatever base, are compared as numbers. */
function same(show: string, value: number | string, factor: number): boolean {
  return typeof value === 'number' ? Number(show) === value * factor : show === value;
}

test('tshark finds the same values at the same places', { skip, timeout: 180_000 }, async () => {
  const samples = corpus();
  assert.ok(samples.length >= 300, `${samples.length} packets`);
  const judged = await judge(samples.map(({ bytes }) => bytes));
  assert.equal(judged.length, samples.length);
  const differences: string[] = [];
  let compared = 0;
  const seen = new Set<string>();
  for (const [i, { name, bytes }] of samples.entries()) {
    const packet = dissect(bytes);
    for (const layer of packet.layers) {
      if (layer.reference === '') continue; // payload
      for (const field of layer.fields) {
        const wanted = nameOf(layer, field);
        if (wanted === undefined) throw new Error(`${layer.name}.${field.name} has no name of tshark's in this test`);
        if (wanted === null) continue;
        const [judgedName, factor] = typeof wanted === 'string' ? [wanted, 1] : wanted;
        const candidates = judged[i].filter(
          (each) => each.name === judgedName && each.at <= field.offset && field.offset < each.at + each.size,
        );
        compared++;
        seen.add(judgedName);
        if (candidates.some(({ show }) => same(show, field.value, factor))) continue;
        // tshark may stop at the field that is at fault, where the rest of its header is shown here.
        if (candidates.length === 0 && packet.fault?.offset === layer.offset + layer.length) continue;
        const shown = candidates.map(({ show }) => show).join(', ') || 'nothing';
        differences.push(
          `${name}: ${layerTitle(packet, layer)} ${field.name} is ${field.value}, ${judgedName} ${shown}`,
        );
      }
    }
  }
  assert.deepEqual(differences, [], `${differences.length} of ${compared}`);
  // Every name of the list above was put to the test.
  const names = Object.values(NAMES).flatMap((each) =>
    each === null ? [] : [typeof each === 'string' ? each : each[0]],
  );
  assert.deepEqual(
    names.filter((each) => !seen.has(each)),
    [],
  );
});
