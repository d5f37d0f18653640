"""What a useful core-hour costs at an offer."""

from __future__ import annotations

import math

from mayfly.planner.model import Offer, Rules

HOUR_S = 3600.0
JOBS_MOST = 1024
"""Jobs side by side on one machine, beyond which more make no difference."""


def refusal_of(offer: Offer, rules: Rules) -> str:
    """Tell why an offer's own figures make it useless; empty when they are sound."""
    price = offer.price_hour
    if price is None:
        return "no price is known"
    if not math.isfinite(price) or price < 0:
        return f"a price of {price} is no price"
    if price > rules.price_most_hour:
        return (
            f"a price of {price:g} an hour is taken for a mistake (above {rules.price_most_hour:g})"
        )
    if offer.shape.cpus < 1 or offer.shape.memory_mib < 0:
        return f"a machine of {offer.shape.cpus} CPUs is none"
    spans = (offer.boot_s, offer.billing_least_s, offer.image_s, offer.interruptions_hour)
    if not all(math.isfinite(each) and each >= 0 for each in spans):
        return "its times are no times"
    if not math.isfinite(offer.billing_step_s) or offer.billing_step_s <= 0:
        return f"nobody can bill in steps of {offer.billing_step_s} s"
    if not math.isfinite(offer.weight_hour):
        return f"a weight of {offer.weight_hour} is no weight"
    return ""


def billed_s(offer: Offer, held_s: float) -> float:
    """Give the seconds that are paid for when a machine is held for so long."""
    if held_s <= offer.billing_least_s:
        return offer.billing_least_s
    return math.ceil(held_s / offer.billing_step_s - 1e-9) * offer.billing_step_s


def paid_until(offer: Offer, launched_at: float, now: float) -> float:
    """Give the time up to which a machine that is there now is paid for anyhow."""
    return launched_at + max(billed_s(offer, max(0.0, now - launched_at)), offer.billing_least_s)


def hour_price(offer: Offer, rules: Rules) -> float:
    """Give what an hour is worth to the site: the price, and its energy or carbon."""
    return (offer.price_hour or 0.0) + rules.weight_price * offer.weight_hour


def useful_share(offer: Offer, run_s: float) -> float:
    """Give the part of the computing that is not lost to interruptions.

    A job that is interrupted begins anew. At a rate r, one of length t takes (exp(rt) - 1) / r.
    """
    risk = offer.interruptions_hour * run_s / HOUR_S
    if risk < 1e-9:
        return 1.0
    return 0.0 if risk > 50 else risk / math.expm1(risk)


def drained_share(jobs: int, run_s: float, use_s: float) -> float:
    """Give the part of a machine's held core-time that jobs use, with so many jobs side by side.

    When demand falls, a machine takes no more jobs and is held until the last of them has ended.
    Of n that end at random, the last ends after 1 + 1/2 + ... + 1/n times their mean. So small
    machines are used better, the more so the longer the jobs.
    """
    longest = run_s * sum(1.0 / each for each in range(1, min(jobs, JOBS_MOST) + 1))
    return (use_s + run_s) / (use_s + longest) if use_s + longest > 0 else 1.0


def core_hour_cost(
    offer: Offer, rules: Rules, *, image: str, used: tuple[int, int], run_s: float
) -> float:
    """Give the cost of a useful core-hour.

    ``used``: how many jobs a machine would run at once, and on how many of its CPUs.
    """
    jobs, cpus = used
    use_s = rules.use_s
    if offer.interruptions_hour > 0:
        use_s = min(use_s, HOUR_S / offer.interruptions_hour)
    boot_s = offer.boot_s + (0.0 if image in offer.images else offer.image_s)
    share = useful_share(offer, run_s) * drained_share(jobs, run_s, use_s)
    useful_h = cpus * use_s / HOUR_S * share
    if useful_h <= 0:
        return math.inf
    return hour_price(offer, rules) * billed_s(offer, boot_s + use_s) / HOUR_S / useful_h
