// Flows of numbered UDP datagrams, as two processes, each of which looks for numbers that come after a larger one:
//   node sequence.js receive                 prints "listening PORT"; answers every 64th datagram of a flow from half a second on
//   node sequence.js send ADDRESS PORT FLOWS    sends bursts on all flows
// Both print a JSON line every 50 ms: datagrams received, and of these those that came late.

import { createSocket, type Socket } from 'node:dgram';

const ANSWERED = 64;
/** Until then the answers have not told the kernel yet which queue a flow has. */
const SILENT_MILLISECONDS = 500;
const BURST = 24;
const SIZES = [16, 100, 1200, 1200, 1200, 700];

const seen = { received: 0, late: 0 };
const highest = new Map<number, number>();

function note(flow: number, datagram: Buffer): void {
  const number = datagram.readUInt32BE(0);
  seen.received++;
  if (number < (highest.get(flow) ?? 0)) seen.late++;
  else highest.set(flow, number);
}

function receive(): void {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 4 << 20 });
  const start = Date.now();
  const answers = new Map<number, number>();
  socket.on('message', (datagram, { port, address }) => {
    note(port, datagram);
    if (datagram.readUInt32BE(0) % ANSWERED !== 0 || Date.now() < start + SILENT_MILLISECONDS) return;
    const number = (answers.get(port) ?? 0) + 1;
    answers.set(port, number);
    socket.send(numbered(number, 64), port, address);
  });
  socket.bind(0, () => console.log(`listening ${socket.address().port}`));
}

function send(address: string, port: number, flows: number): void {
  const sockets: Socket[] = [];
  for (let flow = 0; flow < flows; flow++) {
    const socket = createSocket('udp4', (datagram) => note(flow, datagram));
    socket.connect(port, address, () => sockets.push(socket));
  }
  let number = 0;
  const burst = () => {
    for (let i = 0; i < BURST; i++) {
      const datagram = numbered(++number, SIZES[number % SIZES.length]!);
      for (const socket of sockets) socket.send(datagram);
    }
    setTimeout(burst, 1);
  };
  burst();
}

function numbered(number: number, size: number): Buffer {
  const datagram = Buffer.alloc(size);
  datagram.writeUInt32BE(number, 0);
  return datagram;
}

setInterval(() => console.log(JSON.stringify(seen)), 50);
const [role, address, port, flows] = process.argv.slice(2);
if (role === 'receive') receive();
else send(address!, Number(port), Number(flows));
