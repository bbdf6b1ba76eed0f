// The kernel's own multicast database, over netlink: Debian 12's bridge(8) does not know MDB words of vxlan devices.

import type { Host } from '../../cli/lab/network.ts';
import type { MdbArguments } from '../../control/mdb-words.ts';

export interface MdbChange {
  readonly verb: 'add' | 'replace' | 'del';
  readonly entry: MdbArguments;
}

/** linux/if_bridge.h: br_port_msg, br_mdb_entry, MDBE_ATTR_*; an answer's text is NLMSGERR_ATTR_MSG. */
const PROGRAM = `
import json, os, socket, struct, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.setsockopt(270, 11, 1)  # NETLINK_EXT_ACK
def attr(kind, data):
    return struct.pack('=HH', 4 + len(data), kind) + data + bytes(-len(data) % 4)
def ip(text):
    return socket.inet_pton(socket.AF_INET6 if ':' in text else socket.AF_INET, text)
for verb, e in json.load(sys.stdin):
    index = socket.if_nametoindex(e['dev'])
    entry = struct.pack('=IBBH16sHxx', index, int(e.get('state') == 'permanent'), 0, 0, ip(e['grp']),
                        socket.htons(0x86dd if ':' in e['grp'] else 0x0800))
    a = b''
    if 'src' in e: a += attr(1, ip(e['src']))
    if 'source_list' in e: a += attr(2 | 0x8000, b''.join(attr(1 | 0x8000, attr(1, ip(x))) for x in e['source_list']))
    if 'filter_mode' in e: a += attr(3, bytes([int(e['filter_mode'] == 'include')]))
    if 'dst' in e: a += attr(5, ip(e['dst']))
    if 'dst_port' in e: a += attr(6, struct.pack('=H', e['dst_port']))
    if 'vni' in e: a += attr(7, struct.pack('=I', e['vni']))
    body = struct.pack('=BxxxI', 7, index) + attr(1, entry) + attr(2 | 0x8000, a)
    flags = {'add': 0x600, 'replace': 0x500, 'del': 0}[verb]
    s.send(struct.pack('=IHHII', 16 + len(body), 85 if verb == 'del' else 84, 5 | flags, 1, 0) + body)
    r = s.recv(65536)
    code = -struct.unpack_from('=i', r, 16)[0]
    at = 36 if code == 0 or struct.unpack_from('=H', r, 6)[0] & 0x100 else 20 + (struct.unpack_from('=I', r, 20)[0] + 3 & ~3)
    text = 'RTNETLINK answers: ' + os.strerror(code)
    while at + 4 <= len(r):
        size, kind = struct.unpack_from('=HH', r, at)
        if size < 4: break
        if kind & 0x3fff == 1: text = 'Error: ' + r[at + 4:at + size - 1].decode() + '.'
        at += size + 3 & ~3
    print(text if code else '')
`;

/** What the kernel answers to each change, as iproute2 would print it; '' when it is made. */
export async function changeKernelMdb(host: Host, changes: readonly MdbChange[]): Promise<string[]> {
  const input = JSON.stringify(changes.map(({ verb, entry }) => [verb, entry]));
  const { stdout } = await host.run(['python3', '-c', PROGRAM], { input });
  return stdout.split('\n').slice(0, -1);
}
