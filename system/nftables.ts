/** Whether anything in the host's nf_tables has changed: rules of nft, and of iptables where that is iptables-nft. Linux: nf_tables_api.c. */
import { attributes, NETLINK_NETFILTER, NetlinkSocket } from './netlink.ts';

const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_GETGEN = 16;
const NFTA_GEN_ID = 1;
/** struct nfgenmsg: family, version, resource. */
const NFGENMSG = 4;

export class RulesetGeneration {
  #socket: NetlinkSocket | undefined;

  /**
   * A number that is another one after every change of a ruleset in this network namespace; one question of about 10 us. undefined where
   * the kernel does not tell.
   */
  read(): number | undefined {
    try {
      this.#socket ??= new NetlinkSocket(NETLINK_NETFILTER);
      let generation: number | undefined;
      this.#socket.ask((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN, NFGENMSG, (answer) => {
        for (const [type, value] of attributes(answer, NFGENMSG)) {
          if (type === NFTA_GEN_ID) generation = value.getUint32(0);
        }
      });
      return generation;
    } catch {
      return undefined;
    }
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }
}
