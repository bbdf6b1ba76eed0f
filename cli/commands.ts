/** The commands that there are, by their words. */

/** A command's module; loaded only when it is the one asked for, since a client command is to end at once. */
export interface Command {
  HELP: string;
  /** Returns the exit status; an error that is thrown is printed, and is 1, for a UsageError 2. */
  run(args: string[]): Promise<number>;
}

export const COMMANDS: Record<string, () => Promise<Command>> = {
  up: () => import('./up.ts'),
  link: () => import('./link.ts'),
  fdb: () => import('./fdb.ts'),
  nexthop: () => import('./nexthop.ts'),
  mdb: () => import('./mdb.ts'),
  neigh: () => import('./neigh.ts'),
  stats: () => import('./stats.ts'),
  monitor: () => import('./monitor.ts'),
  top: () => import('./top.ts'),
  capture: () => import('./capture.ts'),
  explain: () => import('./explain.ts'),
  flannel: () => import('./flannel.ts'),
  doctor: () => import('./doctor.ts'),
  cleanup: () => import('./cleanup.ts'),
  lab: () => import('./lab.ts'),
  completion: () => import('./completion.ts'),
};

export const HELP = `Usage: uvxlan COMMAND ...
       uvxlan [ -force ] -batch FILE
A userspace VXLAN dataplane, in the words of iproute2.
  up         run the daemon with a VXLAN device, in the foreground
  link       show, add, change and remove the daemon's devices
  fdb        show and change the forwarding database
  nexthop    show and change groups of VTEPs that FDB entries spread flows over
  mdb        show and change the multicast database: which VTEPs get an inner group's packets
  neigh      show and change the neighbours that devices answer ARP and neighbour discovery for
  stats      packets, bytes, and drops by reason with what to do about them
  monitor    what happens, as it happens: MACs learned, moved, aged; VTEPs up and down; drops above a rate
  top        rates by device, VTEP and flow, drops and workers, as they are now
  capture    packets of both sides to a file or to Wireshark, with next hops and drop reasons
  explain    a packet byte by byte, live or from a file; or what would happen to one from A to B
  flannel    the node agent of a flannel cluster, instead of flanneld
  doctor     what this machine offers, what is in the way, and what to do about it
  cleanup    remove what a killed daemon has left behind
  lab        two nodes in network namespaces, pod to pod over VXLAN: see it work
  completion what shells complete, and the manual page, made from these help texts
Each has --help. Options may stand before the command or after it, as with ip: uvxlan -j fdb show.
  --version  print the version
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;
