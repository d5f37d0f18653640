"""Where measurements are taken, and how often each is repeated."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.client import MAYFLY, REPOSITORY, BenchError, Child, Children, environment
from mayfly.config import Paths, load_settings
from mayfly.engine.template import Engine, Template, find_template
from mayfly.errors import Missing
from mayfly.images.build.builder import build
from mayfly.images.build.farm.blueprint import Blueprint
from mayfly.images.build.recipe import find_recipe
from mayfly.model import Image, Shape
from mayfly.wiring import catalogue_of, engine_for

IMAGE = "debian-12"
STOCK = "stock-12"
BENCH_IMAGE = "bench-12"
"""Made for the benches: Debian 12 with fio, iperf3 and a kernel that knows emulated devices."""
BENCH_RECIPE = replace(
    find_recipe("debian-12"), packages=("fio", "iperf3"), kernel="linux-image-amd64"
)
BUILD_LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often, and how much."""

    pairs: int
    cold_boots: int
    bursts: int
    burst: int
    clones: int
    stream_mib: int
    passes: int
    files: int
    leftovers: int
    backend_rounds: int
    backend_s: float
    hot: int
    sustained_s: float
    crowd: int
    inside: int
    saves: int
    reverts: int


FULL = Counts(
    pairs=21,
    cold_boots=3,
    bursts=3,
    burst=25,
    clones=40,
    stream_mib=1024,
    passes=3,
    files=15,
    leftovers=200,
    backend_rounds=5,
    backend_s=1.0,
    hot=200,
    sustained_s=300.0,
    crowd=100,
    inside=9,
    saves=7,
    reverts=9,
)
QUICK = Counts(
    pairs=3,
    cold_boots=1,
    bursts=1,
    burst=4,
    clones=3,
    stream_mib=64,
    passes=1,
    files=3,
    leftovers=12,
    backend_rounds=1,
    backend_s=0.5,
    hot=6,
    sustained_s=20.0,
    crowd=12,
    inside=1,
    saves=1,
    reverts=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a measurement works with."""

    home: Path
    children: Children
    counts: Counts
    say: Callable[[str], None]

    def start(
        self, *words: str, stdin: int = subprocess.DEVNULL, stdout: int | None = None
    ) -> Child:
        """Start ``mayfly`` with these words."""
        return self.children.start([str(MAYFLY), *words], stdin=stdin, stdout=stdout)

    def run(self, *words: str, limit_s: float = 600.0) -> float:
        """Run ``mayfly`` to its end, which must be a success; gives the seconds it took."""
        with self.children.done(self.start(*words), limit_s) as child:
            return child.seconds

    def engine(self) -> Engine:
        """Give the engine that ``mayfly`` uses here."""
        paths = Paths.for_user({"MAYFLY_HOME": str(self.home)})
        return engine_for(paths, load_settings(paths.config_files))[0]

    def warm(self, image: str = IMAGE) -> tuple[Engine, Template, Image]:
        """Have the image and its template, in memory; gives all three."""
        engine, found = self.engine(), self.image(image)
        self.say(f"warming up {image}")
        for _ in range(2):
            self.run("run", image, "--no-workdir", "--", "true")
        settings = engine.settings
        shape = Shape(cpus=settings.cpus, memory_mib=settings.memory_mib)
        template = find_template(engine, found, shape)
        if template is None:
            raise BenchError(f"'mayfly run {image}' made no template in {engine.paths.templates}")
        return engine, template, found

    def image(self, name: str) -> Image:
        """Have an image; it is made when it is missing."""
        catalogue = catalogue_of(Paths.for_user({"MAYFLY_HOME": str(self.home)}))
        try:
            return catalogue.find(name)
        except Missing:
            self.say(f"making image {name}")
            self._make(name)
            return catalogue.find(name)

    def _make(self, image: str) -> None:
        if image == BENCH_IMAGE:
            catalogue = catalogue_of(Paths.for_user({"MAYFLY_HOME": str(self.home)}))
            build(Blueprint(recipe=BENCH_RECIPE, name=image), catalogue)
            return
        if image != STOCK:
            self.run("image", "build", image, limit_s=BUILD_LIMIT_S)
            return
        with self.directory() as work:
            disk = str(work / f"{image}.qcow2")
            words = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable]
            words += ["-m", "tests.material.stock_cloud_image", disk]
            with self.children.done(self.children.start(words), BUILD_LIMIT_S):
                self.run("image", "import", disk, "--name", image, limit_s=BUILD_LIMIT_S)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Give a directory on the same disk as the home; it is gone at the end."""
        with tempfile.TemporaryDirectory(prefix="mayfly-bench-", dir=self.home.parent) as name:
            yield Path(name)


def home_of_tests() -> Path:
    """Give the home that the tests keep warm; MAYFLY_HOME names another."""
    cache = os.environ.get("MAYFLY_TEST_CACHE", "/var/tmp/mayfly-test-cache")  # noqa: S108
    return Path(os.environ.get("MAYFLY_HOME") or f"{cache}/home").absolute()


@contextlib.contextmanager
def open_setting(home: Path, counts: Counts, say: Callable[[str], None]) -> Iterator[Setting]:
    """Give a setting; what it started is ended at the end."""
    home.mkdir(parents=True, exist_ok=True)
    with Children(environment(home)) as children:
        yield Setting(home=home, children=children, counts=counts, say=say)
