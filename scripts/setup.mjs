// Everything that a fresh machine needs, before `npm start` and `npm test`: npm packages, the build, Debian packages.
// Says in a line what it does and why, and nothing when there is nothing to do. Uses no package itself.
//   node scripts/setup.mjs start|test|bench

import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync } from 'node:fs';
import { isBuilt } from './build.mjs';
import { root } from './sources.mjs';

/** Program -> Debian package. */
const programs = {
  start: { ip: 'iproute2', tc: 'iproute2', ping: 'iputils-ping', iperf3: 'iperf3' },
  test: {
    sysctl: 'procps',
    tshark: 'tshark',
    tcpdump: 'tcpdump',
    ethtool: 'ethtool',
    iptables: 'iptables',
    nft: 'nftables',
    etcd: 'etcd-server',
    chromium: 'chromium',
    openssl: 'openssl',
    python3: 'python3',
    '/usr/lib/cni/bridge': 'containernetworking-plugins',
    'ovs-vswitchd': 'openvswitch-switch',
  },
  // Without Open vSwitch, whose package starts daemons: a benchmark skips it, and says how to have it.
  bench: { ethtool: 'ethtool', iptables: 'iptables' },
};

const minute = 60_000;

function say(text) {
  console.error(`uvxlan setup: ${text}`);
}

/** Ends the set-up: what comes next could only fail for a less clear reason. */
function giveUp(text) {
  say(text);
  process.exit(1);
}

/** Runs a program; returns whether it succeeded. What a quiet one had to say is shown when it fails. */
function run(command, args, { timeout, quiet, env }) {
  const { status, error, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    timeout,
    stdio: quiet ? ['ignore', 'pipe', 'pipe'] : ['ignore', 2, 2],
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  if (status === 0) return true;
  if (quiet) console.error(`${stdout ?? ''}${stderr ?? ''}`.trimEnd().split('\n').slice(-20).join('\n'));
  if (error) console.error(`${command}: ${error.message}`);
  return false;
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(`${root}${path}`, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Why node_modules does not do, or undefined. Packages for other platforms are optional and may be absent. */
function npmPackagesLack() {
  const locked = readJson('package-lock.json').packages;
  const installed = readJson('node_modules/.package-lock.json')?.packages;
  if (!installed) return 'there is no node_modules';
  for (const [path, { version, optional }] of Object.entries(locked)) {
    const found = installed[path]?.version;
    if (path !== '' && found !== version && (found || !optional)) {
      return `${path} is ${found ?? 'missing'}, the lock file has ${version}`;
    }
  }
  return undefined;
}

function installNpmPackages() {
  const reason = npmPackagesLack();
  if (!reason) return;
  say(`installing npm packages: ${reason}`);
  // The compilers are development packages; NODE_ENV=production would leave them out.
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
  if (!run('npm', args, { timeout: 10 * minute, quiet: true })) {
    giveUp('npm packages could not be installed (above is why); run `npm ci` in the checkout, then try again');
  }
}

function buildIfStale() {
  if (isBuilt()) return;
  say('building dist/: it is missing or older than the sources');
  if (!run(process.execPath, ['scripts/build.mjs'], { timeout: 10 * minute }))
    giveUp('the build failed (above is why)');
}

/** As `command -v`, with the directories that Debian leaves out of an ordinary user's PATH. */
function isInstalled(program) {
  return `${process.env.PATH}:/usr/sbin:/sbin`.split(':').some((directory) => {
    try {
      accessSync(program.startsWith('/') ? program : `${directory}/${program}`, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function installDebianPackages(wanted) {
  const missing = Object.keys(wanted).filter((program) => !isInstalled(program));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((program) => wanted[program]))];
  const without = `${missing.join(', ')} not found`;
  const byHand = `install what provides them, on Debian: apt-get install ${packages.join(' ')}`;
  if (!isInstalled('apt-get')) return cannotInstall(`${without} and no apt-get here; ${byHand}`);
  if (process.geteuid() !== 0) return cannotInstall(`${without} and only root may install; ${byHand}`);
  say(`installing Debian packages ${packages.join(' ')}: ${without}`);
  const options = { timeout: 10 * minute, quiet: true, env: { DEBIAN_FRONTEND: 'noninteractive' } };
  // Another apt-get may be running, as it does on a machine that has just booted: wait for its lock.
  const lock = ['-o', 'DPkg::Lock::Timeout=120'];
  const done =
    run('apt-get', [...lock, 'update'], options) &&
    run('apt-get', [...lock, 'install', '-y', '--no-install-recommends', ...packages], options);
  if (!done) giveUp(`apt-get failed (above is why): ${without}; ${byHand}`);
}

/** The lab cannot do without; a test that cannot is skipped, and says why. */
function cannotInstall(text) {
  if (purpose === 'start') giveUp(text);
  say(`${text}; ${purpose === 'test' ? 'tests' : 'measurements'} that need them are skipped`);
}

const purpose = process.argv[2];
if (!Object.hasOwn(programs, purpose ?? '')) giveUp('usage: node scripts/setup.mjs start|test|bench');
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 11)) giveUp(`Node 20.11 or newer is needed, this is ${process.version}`);
if (process.platform !== 'linux') giveUp(`uvxlan runs on Linux only, this is ${process.platform}`);
installNpmPackages();
buildIfStale();
installDebianPackages({ ...programs.start, ...programs[purpose] });
