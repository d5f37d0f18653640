"""Pull an image in chunks, where its list's server has an index: only what is new is fetched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from mayfly.errors import MayflyError, Missing, Untrusted
from mayfly.images.chunks.assemble import Assembled, assembled
from mayfly.images.chunks.gather import Crowd
from mayfly.images.chunks.givers import neighbours_of, web_giver
from mayfly.images.chunks.index import INDEX_MOST, Index
from mayfly.images.chunks.publish import CONTENT, INDEX
from mayfly.images.chunks.shelf import Shelf
from mayfly.images.chunks.signed import open_index
from mayfly.images.importer import import_file
from mayfly.images.lists.admission import Voucher
from mayfly.images.lists.authorities import Anchors
from mayfly.images.lists.signers import SignerRules
from mayfly.images.pull import Pull, Puller
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.source import Source, WebSource
from mayfly.model import Image
from mayfly.units import show_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """Whom an index is believed, and who else is asked for chunks."""

    voucher: Voucher
    anchors: Anchors
    rules: SignerRules
    neighbours: tuple[str, ...]
    """As HOST:PORT."""
    downloads: Downloads
    note: Callable[[str], None] = lambda text: None


def find_index(source: Source, chunking: Chunking, now: datetime) -> Index | None:
    """Give the index that lies beside an image file; None when there is none that holds."""
    if not isinstance(source, WebSource):
        return None
    beside = replace(source, uri=source.uri + INDEX)
    try:
        message = _small(beside)
    except Missing:
        return None
    except MayflyError as error:
        chunking.note(f"no index of chunks: {error.message}")
        return None
    try:
        index = open_index(message, chunking.voucher, chunking.anchors, chunking.rules, now)
    except Untrusted as error:
        chunking.note(f"{error.message}: the whole file is fetched")
        return None
    content = replace(source, uri=source.uri + CONTENT)
    if not _gives_parts(content, index):
        chunking.note(f"{content.uri}: there are no parts of files: the whole file is fetched")
        return None
    return index


def _gives_parts(content: WebSource, index: Index) -> bool:
    """Tell whether a server knows ``Range``: not every one does."""
    last = index.content_bytes - 1
    with contextlib.suppress(MayflyError), content.open(last, "") as offer:
        return offer.start == last
    return True


def _small(source: WebSource) -> bytes:
    data = bytearray()
    with source.open(0, "") as offer:
        while len(data) <= INDEX_MOST and (more := offer.read(1 << 20)):
            data += more
    return bytes(data)


def pull_chunks(puller: Puller, pull: Pull, index: Index, chunking: Chunking) -> Image:
    """Put an image together from chunks and admit it."""
    if (here := puller.find_here(pull)) is not None:
        return here
    assert isinstance(pull.source, WebSource)
    puller.make_room(index.content_bytes)
    shelf = Shelf(catalogue=puller.catalogue)
    crowd = Crowd(
        source=web_giver(index, pull.source.uri + CONTENT, pull.source.rules),
        neighbours=neighbours_of(index, chunking.neighbours),
        note=chunking.note,
    )
    with assembled(pull.name, index, crowd, chunking.downloads, shelf, puller.terms.watch) as got:
        if (here := puller.find_here(pull)) is not None:
            return here
        chunking.note(_told(index, got))
        origin = replace(
            pull.origin, sha512=pull.sha512, derived=(f"put together from index {index.key}",)
        )
        image = import_file(
            got.disk,
            pull.name,
            puller.catalogue,
            origin,
            existing=puller.existing,
            report=puller.report,
        )
        shelf.put(image, index)
    shelf.sweep()
    return image


def _told(index: Index, got: Assembled) -> str:
    """Say how much came from where."""
    parts = [f"{show_size(count)} from {name}" for name, count in got.gathered.fetched.items()]
    here = f"{show_size(got.local_bytes)} of {show_size(index.content_bytes)} were here"
    return "; ".join([here, *sorted(parts)])
