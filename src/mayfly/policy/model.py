"""The nouns of a policy: what a site wrote, who wishes what, and what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from mayfly.model import NetworkMode
from mayfly.policy.people import Who


class Mode(StrEnum):
    """What a default image is to the jobs that it is for."""

    OFFER = "offer"
    """For those who ask for a machine and name no image."""
    DEFAULT = "default"
    """For all who do not say otherwise."""
    FORCE = "force"
    """For all, whatever they say."""
    OFF = "off"
    """No machine for any of them."""


class OldImages(StrEnum):
    """What becomes of an image past its end of life."""

    NO_NETWORK = "no-network"
    AS_USUAL = "as-usual"
    DENY = "deny"


class Revoked(StrEnum):
    """What becomes of machines whose image was taken back."""

    MARK = "mark"
    """They go on, and are shown."""
    DRAIN = "drain"
    """Jobs end in them, no new one begins."""
    KILL = "kill"


class Origin(StrEnum):
    """Where an image comes from."""

    SITE = "site"
    USER = "user"
    """Somebody brought it along."""


class Trust(StrEnum):
    """What the lists that a site trusts say of an image."""

    TRUSTED = "trusted"
    UNENDORSED = "unendorsed"
    REFUSED = "refused"
    """Revoked, expired, blocked: never."""


class Ask(StrEnum):
    """What a job says about machines."""

    NOTHING = "nothing"
    MACHINE = "machine"
    """A machine, whichever image."""
    IMAGE = "image"
    NATIVE = "native"
    """Expressly no machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A place in a policy."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one machine may have; 0: no limit."""

    machines: int = 0
    """Of one user at once."""
    cpus: int = 0
    memory_mib: int = 0
    time_s: float = 0.0


# --- what a site wrote ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Whom and which images a rule is for."""

    line: Line
    who: tuple[Who, ...]
    images: tuple[str, ...]
    lists: tuple[str, ...] = ()
    """Identifiers or titles; empty: any, or none."""
    endorsers: tuple[str, ...] = ()
    """DNs; empty: any, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Something is allowed."""

    rule: Rule
    networks: tuple[NetworkMode, ...] = (NetworkMode.NONE,)
    root: bool = False
    shares: bool = True
    end_of_life: OldImages = OldImages.NO_NETWORK
    user_images: bool = False
    """Whether it is about images that users bring along: about those only, then."""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """Something is denied, whatever else allows it."""

    rule: Rule
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """An image for those who name none."""

    line: Line
    who: tuple[Who, ...]
    mode: Mode
    image: str = ""
    canary: str = ""
    """A newer image, for a part of them."""
    canary_percent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOfLife:
    """When what is of this name ends; ``None``: never."""

    line: Line
    pattern: str
    ends_on: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All that a site says."""

    line: Line
    endorsed_line: Line
    endorsed: bool = True
    """Whether an image needs a list that vouches for it."""
    revoked: Revoked = Revoked.MARK
    allow: tuple[Allow, ...] = ()
    deny: tuple[Deny, ...] = ()
    default: tuple[Default, ...] = ()
    end_of_life: tuple[EndOfLife, ...] = ()


# --- what is asked, and the answer ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants."""

    ask: Ask = Ask.NOTHING
    image: str = ""
    network: NetworkMode = NetworkMode.NONE
    network_asked: bool = False
    """Whether he asked for it himself: then he is refused rather than given less."""
    root: bool = False
    shares: bool = False
    """Whether directories of the host are to be seen in the machine."""
    cpus: int = 1
    memory_mib: int = 0
    time_s: float = 0.0
    """0: not said."""
    machines: int = 0
    """Those that he has already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an image."""

    name: str
    os: str = ""
    """As in ``debian 12``."""
    origin: Origin = Origin.SITE
    trust: Trust = Trust.UNENDORSED
    words: str = ""
    """Why it is not trusted."""
    lists: tuple[str, ...] = ()
    """Identifiers and titles of the lists that vouch for it."""
    endorsers: tuple[str, ...] = ()
    """DNs of those who signed the lists, and the image."""
    end_of_life: date | None = None
    """As its endorser says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that was decided, and the line that decided it."""

    text: str
    line: Line

    def __str__(self) -> str:
        return f"{self.line}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to a wish."""

    allowed: bool
    reasons: tuple[Reason, ...]
    """In the order in which they were come by; the last one decided."""
    image: str = ""
    """Empty, when it is allowed: the job runs without a machine."""
    network: NetworkMode = NetworkMode.NONE
    root: bool = False
    shares: bool = False
    limits: Limits = Limits()
