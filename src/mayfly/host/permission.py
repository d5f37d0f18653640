"""Whether somebody may have a machine: what the lists say of its image, and the site's policy.

Both are files. Here they are read when they have changed, so that a look before each machine costs
as little as asking the file system for their times.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from mayfly.config import Paths
from mayfly.errors import Invalid, MayflyError, Missing, Untrusted
from mayfly.images.catalogue import Catalogue
from mayfly.images.lists.admission import Admission, Signatures, admission, of_several
from mayfly.images.lists.rules import Rule
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Subscription
from mayfly.model import Account, Image, NetworkMode
from mayfly.policy.decide import decide
from mayfly.policy.explain import denied
from mayfly.policy.model import Decision, ImageFacts, Limits, Origin, Policy, Revoked, Trust, Wish
from mayfly.policy.people import Person
from mayfly.policy.reader import read_policy

log = logging.getLogger("mayfly.host")

Signature = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What somebody may have."""

    image: str
    network: NetworkMode
    may_root: bool
    limits: Limits
    notes: tuple[str, ...] = ()
    """What was left out of the wish, and why."""


@dataclass(slots=True, kw_only=True)
class Gate:
    """The files that say what is allowed here, as they are now."""

    policy_file: Path
    site_trust: Path
    own_trust: Path | None = None
    """What a user trusts for images of his own; None where all images are the site's."""
    site_images: Path | None = None
    """Where the site's images are; None: all of them are the site's."""
    trouble: str = ""
    """Why the policy that is there is not the one that holds."""
    _policy: Policy | None = None
    _policy_seen: Signature | None = None
    _lists_seen: Signature | None = None
    _lists: dict[str, tuple[tuple[Subscription, ...], Signatures]] = field(default_factory=dict)
    _blocked: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_policy(self) -> bool:
        """Tell whether the site has written one."""
        # Not as Path does it: where nothing may be looked at, nothing is said.
        return os.path.exists(self.policy_file)

    def policy(self) -> Policy:
        """Give the policy that holds; raises ``Invalid`` when it cannot be read, and never could.

        A mistake in the file must not stop a host: while there is one, the policy before it holds.
        """
        seen = _signature([self.policy_file])
        if self._policy is None or seen != self._policy_seen:
            try:
                self._policy = _read(self.policy_file)
                self.trouble = ""
            except MayflyError as error:
                if self._policy is None:
                    raise
                self.trouble = error.message
                log.warning("the policy before this one goes on: %s", error.message)
            self._policy_seen = seen
        return self._policy

    # --- images ----------------------------------------------------------------------------------

    def state(self) -> Signature:
        """Give what is another thing as soon as a list or the policy is."""
        with _readable():
            return (_lists_signature(self._stores()), _signature([self.policy_file]))

    def admission(self, image: Image, now: datetime) -> Admission:
        """Say what the lists say of an image now."""
        return self.admission_of(image.contents, now, origin=self.origin(image))

    def admission_of(
        self, contents: Iterable[str], now: datetime, *, origin: Origin = Origin.SITE
    ) -> Admission:
        """Say what the lists say now of a disk, and of what it was made of."""
        with _readable():
            self.look()
            return of_several([self._one(each, now, origin) for each in contents])

    def _one(self, sha512: str, now: datetime, origin: Origin) -> Admission:
        key = f"{origin.value} {sha512}"
        if key not in self._lists:
            # A user's own word is good for what he brings along, and for nothing else.
            stores = self._stores() if origin is Origin.USER else self._stores()[:1]
            self._lists[key] = (
                tuple(each for store in stores for each in store.subscriptions(only=sha512)),
                _signatures(stores, sha512),
            )
        lists, signed = self._lists[key]
        return admission(sha512, lists, blocked=self._blocked, now=now, signed=signed)

    def facts(self, image: Image, now: datetime) -> ImageFacts:
        """Give what a policy asks of an image."""
        return facts_of(image, self.admission(image, now), self.origin(image))

    def origin(self, image: Image) -> Origin:
        """Tell whether an image is the site's or somebody's own; where nothing is said, no matter.

        The service has the site's images only.
        """
        if (
            self.site_images is None
            or not self.has_policy
            or image.disk.is_relative_to(self.site_images)
        ):
            return Origin.SITE
        return Origin.USER

    def distrust(self, image: Image, now: datetime) -> Untrusted | None:
        """Give why nobody may run an image now; None when the lists and the policy let it."""
        policy = self.policy()
        found = self.admission(image, now)
        facts = facts_of(image, found, self.origin(image))
        return _distrust(policy, facts, found, said=self.has_policy)

    def distrust_of(self, name: str, contents: Iterable[str], now: datetime) -> Untrusted | None:
        """Give why nobody may go on with an image of the site of which a machine was made."""
        found = self.admission_of(contents, now)
        facts = ImageFacts(name=name, trust=_trust(found))
        return _distrust(self.policy(), facts, found, said=self.has_policy)

    def check(self, image: Image, now: datetime) -> None:
        """Refuse an image that nobody may run now; raises ``Untrusted``."""
        if error := self.distrust(image, now):
            raise error

    # --- people ----------------------------------------------------------------------------------

    def decision(self, person: Person, wish: Wish, here: Catalogue, now: datetime) -> Decision:
        """Decide on a wish for an image; the images that the policy names count, too."""
        policy = self.policy()
        return decide(policy, person, wish, self._known(policy, wish.image, here, now), now)

    def permit(self, person: Person, wish: Wish, here: Catalogue, now: datetime) -> Permit:
        """Give what somebody may have of his wish; raises ``Denied`` or ``Untrusted``."""
        image = here.find(wish.image)
        self.check(image, now)
        if not self.has_policy:
            return Permit(image=wish.image, network=wish.network, may_root=True, limits=Limits())
        decision = self.decision(person, wish, here, now)
        if not decision.allowed:
            raise denied(decision)
        if decision.image != wish.image:
            self.check(here.find(decision.image), now)
        as_root = replace(wish, root=True)
        return Permit(
            image=decision.image,
            network=decision.network,
            may_root=wish.root or self.decision(person, as_root, here, now).allowed,
            limits=decision.limits,
            notes=_less(wish, decision),
        )

    def revoked(self) -> Revoked:
        """Give what becomes of machines whose image is trusted no more."""
        return self.policy().revoked

    def _known(
        self, policy: Policy, wanted: str, here: Catalogue, now: datetime
    ) -> dict[str, ImageFacts]:
        named = {name for each in policy.default for name in (each.image, each.canary) if name}
        found = {}
        for name in {wanted, *named} - {""}:
            try:
                found[name] = self.facts(here.find(name), now)
            except (Missing, Invalid):
                continue  # it is not here; a name of a policy may be none of the catalogue's
        return found

    def _stores(self) -> list[TrustStore]:
        own = [] if self.own_trust is None else [TrustStore(directory=self.own_trust)]
        return [TrustStore(directory=self.site_trust), *own]

    def look(self) -> None:
        """Read again what has changed; raises ``Untrusted`` when it cannot be used."""
        stores = self._stores()
        with _readable():
            seen = _lists_signature(stores)
            if seen != self._lists_seen:
                self._lists_seen = None
                self._blocked = {key: why for each in stores for key, why in each.blocked().items()}
                self._lists.clear()
                self._lists_seen = seen


def _signatures(stores: Iterable[TrustStore], sha512: str) -> Signatures:
    return Signatures(
        seen=tuple(each for store in stores for each in store.signed(sha512)),
        keys=tuple(each for store in stores for each in store.registry_keys()),
    )


def gate_of(paths: Paths) -> Gate:
    """Give the gate that a user's own machines pass."""
    alone = paths.site_images == paths.images
    return Gate(
        policy_file=paths.policy_file,
        site_trust=paths.site_trust,
        own_trust=None if alone else paths.trust,
        site_images=None if alone else paths.site_images,
    )


def person_of(account: Account) -> Person:
    """Give the person that a policy is about."""
    names = [group.name for group in account.groups]
    return Person(user=account.name, groups=tuple(dict.fromkeys([*names, *account.all_groups])))


def facts_of(image: Image, found: Admission, origin: Origin) -> ImageFacts:
    """Give what a policy asks of an image; pure."""
    return ImageFacts(
        name=image.name,
        os=image.os,
        origin=origin,
        trust=_trust(found),
        words="" if found.trusted else str(found.refusals[0]),
        lists=(
            *(name for each in found.vouchers for name in (each.identifier, each.title)),
            *(each.key.name for each in found.keys),
        ),
        endorsers=tuple(
            who.dn
            for each in found.vouchers
            for who in (each.endorser, each.image_endorser)
            if who is not None
        ),
    )


def _trust(found: Admission) -> Trust:
    if found.trusted:
        return Trust.TRUSTED
    unknown = all(refusal.rule is Rule.UNENDORSED for refusal in found.refusals)
    return Trust.UNENDORSED if unknown else Trust.REFUSED


def _distrust(
    policy: Policy, facts: ImageFacts, found: Admission, *, said: bool
) -> Untrusted | None:
    lacking = policy.endorsed and facts.origin is Origin.SITE and facts.trust is Trust.UNENDORSED
    if facts.trust is not Trust.REFUSED and not lacking:
        return None
    error = found.error(facts.name)
    if said:
        return Untrusted(f"{error.message}; {policy.endorsed_line}", hint=error.hint)
    return error


def _less(wish: Wish, decision: Decision) -> tuple[str, ...]:
    """Say what was given otherwise than it was wished for."""
    if wish.network is decision.network and wish.image == decision.image:
        return ()
    return tuple(str(reason) for reason in decision.reasons[:-1])


# --- files ---------------------------------------------------------------------------------------


def _read(file: Path) -> Policy:
    try:
        return read_policy(file)
    except Missing:
        return read_policy(None)


@contextmanager
def _readable() -> Iterator[None]:
    """Let nobody pass when it cannot be seen what is trusted."""
    try:
        yield
    except OSError as error:
        raise Untrusted(
            f"cannot see which image lists are trusted: {error}",
            hint="what lies there must be readable for all; 'mayfly trust show' looks at it",
        ) from error


def _lists_signature(stores: Iterable[TrustStore]) -> Signature:
    files: list[Path] = []
    for store in stores:
        # What is in ``signed`` is only added to: the time of the directory tells.
        files += [store.directory / "blocked.json", store.directory / "signed"]
        try:
            files += _entries(store.directory / "subscriptions")
            files += _entries(store.directory / "registries")
        except PermissionError:
            if os.access(store.directory.parent, os.X_OK):
                raise
            # Nothing of the site's can be had then, its images neither.
    return _signature(files)


def _entries(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []


def _signature(files: Iterable[Path]) -> Signature:
    """Tell files by name, time, size and number: they are replaced, not written to."""
    seen: list[object] = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            seen.append((str(file), None))
            continue
        seen.append((str(file), found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(seen)
