"""Surroundings of a process's own, which a test may change under it: files of `/etc`, and a network. Linux, as root."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000


def enter(*, etc: Path | None, network: str | None) -> None:
    """Move this process, which has one thread yet, into surroundings of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if etc is not None:
        assert libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        run("mount", "--make-rprivate", "/")
        for path in etc.iterdir():
            run("mount", "--bind", str(path), f"/etc/{path.name}")
    if network is not None:
        descriptor = os.open(f"/var/run/netns/{network}", os.O_RDONLY)
        assert libc.setns(descriptor, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(descriptor)


@dataclass(frozen=True)
class Network:
    """A network namespace, joined to this one by a cable.

    Attributes:
        name: Its name.
        here: This side's address, as the other one sees it.
    """

    name: str
    here: str

    def unplug(self) -> None:
        """Let every packet be lost, without a word to anybody."""
        run("ip", "link", "set", f"{self.name}a", "down")

    def plug_in(self) -> None:
        """Let packets through again."""
        run("ip", "link", "set", f"{self.name}a", "up")


@contextmanager
def networked() -> Iterator[Network]:
    """Make a network for the length of the block; skips the test where that is not allowed."""
    number = os.getpid() % 65_536
    network = Network(f"fox{number:x}", f"10.213.{number % 256}.1")
    may_do("ip", "netns", "add", network.name)
    try:
        may_do("ip", "link", "add", f"{network.name}a", "type", "veth", "peer", "name", f"{network.name}b")
        run("ip", "link", "set", f"{network.name}b", "netns", network.name)
        run("ip", "address", "add", f"{network.here}/30", "dev", f"{network.name}a")
        network.plug_in()
        inside = ("ip", "-n", network.name)
        run(*inside, "address", "add", f"10.213.{number % 256}.2/30", "dev", f"{network.name}b")
        run(*inside, "link", "set", f"{network.name}b", "up")
        run(*inside, "link", "set", "lo", "up")
        yield network
    finally:
        run("ip", "netns", "del", network.name)


def may_do(*command: str) -> None:
    """Run a command that needs root, or skip the test and say why."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root for: {' '.join(command)}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot be done here: {' '.join(command)}: {done.stderr.strip()}")


def run(*command: str) -> None:
    """Run a command that has to succeed."""
    subprocess.run(command, check=True, capture_output=True)
