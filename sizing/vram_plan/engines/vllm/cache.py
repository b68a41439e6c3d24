"""vLLM's KV cache: layers in groups that share block tables, the bytes of one block, and the blocks one request takes.

All groups draw blocks of one size from one pool. Source: vLLM 0.32.0, v1/core/kv_cache_utils.py (get_kv_cache_groups,
get_kv_cache_config_from_groups, get_max_concurrency_for_kv_cache_config), run against the same code for the tests.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from ...models.model import Model
from ...values import dataclass
from .specs import WHOLE, CacheSetup, Spec, layer_specs

__all__ = ["Group", "Layout", "cache_layout", "grouped", "largest_length"]


@dataclass(frozen=True, slots=True)
class Group:
    """Layers whose blocks are handed out together. `specs` has one entry per layer (and cache of it)."""

    specs: tuple[Spec, ...]

    @property
    def page(self) -> int:
        return sum(spec.page for spec in self.specs)

    def blocks(self, context: int, in_flight: int) -> int:
        return max(spec.blocks(context, in_flight) for spec in self.rules)

    @property
    def rules(self) -> tuple[Spec, ...]:
        """One spec for each way of counting blocks."""
        return tuple({(s.kind, s.block, s.window, s.fixed): s for s in self.specs}.values())


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """The groups, and `bytes_per_block`: what one block takes on one rank that holds all layers.

    `block_size` is the tokens of a block as the log prints them: the smallest of all groups.
    """

    groups: tuple[Group, ...]
    bytes_per_block: int
    block_size: int
    rules: tuple[tuple[Spec, ...], ...]

    def blocks_per_request(self, context: int, in_flight: int) -> int:
        """Blocks a request of `context` tokens takes of the pool, summed over the groups."""
        total = 0
        for rules in self.rules:
            total += max([rule.blocks(context, in_flight) for rule in rules])
        return total

    def stage_bytes(self, layers: range) -> int:
        """Bytes of one block on a pipeline stage that holds only these layers."""
        return max((sum(spec.page for spec in group.specs if spec.layer in layers) for group in self.groups), default=0)


@lru_cache(maxsize=1024)
def cache_layout(model: Model, setup: CacheSetup) -> Layout | None:
    """The layout of a model's cache; None where no layer keeps anything."""
    specs = layer_specs(model, setup)
    if not specs:
        return None
    groups = tuple(grouped(specs))
    return Layout(
        groups,
        max(group.page for group in groups),
        min(spec.block for group in groups for spec in group.specs),
        tuple(group.rules for group in groups),
    )


def largest_length(blocks: Callable[[int], int], limit: int, available: int) -> int:
    """The longest request, up to `limit` tokens, whose blocks are no more than `available`; 0 when not even one token's are."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if blocks(middle) <= available:
            low = middle
        else:
            high = middle - 1
    return low


def grouped(specs: list[Spec]) -> list[Group]:
    """One group where all layers hold the same tokens; else groups of one kind and (padded) the same size."""
    if _uniform(specs):
        return [Group(tuple(specs))]
    if any(spec.kind == "latent_window" for spec in specs) and len({spec.page for spec in specs}) > 1:
        return _packed(specs)
    unified = _unify_pages(specs)
    return [Group(tuple(unified))] if _uniform(unified) else _equal_groups(unified)


def _uniform(specs: Sequence[Spec]) -> bool:
    """Whether all need the same blocks: full attention of any width, or one window, or one kind of state."""
    first = specs[0]
    if any(spec.block != first.block for spec in specs):
        return False
    if all(spec.kind in WHOLE for spec in specs):
        return True
    return all((spec.kind, spec.window, spec.fixed) == (first.kind, first.window, first.fixed) for spec in specs)


def _unify_pages(specs: list[Spec]) -> list[Spec]:
    """All pages as large as the largest: by more tokens in a block where that divides, else by padding.

    Latent caches cannot be padded; beside windows that do not divide, vLLM keeps the windows' layers whole.
    """
    largest = max(spec.page for spec in specs)
    found = []
    for spec in specs:
        if spec.page == largest or spec.kind == "state":
            found.append(replace(spec, page=largest))
        elif largest % spec.page == 0:
            found.append(replace(spec, page=largest, block=spec.block * (largest // spec.page)))
        elif spec.kind in ("latent", "index", "latent_window"):
            return [replace(s, kind="full", window=0) if s.kind == "sliding" else s for s in specs]
        else:
            found.append(replace(spec, page=largest))
    return found


def _equal_groups(specs: list[Spec]) -> list[Group]:
    """Groups of as many layers as the rarest kind has (the commonest, where that is less than half as many again)."""
    kinds: dict[object, list[Spec]] = defaultdict(list)
    for spec in specs:
        kinds[spec.key].append(spec)
    fewest, most = min(map(len, kinds.values())), max(map(len, kinds.values()))
    size = most if most < 1.5 * fewest else fewest
    found = []
    for members in kinds.values():
        count = -(-len(members) // size)
        found += [Group(tuple(members[i::count])) for i in range(count)]
    return found


def _packed(specs: list[Spec]) -> list[Group]:
    """DeepSeek V4: pages of several sizes side by side in a block, the groups cut so that least is wasted.

    Kinds with as many layers of every page size are cut into equal numbers of layers; others stay whole.
    """
    buckets: list[list[Spec]] = []
    for spec in specs:
        for bucket in buckets:
            if _uniform([bucket[0], spec]):
                bucket.append(spec)
                break
        else:
            buckets.append([spec])
    sizes = [Counter(spec.page for spec in bucket) for bucket in buckets]
    balanced = [len(set(size.values())) == 1 for size in sizes]
    repeats = [max(size.values()) for size in sizes]
    least = max((n for n, size, even in zip(repeats, sizes, balanced, strict=True) if even and len(size) > 1), default=0)
    cut = _least_padding([n for n, even in zip(repeats, balanced, strict=True) if even], least) if least else 0
    found = []
    for bucket, count, even in zip(buckets, repeats, balanced, strict=True):
        groups = -(-count // cut) if even and cut else 1
        by_page: dict[int, list[Spec]] = defaultdict(list)
        for spec in bucket:
            by_page[spec.page].append(spec)
        found += [Group(tuple(s for members in by_page.values() for s in members[i::groups])) for i in range(groups)]
    return found


def _least_padding(values: list[int], least: int) -> int:
    """The size from `least` to the largest value that pads all values least when they are rounded up to it; ties: the largest."""
    return min(range(least, max(values) + 1), key=lambda size: (sum(-value % size for value in values), -size))
