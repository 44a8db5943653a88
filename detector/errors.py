"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """Something that came from outside - a file, an option, a config - is not usable.

    The message is one sentence for the user: it names the file or option, the value found, and
    what to do. Tools print it without a traceback and exit with status 2.
    """
