"""Errors of Lightning and of jsonargparse about what a user has typed, in one line."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_fabric.utilities.exceptions import MisconfigurationException

from lightning_cnn.errors import UserError


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns errors of Lightning and jsonargparse about user input into `UserError`."""
    try:
        yield
    except UserError as error:  # or one of its kinds
        # one from a process that reads ahead comes with its traceback
        raise type(error)(re.split(r"(?:User|Storage)Error: ", str(error))[-1].strip()) from None
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split()).replace("`", "'")) from None  # in backticks stand our settings
    except (TypeError, ValueError) as error:  # jsonargparse wraps what a constructor raises
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise UserError(str(cause)) from None
        text = " ".join(str(error).split()).replace("`", "'")
        if found := re.search(r"Errors: - (?:Problem with given class_path '[^']+': )?(.+?)(?= - [NE]\w+ a |$)", text):
            name = re.search(r"class_path='([^']+)'", text)
            raise UserError(f"{name[1] if name else 'a part'} can't be made: {found[1][:300]}") from None
        if isinstance(error, ValueError) and _is_lightnings(error):
            raise UserError(text) from None
        raise


def _is_lightnings(error: Exception) -> bool:
    """Whether Lightning itself has raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith(("pytorch_lightning.", "lightning_fabric."))
