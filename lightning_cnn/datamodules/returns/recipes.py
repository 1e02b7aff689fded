"""The recipes of monthly returns: what each sets where nothing else is said."""

from typing import Any, Literal

from lightning_cnn.errors import check_choice

Recipe = Literal["point_in_time", "book"]

FLAWS = ("clip_with_test", "full_history", "fill_forward", "validate_on_test")
RECIPES: dict[str, dict[str, Any]] = {
    "point_in_time": {"embargo": 1, "scale": True, "max_jumps": 1, **dict.fromkeys(FLAWS, False)},
    "book": {"embargo": 0, "scale": False, "max_jumps": 2**31 - 1, **dict.fromkeys(FLAWS, True)},
}


def settings(recipe: Recipe, **given: Any) -> dict[str, Any]:
    """What is given, and else what the recipe sets.

    Raises:
        UserError: If there is no such recipe.
    """
    check_choice("data.recipe", recipe, RECIPES)
    return RECIPES[recipe] | {name: value for name, value in given.items() if value is not None}
