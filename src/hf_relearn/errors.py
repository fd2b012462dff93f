"""Format an error as one line, for commands and recipes."""


def one_line(error: BaseException) -> str:
    """Format an error as one line. One that our code does not raise on purpose is named by its type."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    message = " ".join(message.split()) or "no reason was given"
    expected = isinstance(error, (ValueError, OSError, KeyError, ImportError))
    return message if expected else f"{type(error).__name__}: {message}"
