"""The recipes of monthly returns: what each sets where nothing else is said."""

from typing import Any, Literal

Recipe = Literal["honest", "book"]

FLAWS = ("clip_with_test", "full_history", "fill_forward", "validate_on_test")
RECIPES: dict[str, dict[str, Any]] = {
    "honest": {"embargo": 1, "scale": True, "max_jumps": 1, **dict.fromkeys(FLAWS, False)},
    "book": {"embargo": 0, "scale": False, "max_jumps": 2**31 - 1, **dict.fromkeys(FLAWS, True)},
}


def settings(recipe: Recipe, **given: Any) -> dict[str, Any]:
    """What is given, and else what the recipe sets."""
    return RECIPES[recipe] | {name: value for name, value in given.items() if value is not None}
