/** No overlay: the veth itself, which is the limit of all the others. */
import { type Kind, NO_FDB } from './kind.ts';

export const veth: Kind = {
  name: 'veth',
  about: 'no overlay: the plain veth, the limit',
  lacks: () => undefined,
  open: (host, { local }) => ({
    host,
    device: 'eth0',
    local,
    addresses: [local],
    mac: host.mac('eth0'),
    fdb: NO_FDB,
    daemons: [],
  }),
};
