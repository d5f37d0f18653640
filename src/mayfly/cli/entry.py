"""Where ``mayfly`` begins: a run asks for its machine first, and reads its words meanwhile."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    early = None
    if sys.argv[1:2] == ["run"]:
        from mayfly.host.early import ask_early  # noqa: PLC0415 - nothing else needs it

        early = ask_early(sys.argv[2:])
    # What it imports takes as long as a claim.
    from mayfly.cli.main import main as read_all  # noqa: PLC0415

    read_all(early)


if __name__ == "__main__":
    main()
