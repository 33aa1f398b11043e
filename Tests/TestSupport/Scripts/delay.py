"""A long way between two network namespaces: a TUN device in each, and packets that take their time.

Usage: delay.py MILLISECONDS NAMESPACE DEVICE NAMESPACE DEVICE

The namespaces are named as ip-netns(8) does, the time is that of one way. Says "ready" when both
devices are there, and ends when its input ends.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001


def open_device(namespace, name):
    """Enters the namespace: a device belongs to that in which it is made."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as place:
        if libc.setns(place.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    return device


def main():
    seconds = float(sys.argv[1]) / 1000
    one, other = (open_device(*sys.argv[at : at + 2]) for at in (2, 4))
    across = {one: other, other: one}
    # When it is due, where it goes, what it is. All take as long: the first in is the first out.
    under_way = collections.deque()
    print("ready", flush=True)
    while True:
        wait = max(0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([*across, sys.stdin], [], [], wait)
        if sys.stdin in readable and not os.read(sys.stdin.fileno(), 4096):
            return
        for device in across:
            if device in readable:
                due = time.monotonic() + seconds
                under_way.append((due, across[device], os.read(device, 65536)))
        while under_way and under_way[0][0] <= time.monotonic():
            _, device, packet = under_way.popleft()
            os.write(device, packet)


main()
