"""Text as UTF-8 files can hold it."""


def replace_surrogates(text: str) -> str:
    """`text` as UTF-8 can encode it: a pair of surrogates becomes its character, a lone one a single U+FFFD.

    JSON and Windows file names can carry surrogates; no UTF-8 file can.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def count_bytes(text: str) -> int:
    """Bytes of `text` in UTF-8, after `replace_surrogates`."""
    return len(text) if text.isascii() else len(replace_surrogates(text).encode())


def unix_newlines(text: str) -> str:
    """`text` with `\\n` for every `\\r\\n` and every other `\\r`."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters, for use in another one; its type where it is
    empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def duration(seconds: float) -> str:
    """Seconds in the two largest units that are not 0: 2 min 23 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    units = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join([f"{count} {unit}" for count, unit in units if count][:2]) or "less than a second"
