"""What a user or a group may have at once, and whether one more machine fits."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mayfly.site.lease import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Machines, CPUs and memory; as a limit, 0 means none."""

    machines: int = 0
    cpus: int = 0
    memory_mib: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """Give both together."""
        return Amounts(
            machines=self.machines + other.machines,
            cpus=self.cpus + other.cpus,
            memory_mib=self.memory_mib + other.memory_mib,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """Limits of each user and of each group."""

    user: Amounts = Amounts(machines=20)
    group: Amounts = Amounts()


def need_of(spec: Spec) -> Amounts:
    """Give what a machine counts for."""
    return Amounts(machines=1, cpus=spec.shape.cpus, memory_mib=spec.shape.memory_mib)


def lacking(held: Amounts, need: Amounts, limit: Amounts) -> str:
    """Say what is more than the limit, in words; empty: it fits."""
    total = held.plus(need)
    over = [
        f"{getattr(held, each.name)} of {getattr(limit, each.name)} {_WORDS[each.name]} are held, "
        f"{getattr(need, each.name)} more are wanted"
        for each in fields(Amounts)
        if 0 < getattr(limit, each.name) < getattr(total, each.name)
    ]
    return "; ".join(over)


_WORDS = {"machines": "machines", "cpus": "CPUs", "memory_mib": "MiB of memory"}
