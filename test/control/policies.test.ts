// Rule sets as real hosts have them, and what each means for a tunnel. In rulesets/: .save is the output of iptables-save, .nftables
// that of `nft -j list ruleset`, .ipset that of `ipset save`.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import type { Chain } from '../../control/policies/filter.ts';
import { readIpsets } from '../../control/policies/ipset.ts';
import { readIptables } from '../../control/policies/iptables.ts';
import { chainDevices, type NftObject, readNftables, tablesWithExtensions } from '../../control/policies/nftables.ts';
import { readXfrm } from '../../control/policies/xfrm.ts';
import { type HostRules, judge, type Policy, policySentence, type Tunnel } from '../../control/policies.ts';

const TUNNEL: Tunnel = {
  nic: 'eth0',
  local: '192.0.2.1',
  port: 8472,
  sourcePorts: [32768, 61000],
  remotes: ['192.0.2.2', '192.0.2.3'],
};
const TUNNEL6: Tunnel = { ...TUNNEL, local: '2001:db8::1', remotes: ['2001:db8::2'] };

/** A host with these chains, one address on its NIC, and one routing rule on marks: 0x200/0xf00. */
function rules(...chains: Chain[]): HostRules {
  const markRules = [{ mark: 0x200, mask: 0xf00 }];
  return {
    chains,
    markRules: { ip: markRules, ip6: markRules },
    addresses: new Map([['eth0', ['192.0.2.1', '2001:db8::1']]]),
    notes: [],
  };
}

function verdicts(policies: readonly Policy[]): string[] {
  return policies.map((policy) => policySentence(policy, 8472));
}

function file(name: string): string {
  return readFileSync(new URL(`../../../test/control/rulesets/${name}`, import.meta.url), 'utf8');
}

function iptables(text: string, ipsets?: string): Chain[] {
  return readIptables(text, 'iptables', 'ip', undefined, readIpsets(ipsets)).chains;
}

/** Rules of iptables in one table, in the form of iptables-save; chains besides the usual ones are found. */
function saved(table: string, rules: readonly string[], ipsets?: string, policy = 'ACCEPT'): Chain[] {
  const own = new Set(rules.map((rule) => rule.split(' ')[1]));
  const usual = ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'];
  const chains = usual.map((name) => `:${name} ${name === 'INPUT' ? policy : 'ACCEPT'} [0:0]`);
  for (const name of own) if (!usual.includes(name)) chains.push(`:${name} - [0:0]`);
  return iptables([`*${table}`, ...chains, ...rules, 'COMMIT'].join('\n'), ipsets);
}

function nftObjects(name: string): NftObject[] {
  return (JSON.parse(file(name)) as { nftables: NftObject[] }).nftables;
}

/** A base chain of nftables with rules, each a list of expressions. */
function nft(
  hook: string,
  rules: readonly unknown[][],
  options: Record<string, unknown> = {},
  sets: object[] = [],
): Chain[] {
  const table = { family: 'inet', table: 't' };
  const chain = { ...table, name: hook, type: 'filter', hook, prio: 0, policy: 'accept', ...options };
  const objects = [
    ...sets.map((set) => ({ set: { ...table, ...set } })),
    { chain },
    ...rules.map((expr) => ({ rule: { ...chain, chain: hook, expr } })),
  ];
  return readNftables(objects as unknown as NftObject[]);
}

const match = (left: unknown, right: unknown, op = '==') => ({ match: { op, left, right } });
const payload = (protocol: string, field: string) => ({ payload: { protocol, field } });
const meta = (key: string) => ({ meta: { key } });
const DROP = { drop: null };
const ACCEPT = { accept: null };

test('rule sets that leave the tunnel alone', async (t) => {
  const sets: Record<string, () => Chain[]> = {
    'nothing at all': () => [],
    'kube-proxy in iptables mode and flannel': () => iptables(file('kube-proxy.save')),
    'kube-proxy in ipvs mode': () => iptables(file('ipvs.save'), file('ipvs.ipset')),
    'kube-proxy in nftables mode': () => readNftables(nftObjects('kube-proxy.nftables')),
    'Calico, on another port': () => iptables(file('calico.save'), file('calico.ipset')),
    Docker: () => iptables(file('docker.save')),
    Cilium: () => iptables(file('cilium.save')),
  };
  for (const [name, chains] of Object.entries(sets)) {
    await t.test(name, () => {
      for (const remotes of [TUNNEL.remotes, []]) {
        assert.deepEqual(verdicts(judge(rules(...chains()), { ...TUNNEL, remotes })), []);
      }
    });
  }
});

test('pod networks might hold VTEPs that may be anywhere', () => {
  const host = { ...rules(...iptables(file('kube-proxy.save'))), addresses: new Map() };
  assert.deepEqual(judge(host, TUNNEL), []);
  const policies = judge(host, { ...TUNNEL, remotes: undefined });
  assert.deepEqual(
    policies.map(({ where, effect, certain }) => [where, effect, certain]),
    [['iptables nat FLANNEL-POSTRTG', 'nat', false]],
  );
});

test('Calico drops what other VTEPs send, and lets its own be', () => {
  const chains = iptables(file('calico.save'), file('calico.ipset'));
  const tunnel = { ...TUNNEL, port: 4789 };
  assert.deepEqual(judge(rules(...chains), tunnel), []);
  const stranger = judge(rules(...chains), { ...tunnel, remotes: ['192.0.2.2', '192.0.2.9'] });
  assert.deepEqual(
    stranger.map(({ direction, where, effect, certain }) => [direction, where, effect, certain]),
    [['in', 'iptables filter cali-INPUT', 'drop', true]],
  );
  // Without ipset, nobody knows.
  const unknown = judge(rules(...iptables(file('calico.save'))), tunnel);
  assert.deepEqual(
    unknown.map(({ where, effect, certain }) => [where, effect, certain]),
    [['iptables filter cali-INPUT', 'drop', false]],
  );
});

test('ufw drops what it is not told to let in', () => {
  const text = file('ufw.save');
  assert.deepEqual(verdicts(judge(rules(...iptables(text)), TUNNEL)), [
    "iptables filter INPUT drops incoming UDP 8472: 'policy drop'",
  ]);
  const allowed = text.replace('COMMIT', '-A ufw-user-input -p udp -m udp --dport 8472 -j ACCEPT\nCOMMIT');
  assert.deepEqual(judge(rules(...iptables(allowed)), TUNNEL), []);
});

test('firewalld rejects what no service or port allows', () => {
  const ruleset = nftObjects('firewalld.nftables');
  for (const tunnel of [TUNNEL, TUNNEL6]) {
    assert.deepEqual(verdicts(judge(rules(...readNftables(ruleset)), tunnel)), [
      "nftables inet firewalld filter_IN_public rejects incoming UDP 8472: 'reject'",
    ]);
  }
  const allow = { family: 'inet', table: 'firewalld', chain: 'filter_IN_public_allow', handle: 99 };
  const rule = { ...allow, expr: [match(payload('udp', 'dport'), 8472), ACCEPT] };
  const allowed = [...ruleset, { rule }] as unknown as NftObject[];
  assert.deepEqual(judge(rules(...readNftables(allowed)), TUNNEL), []);
});

test('an accept ends a base chain, and no other', () => {
  const accept = [match(payload('udp', 'dport'), 8472), ACCEPT];
  const chains = [
    ...nft('input', [accept, [DROP]], { name: 'first', prio: -1 }),
    ...nft('input', [[match(payload('udp', 'dport'), { range: [8000, 9000] }), DROP]], { name: 'second' }),
  ];
  assert.deepEqual(
    judge(rules(...chains), TUNNEL).map(({ where }) => where),
    [],
  );
  const [first, second] = [nft('input', [accept, [DROP]], { prio: -1 }), nft('input', [[DROP]], { prio: 5 })];
  assert.equal(judge(rules(...first), TUNNEL).length, 0);
  assert.equal(judge(rules(...second, ...first), TUNNEL).length, 1);
});

test('conditions of nftables', async (t) => {
  const table: [string, unknown[], Policy['certain'] | undefined, Partial<Tunnel>?][] = [
    ['no condition', [], true],
    ['another protocol', [match(meta('l4proto'), 'tcp')], undefined],
    ['one of several protocols', [match(meta('l4proto'), { set: ['tcp', 'udp'] })], true],
    ['not another protocol', [match(meta('l4proto'), 'tcp', '!=')], true],
    ['a field of another protocol', [match(payload('tcp', 'dport'), 22, '!=')], undefined],
    ['the port', [match(payload('udp', 'dport'), 8472)], true],
    ['another port', [match(payload('udp', 'dport'), 4789)], undefined],
    ['not another port', [match(payload('udp', 'dport'), 4789, '!=')], true],
    ['ports above', [match(payload('th', 'dport'), 8000, '>')], true],
    ['ports below', [match(payload('th', 'dport'), 8472, '<')], undefined],
    ['all source ports that are taken', [match(payload('udp', 'sport'), { range: [1024, 65535] })], true],
    ['low source ports', [match(payload('udp', 'sport'), { range: [0, 1023] })], undefined],
    ['some source ports', [match(payload('udp', 'sport'), { range: [49152, 65535] })], false],
    ['the NIC', [match(meta('iifname'), 'eth0')], true],
    ['NICs of a kind', [match(meta('iifname'), 'eth*')], true],
    ['a NIC by index', [match(meta('iif'), 'eth1')], undefined],
    ['not the NIC', [match(meta('iifname'), 'eth0', '!=')], undefined],
    ['another NIC of a set', [match(meta('iifname'), { set: ['wg*', 'lo'] })], undefined],
    ['the NIC, of a VRF', [match(meta('iifname'), 'eth0')], false, { vrf: 'red' }],
    ['where it goes to', [match(meta('oifname'), 'eth0')], undefined],
    ['where it does not go to', [match(meta('oifname'), 'lo', '!=')], true],
    ['a VTEP', [match(payload('ip', 'saddr'), '192.0.2.3')], true],
    ['all VTEPs', [match(payload('ip', 'saddr'), { prefix: { addr: '192.0.2.0', len: 24 } })], true],
    ['others', [match(payload('ip', 'saddr'), { range: ['192.0.2.4', '192.0.2.255'] })], undefined],
    ['not the VTEPs', [match(payload('ip', 'saddr'), { set: ['192.0.2.2', '192.0.2.3'] }, '!=')], undefined],
    ['ours', [match(payload('ip', 'daddr'), '192.0.2.1')], true],
    ['the other version', [match(payload('ip6', 'saddr'), '2001:db8::9', '!=')], undefined],
    ['the version', [match(meta('nfproto'), 'ipv4')], true],
    ['a named set', [match(payload('ip', 'saddr'), '@good')], true],
    ['outside of a named set', [match(payload('ip', 'saddr'), '@good', '!=')], true],
    ['an empty set', [match(payload('ip', 'saddr'), '@none')], undefined],
    [
      'parts',
      [match({ concat: [meta('l4proto'), payload('th', 'dport')] }, { set: [{ concat: ['udp', 8472] }] })],
      true,
    ],
    [
      'other parts',
      [match({ concat: [meta('l4proto'), payload('th', 'dport')] }, { set: [{ concat: ['tcp', 8472] }] })],
      undefined,
    ],
    ['a mark', [match(meta('mark'), 1)], undefined],
    ['no mark', [match({ '&': [meta('mark'), 0xff] }, 0)], true],
    ['a new connection', [match({ ct: { key: 'state' } }, 'new', 'in')], true],
    ['an answered one', [match({ ct: { key: 'state' } }, ['established', 'related'], 'in')], undefined],
    [
      'an answered one, or so',
      [match({ ct: { key: 'state' } }, 'established', 'in')],
      false,
      { sourcePorts: [8472, 8473] },
    ],
    ['an invalid packet', [match({ ct: { key: 'state' } }, 'invalid', 'in')], undefined],
    ['for this host', [match({ fib: { result: 'type', flags: ['daddr'] } }, 'local')], true],
    [
      'for others',
      [match({ fib: { result: 'type', flags: ['daddr'] } }, { set: ['broadcast', 'multicast'] })],
      undefined,
    ],
    ['from nowhere', [match({ fib: { result: 'oif', flags: ['saddr', 'iif'] } }, false)], undefined],
    ['a broadcast', [match(meta('pkttype'), { set: ['broadcast', 'multicast'] })], undefined],
    ['a fragment', [match({ '&': [payload('ip', 'frag-off'), 0x1fff] }, 0, '!=')], undefined],
    ['an extension header', [match({ exthdr: { name: 'frag' } }, true)], undefined],
    ['decrypted', [match(meta('ipsec'), true)], undefined],
    ['a rate', [{ limit: { rate: 5, per: 'second' } }], false],
    ['a length', [match(meta('length'), 1000, '>')], false],
    ['raw bits', [match({ payload: { base: 'th', offset: 64, len: 8 } }, 8)], false],
    ['an unknown condition', [{ novelty: 5 }], false],
  ];
  const sets = [
    {
      name: 'good',
      elem: ['192.0.2.2', { elem: { val: { prefix: { addr: '198.51.100.0', len: 24 } }, comment: 'x' } }],
    },
    { name: 'none' },
  ];
  for (const [name, conditions, expected, change] of table) {
    await t.test(name, () => {
      const policies = judge(rules(...nft('input', [[...conditions, DROP]], {}, sets)), { ...TUNNEL, ...change });
      assert.deepEqual(
        policies.map(({ effect, certain }) => [effect, certain]),
        expected === undefined ? [] : [['drop', expected]],
      );
    });
  }
});

test('effects of statements', async (t) => {
  const mark = (value: unknown) => ({ mangle: { key: meta('mark'), value } });
  const table: [string, string, unknown[], Policy['effect'] | undefined][] = [
    ['counting', 'output', [{ counter: { packets: 5, bytes: 500 } }], undefined],
    ['logging', 'output', [{ log: { prefix: 'x' } }], undefined],
    ['accepting', 'output', [ACCEPT], undefined],
    ['dropping', 'output', [DROP], 'drop'],
    ['rejecting', 'output', [{ reject: null }], 'reject'],
    ['queueing', 'output', [{ queue: { num: 1 } }], 'queue'],
    ['copying', 'output', [{ dup: { addr: '192.0.2.9', dev: 'eth1' } }], 'tee'],
    ['a mark that rules route by', 'output', [mark(0x200)], 'mark'],
    ['a mark that nobody looks at', 'output', [mark(0x100)], undefined],
    ['a mark that nobody knows', 'output', [mark({ map: { key: payload('ip', 'dscp'), data: {} } })], 'mark'],
    ['a DSCP', 'output', [{ mangle: { key: payload('ip', 'dscp'), value: 'af11' } }], 'dscp'],
    ['a TTL', 'output', [{ mangle: { key: payload('ip', 'ttl'), value: 1 } }], 'rewrite'],
    ['a priority', 'output', [{ mangle: { key: meta('priority'), value: '1:2' } }], 'priority'],
    ['tracing', 'output', [{ mangle: { key: meta('nftrace'), value: 1 } }], undefined],
    ['a TCP option', 'output', [{ mangle: { key: { 'tcp option': { name: 'maxseg' } }, value: 1 } }], undefined],
    ['what redirect does as well: no tracking', 'output', [{ notrack: null }], undefined],
    ['another source', 'postrouting', [{ snat: { addr: '192.0.2.9' } }], 'nat'],
    ['the source that it has', 'postrouting', [{ snat: { addr: '192.0.2.1', port: { range: [1, 5] } } }], undefined],
    ['the only source', 'postrouting', [{ masquerade: null }], undefined],
    ['another destination', 'prerouting', [{ dnat: { addr: '10.0.0.1' } }], 'nat'],
    ['a port of this host', 'prerouting', [{ redirect: { port: 7 } }], 'nat'],
    ['a proxy', 'prerouting', [{ tproxy: { port: 7 } }], 'tproxy'],
    ['on the NIC', 'ingress', [DROP], 'drop'],
    ['forwarding', 'ingress', [{ fwd: { dev: 'eth1' } }], 'forward'],
    ['what redirect does not get past', 'egress', [DROP], undefined],
    ['what others go through', 'forward', [DROP], undefined],
    ['an extension of iptables', 'output', [{ xt: { type: 'target', name: 'REJECT' } }], 'reject'],
    ['an unknown statement', 'output', [{ novelty: 5 }], 'unknown'],
  ];
  for (const [name, hook, statements, expected] of table) {
    await t.test(name, () => {
      const policies = judge(rules(...nft(hook, [statements], { dev: 'eth0' })), TUNNEL);
      assert.deepEqual(
        policies.map(({ effect }) => effect),
        expected === undefined ? [] : [expected],
      );
    });
  }
});

test('masquerading changes the source where the NIC has more addresses', () => {
  const host = rules(...nft('postrouting', [[{ masquerade: null }]], { type: 'nat' }));
  const addresses = new Map([['eth0', ['192.0.2.7', '192.0.2.1']]]);
  assert.deepEqual(verdicts(judge({ ...host, addresses }, TUNNEL)), [
    "nftables inet t postrouting translates outgoing UDP 8472: 'masquerade'",
  ]);
});

test('what conntrack does not know is not translated', () => {
  const notrack = nft('prerouting', [[{ notrack: null }]], { prio: -300 });
  const dnat = nft('prerouting', [[{ dnat: { addr: '10.0.0.1' } }]], { type: 'nat', prio: -100 });
  assert.equal(judge(rules(...dnat), TUNNEL).length, 1);
  assert.equal(judge(rules(...dnat, ...notrack), TUNNEL).length, 0);
});

test('marks are followed from rule to rule and from hook to hook', () => {
  const set = '-A OUTPUT -p udp -m udp --dport 8472 -j MARK --set-xmark 0x8000/0x8000';
  const drop = '-A POSTROUTING -m mark --mark 0x8000/0x8000 -j DROP';
  const unset = '-A OUTPUT -j MARK --set-xmark 0x0/0xffff';
  const drops = (rules_: string[]) => judge(rules(...saved('mangle', rules_)), TUNNEL).map(({ certain }) => certain);
  assert.deepEqual(drops([drop]), []);
  assert.deepEqual(drops([set, drop]), [true]);
  assert.deepEqual(drops([set, unset, drop]), []);
  assert.deepEqual(drops([set.replace('-j', '-m statistic --mode random --probability 0.5 -j'), drop]), [false]);
  // By way of the connection's mark.
  const save = '-A OUTPUT -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff';
  const restore = '-A POSTROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff';
  assert.deepEqual(drops([set, save, unset, restore, drop]), [true]);
  assert.deepEqual(drops([set, unset, save, restore, drop]), []);
});

test('rules for single VTEPs are judged for each of them', () => {
  const only = (...hosts: string[]) =>
    hosts.map((host) => `-A INPUT -s ${host}/32 -p udp -m udp --dport 8472 -j ACCEPT`);
  const certain = (rules_: string[], remotes: string[] | undefined) =>
    judge(rules(...saved('filter', rules_, undefined, 'DROP')), { ...TUNNEL, remotes }).map((policy) => policy.certain);
  assert.deepEqual(certain(only('192.0.2.2', '192.0.2.3'), ['192.0.2.2', '192.0.2.3']), []);
  assert.deepEqual(certain(only('192.0.2.2', '192.0.2.3'), ['192.0.2.2', '192.0.2.4']), [true]);
  assert.deepEqual(certain(only('192.0.2.2'), undefined), [false]);
  assert.deepEqual(certain(only('192.0.2.2'), []), [true]);
});

test('jumps come back, gotos do not', () => {
  const policies = (...rules_: string[]) => judge(rules(...saved('filter', rules_)), TUNNEL).map(({ where }) => where);
  assert.deepEqual(policies('-A INPUT -j A', '-A A -j RETURN', '-A A -j DROP'), []);
  assert.deepEqual(policies('-A INPUT -j A', '-A INPUT -j DROP', '-A A -j RETURN'), ['iptables filter INPUT']);
  assert.deepEqual(policies('-A INPUT -g A', '-A INPUT -j DROP', '-A A -p tcp -j DROP'), []);
  assert.deepEqual(policies('-A INPUT -j A', '-A INPUT -j DROP', '-A A -g B', '-A B -p udp -j ACCEPT'), []);
  assert.deepEqual(policies('-A INPUT -m statistic --mode nth -j A', '-A INPUT -j DROP', '-A A -j ACCEPT'), [
    'iptables filter INPUT',
  ]);
});

test('options of iptables', async (t) => {
  const set = 'create s hash:net family inet\nadd s 192.0.2.0/24\ncreate u list:set\nadd u s\n';
  const ports = 'create p hash:ip,port family inet\nadd p 192.0.2.2,udp:8472\nadd p 192.0.2.2,tcp:22\n';
  const table: [string, boolean | undefined][] = [
    ['-p tcp', undefined],
    ['! -p tcp', true],
    ['-i eth+', true],
    ['! -i lo', true],
    ['-o eth0', undefined],
    ['-s 192.0.2.0/24', true],
    ['-s 192.0.2.0/255.255.255.0', true],
    ['-s 0.0.2.0/0.0.255.0', false],
    ['! -s 192.0.2.0/24', undefined],
    ['-p udp -m udp --dport 8000:9000', true],
    ['-p udp -m udp ! --dport 8472', undefined],
    ['-p udp -m multiport --dports 4789,8472', true],
    ['-p udp -m multiport --ports 1:1023', undefined],
    ['-m iprange --src-range 192.0.2.3-192.0.2.9', true],
    ['-m set --match-set s src', true],
    ['-m set ! --match-set s src', undefined],
    ['-m set --match-set u src', true],
    ['-m set --match-set missing src', false],
    ['-m set --match-set p src,dst', true],
    ['-m set --match-set p dst,dst', undefined],
    ['-m addrtype --dst-type LOCAL', true],
    ['-m addrtype ! --src-type LOCAL', true],
    ['-m conntrack --ctstate RELATED,ESTABLISHED', undefined],
    ['-m state --state NEW', true],
    ['-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT', true],
    ['-m policy --dir in --pol ipsec', undefined],
    ['-m policy --dir in --pol none', true],
    ['-m rpfilter --validmark --invert', undefined],
    ['-m pkttype --pkt-type broadcast', undefined],
    ['-f', undefined],
    ['-m comment --comment "-j ACCEPT ! -p tcp"', true],
    ['-m u32 --u32 "0x0=0x1"', false],
    ['-m owner ! --uid-owner 0', false],
    ['-m limit --limit 5/min', false],
    ['-m novelty', false],
    ['-m rt --rt-type 0', undefined],
  ];
  for (const [options, expected] of table) {
    await t.test(options, () => {
      const rule = `-A INPUT ${options} -j DROP`;
      const policies = judge(rules(...saved('filter', [rule], set + ports)), TUNNEL);
      assert.deepEqual(
        policies.map(({ certain, rule }) => [certain, rule]),
        expected === undefined ? [] : [[expected, rule]],
      );
    });
  }
});

test('the targets of iptables', () => {
  const targets: Record<string, string | undefined> = {
    ...{ ACCEPT: undefined, DROP: 'drop', 'REJECT --reject-with icmp-port-unreachable': 'reject' },
    ...{ 'NFQUEUE --queue-num 0 --queue-bypass': 'queue', 'TEE --gateway 10.0.0.1': 'tee' },
    ...{ 'DSCP --set-dscp 0x0a': 'dscp', 'TTL --ttl-set 5': 'rewrite', 'CLASSIFY --set-class 1:2': 'priority' },
    ...{ 'MARK --set-xmark 0x200/0xf00': 'mark', 'MARK --set-xmark 0x400/0xf00': undefined },
    ...{ 'CT --notrack': undefined, 'CT --zone 3': undefined, 'LOG --log-prefix "x -j DROP"': undefined },
    ...{ 'MASQUERADE --random-fully': undefined, 'SNAT --to-source 192.0.2.1': undefined },
    ...{ 'SNAT --to-source 192.0.2.1:1024-65535': undefined, 'SNAT --to-source 192.0.2.9': 'nat' },
    ...{ 'NOVELTY --x': 'unknown' },
  };
  for (const [target, effect] of Object.entries(targets)) {
    const policies = judge(rules(...saved('mangle', [`-A POSTROUTING -p udp -j ${target}`])), TUNNEL);
    assert.deepEqual(
      policies.map((policy) => policy.effect),
      effect === undefined ? [] : [effect],
      target,
    );
  }
  const tool = readIptables(
    '*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j SNAT --to-source 2001:db8::1\nCOMMIT',
    'ip6tables',
    'ip6',
    undefined,
    readIpsets(''),
  );
  assert.deepEqual(judge(rules(...tool.chains), TUNNEL6), []);
  assert.deepEqual(judge(rules(...tool.chains), TUNNEL), []);
});

test('IPsec policies', async (t) => {
  const tmpl = '\ttmpl src 192.0.2.1 dst 192.0.2.2\n\t\tproto esp reqid 1 mode transport\n';
  const optional = `${tmpl}\t\tlevel use \n`;
  const table: [string, string, string[]][] = [
    [
      'for our port',
      `src 192.0.2.1/32 dst 192.0.2.2/32 proto udp dport 8472 \n\tdir out priority 5 ptype main \n${tmpl}`,
      ['out ipsec true'],
    ],
    [
      'for another port',
      `src 192.0.2.1/32 dst 192.0.2.2/32 proto udp dport 4789 \n\tdir out priority 5 ptype main \n${tmpl}`,
      [],
    ],
    ['for all', `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir in priority 5 ptype main \n${tmpl}`, ['in ipsec true']],
    ['for all of the other version', `src ::/0 dst ::/0 \n\tdir in priority 5 ptype main \n${tmpl}`, []],
    ['for what is forwarded', `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir fwd priority 5 ptype main \n${tmpl}`, []],
    ['of a socket', `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tsocket out priority 0 ptype main \n`, []],
    ['for another network', `src 10.1.0.0/24 dst 10.2.0.0/24 \n\tdir out priority 5 ptype main \n${tmpl}`, []],
    [
      'with a mark',
      `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir out priority 5 ptype main \n\tmark 0x2a/0xffffffff \n${tmpl}`,
      [],
    ],
    ['of an interface', `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir out priority 5 ptype main \n\tif_id 0x7\n${tmpl}`, []],
    ['for another NIC', `src 0.0.0.0/0 dst 0.0.0.0/0 dev eth1 \n\tdir out priority 5 ptype main \n${tmpl}`, []],
    ['optional', `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir out priority 5 ptype main \n${optional}`, ['out ipsec false']],
    ['blocking', `src 0.0.0.0/0 dst 192.0.2.3/32 \n\tdir out action block priority 5 ptype main \n`, ['out drop true']],
    [
      'passed by one of more weight',
      `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir out priority 5 ptype main \n${tmpl}src 0.0.0.0/0 dst 192.0.2.0/24 \n\tdir out priority 2 ptype main \n`,
      [],
    ],
    [
      'passed for one VTEP of two',
      `src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir out priority 5 ptype main \n${tmpl}src 0.0.0.0/0 dst 192.0.2.2/32 \n\tdir out priority 2 ptype main \n`,
      ['out ipsec true'],
    ],
  ];
  for (const [name, text, expected] of table) {
    await t.test(name, () => {
      const policies = judge(rules(...readXfrm(text, '')), TUNNEL);
      assert.deepEqual(
        policies.map(({ direction, effect, certain }) => `${direction} ${effect} ${certain}`),
        expected,
      );
    });
  }
  await t.test('by default', () => {
    const chains = readXfrm('', 'Default policies:\n in:  block\n fwd: block\n out: accept\n');
    assert.deepEqual(verdicts(judge(rules(...chains), TUNNEL)), [
      "xfrm policy in drops incoming UDP 8472: 'policy drop'",
    ]);
  });
});

test('tables with extensions are known, and what is left out is not judged', () => {
  const chain = {
    family: 'ip',
    table: 'filter',
    name: 'INPUT',
    type: 'filter',
    hook: 'input',
    prio: 0,
    policy: 'drop',
  };
  const rule = { ...chain, chain: 'INPUT', expr: [{ xt: { type: 'match', name: 'u32' } }, ACCEPT] };
  const ruleset = [{ chain }, { rule }] as unknown as NftObject[];
  assert.deepEqual([...tablesWithExtensions(ruleset)], ['ip filter']);
  assert.deepEqual(verdicts(judge(rules(...readNftables(ruleset)), TUNNEL)), [
    "nftables ip filter INPUT may drop incoming UDP 8472: 'policy drop'",
  ]);
  assert.deepEqual(readNftables(ruleset, new Set(['ip filter'])), []);
});

test('ingress chains are those of their devices', () => {
  const text = [
    'table netdev a {\n\tchain one {\n\t\ttype filter hook ingress device "eth0" priority filter; policy accept;\n\t}',
    '\tchain two {\n\t\ttype filter hook ingress devices = { "eth1", "eth2" } priority filter; policy drop;\n\t}\n}',
  ].join('\n');
  const devices = chainDevices(text);
  assert.deepEqual(
    [...devices],
    [
      ['netdev a one', ['eth0']],
      ['netdev a two', ['eth1', 'eth2']],
    ],
  );
  const chain = { family: 'netdev', table: 'a', type: 'filter', hook: 'ingress', prio: 0, policy: 'drop' };
  const chains = [{ chain: { ...chain, name: 'one' } }, { chain: { ...chain, name: 'two' } }] as unknown as NftObject[];
  const where = (known?: Map<string, string[]>) =>
    judge(rules(...readNftables(chains, new Set(), known)), TUNNEL).map((policy) => [policy.where, policy.certain]);
  assert.deepEqual(where(devices), [['nftables netdev a one', true]]);
  assert.deepEqual(where(), [
    ['nftables netdev a one', false],
    ['nftables netdev a two', false],
  ]);
});

test('twenty thousand rules of kube-proxy and two hundred VTEPs are judged', () => {
  const lines: string[] = [];
  for (let i = 0; i < 5000; i++) {
    const address = `10.${96 + (i >> 12)}.${(i >> 4) & 255}.${i & 15}`;
    lines.push(
      `-A KUBE-SERVICES -d ${address}/32 -p tcp -m comment --comment "ns/s${i} cluster IP" -m tcp --dport 80 -j KUBE-SVC-${i}`,
    );
    lines.push(
      `-A KUBE-SVC-${i} ! -s 10.244.0.0/16 -d ${address}/32 -p tcp -m comment --comment "ns/s${i}" -m tcp --dport 80 -j KUBE-MARK-MASQ`,
    );
    lines.push(
      `-A KUBE-SVC-${i} -m comment --comment "ns/s${i}" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-${i}`,
    );
    lines.push(`-A KUBE-SEP-${i} -p tcp -m comment --comment "ns/s${i}" -m tcp -j DNAT --to-destination 10.244.1.5:80`);
  }
  const remotes = Array.from({ length: 200 }, (_, i) => `192.0.2.${i + 2}`);
  // A rule that has to be judged for each VTEP, so that they are taken apart.
  const each = remotes.map((remote) => `-A KUBE-SERVICES -d ${remote}/32 -p udp -m udp --dport 8472 -j RETURN`);
  const chains = saved('nat', [
    '-A OUTPUT -j KUBE-SERVICES',
    '-A PREROUTING -j KUBE-SERVICES',
    '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
    ...lines,
    ...each,
  ]);
  assert.deepEqual(judge(rules(...chains), { ...TUNNEL, remotes }), []);
});
