"""What a grid job asks for, and the same as a line of a local job's script.

BLAH, which HTCondor-CE and CREAM submit with, knows the requirements of a job as variables when it
sources ``/etc/blahp/SYSTEM_local_submit_attributes.sh``; what that prints goes into the job's
script. Everything here was written by a stranger: only plain signs pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mayfly.batch.spelling import PREFIX, SEPARATOR, options_in
from mayfly.batch.wish import OPTIONS, parse_wish
from mayfly.errors import Invalid, MayflyError

GLUE = "GlueHostApplicationSoftwareRunTimeEnvironment"
"""In which sites say what they have: an image as ``vm_NAME`` (GLUE 1.3)."""
GLUE_MOST = 9
ATTRIBUTES: Mapping[str, str] = {f"VM{name.capitalize()}": name for name in OPTIONS}
NAMES = (
    *ATTRIBUTES,
    *(PREFIX + name for name in (*OPTIONS, "name")),
    GLUE,
    *(f"{GLUE}_{number}" for number in range(1, GLUE_MOST + 1)),
)
"""Variables that are looked at."""
REFUSED = "no-such-request"
"""The image of a job whose request cannot be understood: it is refused, not run without."""
_PLAIN = re.compile(r"[A-Za-z0-9@._:+,/=-]{0,1000}")
_TAG = re.compile(r"[\s,;\"']+")
_FLAGS = ("root", "keep")


def options_from(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the options that a grid job asks for; raises ``Invalid``.

    Own attributes (``VMImage``) go before names (``vm_image``), and these before tags of GLUE.
    """
    tagged = _tagged(environ)
    named = options_in({name: _bare(value) for name, value in environ.items()})
    own = {
        name: _bare(environ[attribute]).replace(SEPARATOR, ",")
        for attribute, name in ATTRIBUTES.items()
        if environ.get(attribute)
    }
    found = {name: value for name, value in {**tagged, **named, **own}.items() if value}
    for name, value in found.items():
        if not _PLAIN.fullmatch(value):
            raise Invalid(f"the job's {name} has signs that it may not have: {value[:60]!r}")
    parse_wish(found)
    return found


def _bare(text: str) -> str:
    """Give a value without the quotes of a ClassAd's string."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _tagged(environ: Mapping[str, str]) -> dict[str, str]:
    tags = [
        tag
        for name, value in environ.items()
        if name.partition("_")[0] == GLUE
        for tag in _TAG.split(value[:10_000])
        if tag.startswith(PREFIX)
    ]
    images = list(dict.fromkeys(tag.removeprefix(PREFIX) for tag in tags))
    if len(images) > 1:
        raise Invalid(f"the job asks for several images: {', '.join(images)[:100]}")
    return {"image": images[0]} if images else {}


# --- the local option ----------------------------------------------------------------------------


def _slurm(options: Mapping[str, str]) -> list[str]:
    lines = []
    for name, value in options.items():
        if name not in _FLAGS:
            lines.append(f"#SBATCH --vm-{name}={value}")
        elif parse_wish({name: value}) != parse_wish({}):
            lines.append(f"#SBATCH --vm-{name}")
    return lines


def _listed(options: Mapping[str, str]) -> list[str]:
    """Give ``vm_NAME=VALUE``, of which commas separate several."""
    return [f"{PREFIX}{name}={value.replace(',', SEPARATOR)}" for name, value in options.items()]


def _condor(options: Mapping[str, str]) -> list[str]:
    return [f'+VM{name.capitalize()} = "{value}"' for name, value in options.items()]


def _lsf(options: Mapping[str, str]) -> list[str]:
    words = ",".join(f"{name}={value.replace(',', SEPARATOR)}" for name, value in options.items())
    return [f'#BSUB -a "mayfly({words})"']


DIRECTIVES: Mapping[str, Callable[[Mapping[str, str]], list[str]]] = {
    "slurm": _slurm,
    "sge": lambda options: [f"#$ -ac {','.join(_listed(options))}"],
    "pbs": lambda options: [f"#PBS -l {each}" for each in _listed(options)],
    "torque": lambda options: [f"#PBS -v {','.join(_listed(options))}"],
    "lsf": _lsf,
    "condor": _condor,
}
"""BLAH's name of a batch system; its ``pbs`` may be either of two."""


def directives(system: str, environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Give the lines for a local job's script, and what is wrong with the request, if something.

    Raises ``Invalid`` for an unknown batch system only: a request that is wrong becomes one that
    the batch system refuses.
    """
    if system not in DIRECTIVES:
        raise Invalid(f"there is no '{system[:40]}'", hint=f"known: {', '.join(DIRECTIVES)}")
    wrong = ""
    try:
        options = options_from(environ)
    except MayflyError as error:
        options, wrong = {"image": REFUSED}, error.message
    return DIRECTIVES[system](options) if options else [], wrong
