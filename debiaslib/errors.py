"""The one error a user can mend."""


class InputError(ValueError):
    """Something given from outside is wrong: the message says what, where, and what to do. Exit code 2."""
