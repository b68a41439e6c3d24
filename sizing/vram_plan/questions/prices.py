"""What hardware costs, as the person who asks says: no price is shipped, none is guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ..errors import UsageError
from ..hardware import Device, match_gpu
from ..values import dataclass

__all__ = ["Price", "Prices", "parse_prices"]

_AMOUNT: Final = re.compile(r"\s*([$€£¥]?)\s*(\d{1,9}(?:\.\d{1,4})?)\s*([$€£¥]?)\s*(?:/|per\s+)?\s*(h|hour|month|)\s*", re.IGNORECASE)
_HINT: Final = 'write it as "H100=2.1/h" or "RTX 3090=700"'


@dataclass(frozen=True, slots=True)
class Price:
    """`amount` in `currency` ("" where none was said), `per` "h", "month" or "" (to buy)."""

    amount: float
    currency: str
    per: str

    def __str__(self) -> str:
        return f"{self.currency}{self.amount:,.2f}".removesuffix(".00") + (f"/{self.per}" if self.per else "")

    def per_million(self, tokens_per_s: float) -> float | None:
        """What a million tokens cost at this rate; None for what is bought."""
        hours = {"h": 1.0, "month": 730.0}.get(self.per)
        return self.amount / hours / (tokens_per_s * 3600) * 1e6 if hours and tokens_per_s > 0 else None


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by the catalogue's name of a card."""

    of: tuple[tuple[str, Price], ...]

    def total(self, devices: Sequence[Device]) -> Price | None:
        """The machine's price, None where one of its cards has none."""
        known = dict(self.of)
        prices = [known.get(device.spec.name if device.spec else device.name) for device in devices]
        if not prices or any(price is None for price in prices):
            return None
        shares = [1 / device.spec.gpus_per_card if device.spec else 1.0 for device in devices]
        first = next(price for price in prices if price)
        return Price(sum(p.amount * share for p, share in zip(prices, shares, strict=True) if p), first.currency, first.per)


def parse_prices(given: Mapping[str, str | float] | Sequence[str]) -> Prices:
    """`{"H100": "2.1/h"}` or `["H100=2.1/h"]`. Raises UsageError, also where some are by the hour and some to buy."""
    pairs = [(str(k), str(v)) for k, v in given.items()] if isinstance(given, Mapping) else [_pair(text) for text in given]
    prices = tuple((match_gpu(name).spec.name, _price(name, text)) for name, text in pairs)
    if len({(price.currency, price.per) for _, price in prices}) > 1:
        raise UsageError("the prices are not all of one kind", "give all by the hour, by the month or to buy, in one currency")
    return Prices(prices)


def _pair(text: str) -> tuple[str, str]:
    name, equals, amount = text.rpartition("=")
    if not equals or not name.strip():
        raise UsageError(f"the price {text[:60]!r} names no card", _HINT)
    return name.strip(), amount


def _price(name: str, text: str) -> Price:
    match = _AMOUNT.fullmatch(text)
    if not match:
        raise UsageError(f"the price {text[:40]!r} of {name[:40]} was not understood", _HINT)
    before, amount, after, per = match.groups()
    return Price(float(amount), before or after, per.lower().removesuffix("our"))
