"""A small client of the site server's REST interface; Python's standard library is all it needs.

from mayfly.client import Client
with Client("unix:///run/mayfly-server/server.sock") as site:
    lease = site.create("debian-12", cpus=1, memory_mib=512, for_s=8 * 3600)
"""

from mayfly.client.api import Client, Event, Image, Lease, Me

__all__ = ["Client", "Event", "Image", "Lease", "Me"]
