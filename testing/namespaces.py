"""Namespaces of one process, which a test can change: files of `/etc`, and a network. Linux only, as root."""

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
    """Move this process into namespaces of its own; it must have one thread only."""
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
    """A network namespace, connected to this one by a virtual Ethernet pair.

    Attributes:
        name: Its name.
        here: Address of this side of the pair.
    """

    name: str
    here: str

    def unplug(self) -> None:
        """Drop every packet, without an error at either side."""
        run("ip", "link", "set", f"{self.name}a", "down")

    def plug_in(self) -> None:
        """Forward packets again."""
        run("ip", "link", "set", f"{self.name}a", "up")


@contextmanager
def networked() -> Iterator[Network]:
    """Create a network for the duration of the block; skip the test where that is not permitted."""
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
    """Run a command that needs root, or skip the test with the reason."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root for: {' '.join(command)}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot be done here: {' '.join(command)}: {done.stderr.strip()}")


def run(*command: str) -> None:
    """Run a command; it must succeed."""
    subprocess.run(command, check=True, capture_output=True)
