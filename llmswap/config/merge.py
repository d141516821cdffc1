"""Several config sources into one tree, by llama-swap's rules for `-config` with `-config-dir`."""

from llmswap.config.issues import Issues, dotted
from llmswap.config.source import Source
from llmswap.config.tree import Map, Path, Seq, Tree

# Mappings whose keys are identities: the same key in two sources is a mistake, not a merge.
IDENTITY_MAPS: frozenset[Path] = frozenset(
    {
        ("models",),
        ("groups",),
        ("profiles",),
        ("selectors",),
        ("peers",),
        ("matrix",),
        ("routing", "router", "settings", "groups"),
        ("routing", "router", "settings", "matrix"),
    }
)


def merge(sources: list[Source], issues: Issues) -> Source:
    """Merge in order: mappings recurse, sequences concatenate, scalars must agree, null yields."""
    whole = Source()
    for source in sources:
        whole.root = _maps(whole.root, source.root, (), issues)
        whole.anchored |= source.anchored
    return whole


def _maps(one: Map, other: Map, path: Path, issues: Issues) -> Map:
    if not one:
        return other
    result = Map()
    for key, value in one.items():
        result.put(key, value, one.places[key])
    for key, value in other.items():
        if key not in result:
            result.put(key, value, other.places[key])
            continue
        first, place = result.places[key], other.places[key]
        if path in IDENTITY_MAPS:
            issues.error_at(
                place, (*path, key), f"duplicate {path[-1]} '{key}': it is also in {first.file}:{first.line}; keep one"
            )
        elif result[key] is None:
            result.put(key, value, place)
        elif value is not None and (problem := _clash(result[key], value)):
            message = f"conflict at '{dotted((*path, key))}': {problem} in {first.file}:{first.line}"
            issues.error_at(place, (*path, key), message)
        elif isinstance(value, Map):
            result[key] = _maps(result[key], value, (*path, key), issues)
        elif isinstance(value, Seq):
            result[key] = _seqs(result[key], value)
    return result


def _clash(one: Tree, other: Tree) -> str | None:
    kinds = (Map, Seq)
    if any(isinstance(one, kind) != isinstance(other, kind) for kind in kinds):
        return "incompatible YAML node kinds, it is of another kind"
    if not isinstance(one, kinds) and (type(one) is not type(other) or one != other):
        return "it has another value"
    return None


def _seqs(one: Seq, other: Seq) -> Seq:
    result = Seq()
    for source in (one, other):
        for item, place in zip(source, source.places, strict=True):
            result.put(item, place)
    return result
