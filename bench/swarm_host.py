"""One host of a swarm: gives chunks and fetches them; or fetches as anybody would, by plain HTTP.

usage: python -m bench.swarm_host give DIR ADDRESS:PORT
       python -m bench.swarm_host fetch DIR INDEX ADDRESS:PORT SOURCE:PORT [NEIGHBOUR:PORT...]
       python -m bench.swarm_host plain URL

It prints "ready", begins when a line comes, and prints what it has done as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
import urllib.request
from pathlib import Path

from mayfly.images.chunks.gather import Crowd, gather
from mayfly.images.chunks.givers import neighbours_of
from mayfly.images.chunks.have import INDEX, open_have
from mayfly.images.chunks.holdings import Holdings
from mayfly.images.chunks.index import parse_index, render
from mayfly.images.chunks.serve import ChunkServer
from mayfly.images.transfer.pace import Meter


def give(directory: Path, address: str) -> None:
    """Give what lies in a directory, until it is ended."""
    serve(directory, address)
    print("ready", flush=True)
    sys.stdin.read()


def serve(directory: Path, address: str) -> None:
    """Give what lies in a directory, in a thread."""
    host, _, port = address.rpartition(":")
    server = ChunkServer((host, int(port)), Holdings(images=(), downloads=directory))
    threading.Thread(target=server.serve_forever, daemon=True).start()


def fetch(directory: Path, index_file: Path, address: str, source: str, *names: str) -> None:
    """Fetch an image in chunks, and give what is here to others meanwhile."""
    index = parse_index(index_file.read_bytes())
    place = directory / f"index-{index.key}"
    place.mkdir(parents=True)
    (place / INDEX).write_text(render(index))
    if names:
        serve(directory, address)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    with open_have(index, place) as have:
        crowd = Crowd(
            source=neighbours_of(index, (source,))[0], neighbours=neighbours_of(index, names)
        )
        found = gather(have, crowd, Meter("x", None))
        seconds = time.monotonic() - began
        print(json.dumps({"seconds": seconds, "fetched": dict(found.fetched)}), flush=True)
        sys.stdin.read()


def plain(url: str) -> None:
    """Fetch a file as a whole, and hash it."""
    print("ready", flush=True)
    sys.stdin.readline()
    began, digest, size = time.monotonic(), hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=600) as answer:  # noqa: S310  # of the bench
        while data := answer.read(1 << 20):
            digest.update(data)
            size += len(data)
    print(json.dumps({"seconds": time.monotonic() - began, "bytes": size}), flush=True)
    sys.stdin.read()


def main(words: list[str]) -> None:
    """Do what was asked for."""
    if words[0] == "give":
        give(Path(words[1]), words[2])
    elif words[0] == "fetch":
        fetch(Path(words[1]), Path(words[2]), words[3], words[4], *words[5:])
    else:
        plain(words[1])


if __name__ == "__main__":
    main(sys.argv[1:])
