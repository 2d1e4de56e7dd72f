"""A SLURM cluster of one node, for tests: its own munge, controller and node daemon in one folder.

Nothing outside the folder is written, ports are free ones, and no service of the machine is touched:
`SLURM_CONF` tells the commands which cluster is meant. Run by hand, it stays up until Ctrl-C:

    python -m tests.cluster.one_node /tmp/one-node

Needed are the programs of the Debian packages slurm-wlm and munge. There is no accounting database,
so `squeue` has to serve as status command, and no control groups, so limits are not enforced.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
_SECONDS = 60  # until a daemon that does not answer is given up

_SLURM_CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
GresTypes=gpu
JobRequeue=1
ReturnToService=2
InactiveLimit=0
KillWait=2
# Finished jobs stay visible to squeue, which is asked how they ended.
MinJobAge=3600
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What is missing to start a cluster here, or None."""
    missing = [name for name in PROGRAMS if _find(name) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "SLURM's node daemon has to be started as root"
    return None


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class OneNode:
    """The cluster; a context manager. `environment` is what its commands need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> OneNode:
        try:
            self._write()
            self._start("munged", *self._munge_options())
            self._wait_for("munge", "--no-input", "--socket", str(self.folder / "munge.socket"))
            self._start("slurmctld", "-D", "-i")
            self._start("slurmd", "-D", "-N", "node")
            self._wait_for("sinfo", "--noheader", "--format=%T", shows="idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()

    def ask(self, *command: str) -> str:
        """The output of one of SLURM's commands."""
        return subprocess.run(
            [_find(command[0]) or command[0], *command[1:]],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env=self.environment,
        ).stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Job id → (state, comment) of all jobs, finished ones too."""
        lines = self.ask("squeue", "--noheader", "--states=all", "--format=%i|%T|%k").splitlines()
        parts = (line.split("|", 2) for line in lines)
        return {job: (state, comment) for job, state, comment in parts}

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def _write(self) -> None:
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        controller_port, node_port = _free_ports(2)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        settings = _SLURM_CONF.format(
            host=socket.gethostname().split(".")[0],
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=self.folder,
            controller_port=controller_port,
            node_port=node_port,
            cpus=os.cpu_count(),
            memory=memory * 8 // 10,
        )
        (self.folder / "slurm.conf").write_text(settings)
        # No GPU is needed: SLURM counts the device files of its GPUs and sets CUDA_VISIBLE_DEVICES.
        (self.folder / "gres.conf").write_text("NodeName=node Name=gpu File=/dev/null\n")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

        # Snakemake's plugin calls srun in an environment without SLURM_CONF.
        srun = self.folder / "bin" / "srun"
        conf = shlex.quote(self.environment["SLURM_CONF"])
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {_find("srun")} "$@"\n')
        srun.chmod(0o755)

    def _munge_options(self) -> list[str]:
        names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
        names |= {"log-file": "munged.log", "seed-file": "munge.seed"}
        # Forced, since it wants no part of the path to be writable by others, as /tmp is.
        options = [f"--{option}={self.folder / name}" for option, name in names.items()]
        return ["--foreground", "--force", *options]

    def _start(self, program: str, *options: str) -> None:
        with open(self.folder / f"{program}.out.log", "wb") as log:
            daemon = subprocess.Popen(
                [_find(program) or program, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                # Ctrl-C is for the caller, who then ends them in order.
                start_new_session=True,
            )
        self._daemons.append(daemon)

    def _wait_for(self, *command: str, shows: str = "") -> None:
        """Ask until the answer contains `shows`; every failure to start ends here, with the logs."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and all(daemon.poll() is None for daemon in self._daemons):
            try:
                if shows in self.ask(*command):
                    return
            except (subprocess.SubprocessError, OSError):
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{command[0]} got no answer\n{self.logs()}")


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def main() -> None:
    reason = why_not()
    if reason is not None:
        raise SystemExit(f"error: {reason}")
    # As Ctrl-C, so that the daemons are ended with this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/one-node").absolute()
    with OneNode(folder):
        print(f"up. In another terminal: export SLURM_CONF={folder}/slurm.conf; Ctrl-C here ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
