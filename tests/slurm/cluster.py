"""A real SLURM cluster of one node in a temporary folder, with its own key, sockets and ports."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

CLIENTS = ("sbatch", "squeue", "scancel", "srun", "sinfo", "scontrol", "sacctmgr", "sshare")
NEEDED = ("munged", "slurmctld", "slurmd", *CLIENTS)


def why_not() -> str | None:
    """The reason why this machine cannot run a cluster, or None."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "slurmd starts jobs as other users: run this as root"


class Cluster:
    """Context manager; SLURM commands that run with `environment` use this cluster."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
        }
        self.daemons: list[subprocess.Popen] = []

    def __enter__(self) -> Cluster:
        try:
            self._configure()
            munge = self.folder / "munge"
            self._start(
                ["munged", "--foreground", "--force", f"--socket={munge}/socket",
                 f"--key-file={munge}/key", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed",
                 "--log-file=/dev/stderr"],
            )  # fmt: skip
            self._await("munged", (munge / "socket").exists)
            self._start(["slurmctld", "-D"])
            self._start(["slurmd", "-D", "-N", "node"])
            self._await("an idle node", lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        """End all jobs, then the daemons in reverse order."""
        with suppress(Exception):
            for job in self.ask("squeue", "-h", "-t", "pending,running", "-o", "%i").split():
                self.ask("scancel", job)
            self._await(
                "an empty queue",
                lambda: not self.ask("squeue", "-h", "-t", "pending,running,completing"),
            )
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command: str) -> str:
        """Return the output of a SLURM command. Raises CalledProcessError if it fails."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def _configure(self) -> None:
        for name in ("munge", "state", "spool", "bin"):
            (self.folder / name).mkdir(mode=0o700)
        key = self.folder / "munge/key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        controller, node = _free_ports(2)
        host = socket.gethostname()
        (self.folder / "slurm.conf").write_text(f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
# A job that is put back waits until its credential is void.
AuthInfo=socket={self.folder}/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldParameters=enable_configless
# Without control groups, which need a dedicated system.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
# squeue must still know what has ended; a job past its limit has seconds.
MinJobAge=43200
OverTimeLimit=0
KillWait=10
ReturnToService=2
# The node claims the resources that the profile asks for, even if this machine has less.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes=node Default=YES MaxTime=60 State=UP
""")
        # Snakemake's plugin removes SLURM_CONF from the environment inside a job.
        for name in CLIENTS:
            client = self.folder / "bin" / name
            real = shutil.which(name)
            client.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n')
            client.chmod(0o755)
        # SLURM accepts any device file as a GPU.
        (self.folder / "gres.conf").write_text(
            "NodeName=node Name=gpu File=/dev/null\nNodeName=node Name=gpu File=/dev/zero\n"
        )

    def _start(self, command: list[str]) -> None:
        with open(self.folder / f"{command[0]}.log", "wb") as log:
            # Its own process group, so that Ctrl-C reaches only the test, which stops the daemons.
            daemon = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.daemons.append(daemon)

    def _await(self, what: str, there) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(subprocess.CalledProcessError):
                if there():
                    return
            time.sleep(0.1)
        raise RuntimeError(f"no {what} within 30 s\n{self.logs()}")


def _free_ports(count: int) -> list[int]:
    """Free ports of the loopback interface."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
