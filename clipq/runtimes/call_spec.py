"""How an exported program is called: which of its inputs are named, and what its outputs are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipq.errors import ArtifactError

__all__ = ["CallSpec", "leaves_of"]


@dataclass(frozen=True, slots=True)
class CallSpec:
    """What torch writes beside a program as two trees of types.

    Args:
        positional: how many inputs are given by place.
        keywords: names of the others, in order.
        outputs: keys of a dictionary that it returns; () where it returns none.
    """

    positional: int
    keywords: tuple[str, ...]
    outputs: tuple[str, ...]

    @staticmethod
    def parse(inputs: str, outputs: str) -> CallSpec:
        """Return what two trees say, each as JSON of torch's `treespec_dumps`.

        Raises:
            ArtifactError: they are of an unknown form, or an input is a structure of others.

        >>> leaf = {"type": None, "context": None, "children_spec": []}
        >>> none = {"type": "builtins.tuple", "context": "null", "children_spec": []}
        >>> named = {"type": "builtins.dict", "context": '["pixels"]', "children_spec": [leaf]}
        >>> taken = {"type": "builtins.tuple", "context": "null", "children_spec": [none, named]}
        >>> CallSpec.parse(json.dumps([1, taken]), json.dumps([1, leaf]))
        CallSpec(positional=0, keywords=('pixels',), outputs=())
        """
        try:
            by_place, by_name = json.loads(inputs)[1]["children_spec"]
            given = [*by_place["children_spec"], *by_name["children_spec"]]
            nested = any(each["type"] is not None for each in given)
            keywords, keys = _keys(by_name), _keys(json.loads(outputs)[1])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ArtifactError(
                f"how the program is called is written in an unknown form: {error!r}",
                hint="export it with the torch that is installed",
            ) from error
        if nested:
            raise ArtifactError(
                "the program takes tensors inside of a list or dictionary",
                hint="export a module whose forward takes images or tokens themselves",
            )
        return CallSpec(len(by_place["children_spec"]), keywords, keys)

    def arguments(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return inputs in order as what a call takes.

        >>> CallSpec(1, ("mask",), ()).arguments(["tokens", "ones"])
        (('tokens',), {'mask': 'ones'})
        """
        named = zip(self.keywords, leaves[self.positional :], strict=True)
        return tuple(leaves[: self.positional]), dict(named)


def leaves_of(result: Any) -> Iterator[Any]:
    """Yield what a program returns, in order, out of tuples and dictionaries.

    >>> list(leaves_of({"embeds": 1, "hidden": (2, 3)}))
    [1, 2, 3]
    """
    if isinstance(result, Mapping):
        result = tuple(result.values())
    if isinstance(result, list | tuple):
        for each in result:
            yield from leaves_of(each)
    else:
        yield result


def _keys(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a dictionary's keys; of a subclass too, whose context holds them somewhere."""
    context = json.loads(tree["context"]) if isinstance(tree["context"], str) else None
    children = len(tree["children_spec"])
    for found in (context, *(context if isinstance(context, list) else ())):
        texts = isinstance(found, list) and all(isinstance(each, str) for each in found)
        if texts and children and len(found) == children:
            return tuple(found)
    return ()
