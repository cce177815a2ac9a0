"""The one exception that users meet."""


class ActcliError(ValueError):
    """A problem that the user can act on.

    The message says what was found, what is allowed and what to do next. Commands print it and exit with code 1.
    """
