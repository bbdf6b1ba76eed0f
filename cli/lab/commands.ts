/** What a reader may type while the lab stays, in another terminal. */
import { realpathSync } from 'node:fs';
import type { Host } from './network.ts';
import type { Node } from './nodes.ts';
import { find } from './programs.ts';
import { isInside } from './user-namespace.ts';
import { MAIN } from './vtep.ts';

export function commandsText(left: Node, right: Node): string {
  const [node, pod, otherPod] = [left.host, left.pod, right.pod].map(prefix);
  const program = programName();
  const { device } = left.vtep;
  const entry = `${right.plan.mac} dev ${device} dst ${right.plan.local}`;
  const commands: [string, ...string[]][] = [['Ping from pod to pod', `${pod} ping ${right.plan.pod}`]];
  if (find('iperf3')) {
    const client = `${pod} iperf3 -c ${right.plan.pod}`;
    commands.push([
      'TCP from pod to pod: the server, then in a third terminal the client',
      `${otherPod} iperf3 -s`,
      client,
    ]);
  }
  // tcpdump as Debian builds it changes its user at start, which cannot be done in a user namespace.
  if (find('tcpdump') && !isInside()) {
    commands.push(['What passes between the nodes', `${node} tcpdump -T vxlan -nei eth0 udp port 8472`]);
  }
  commands.push(
    ['The FDB: which MAC is behind which node', `${node} ${program} fdb show`],
    ['What was carried, and what was dropped and why', `${node} ${program} stats`],
    ['The device with its settings and its uplink', `${node} ${program} -d link show`],
    [
      'Break it while it pings, look at stats, and mend it',
      `${node} ${program} fdb del ${entry}`,
      `${node} ${program} fdb append ${entry}`,
    ],
    ['Eight short lessons, each in a lab of its own, with a question at its end', `${program} lab --lesson 1`],
  );
  return commands.map(([what, ...lines]) => [`  ${what}`, ...lines.map((line) => `    ${line}`)].join('\n')).join('\n');
}

/** What stands before a command to run it in a host of the lab. */
function prefix(host: Host): string {
  if (!isInside()) return `ip netns exec ${host.namespace}`;
  // The names are not to be seen from outside; a process in the host leads to its namespaces.
  return `nsenter -t ${host.spawn('sleep infinity').pid} -U -m -n --preserve-credentials`;
}

/** `uvxlan` when that is this program, else how to start it. */
function programName(): string {
  const installed = find('uvxlan');
  return installed && realpathSync(installed) === realpathSync(MAIN) ? 'uvxlan' : `node ${MAIN}`;
}
