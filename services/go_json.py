"""What Go's encoding/json says of text that is no JSON.

Clients see these words in the answers of the gateway.  It is only asked about text that Python's parser has refused,
so that it may be slow; it gives up where there is too much to go through.  Spec: RFC 8259 for the syntax.
"""

from __future__ import annotations

import re

STEPS_MAX = 50_000
"""So many values and escapes are gone through; text with more of them before its fault gets a plainer answer.  Long
strings are one step: most large bodies are a few values."""

NESTED_MAX = 10_000

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[0-9]*")
_HEX = "0123456789abcdefABCDEF"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_GO_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    "'": "\\'",
    '"': '"',
}


class _Fault(Exception):  # noqa: N818 - never leaves this module
    """What is wrong."""


class _TooMuch(Exception):  # noqa: N818 - never leaves this module
    """Going on would keep others waiting."""


class _Ended(Exception):  # noqa: N818 - never leaves this module
    """The text ends too early."""


def explain(text: str, start: int, end_text: str) -> str:
    """Say what is wrong with the JSON value at *start*; *end_text* if it just ends too early.

    For text that is in order up to the end of the value it speaks of what comes after it.
    """
    scanner = _Scanner(text, start)
    try:
        scanner.value("looking for beginning of value", 0)
        scanner.space()
        if scanner.position < len(text):
            scanner.refuse("after top-level value")
    except _Fault as fault:
        return str(fault)
    except _TooMuch:
        return "invalid JSON"
    except (_Ended, RecursionError) as error:
        return end_text if isinstance(error, _Ended) else "exceeded max depth"
    return end_text


class _Scanner:
    """Goes through text and raises at the first character that cannot be."""

    def __init__(self, text: str, position: int) -> None:
        self._text = text
        self.position = position
        self._steps_left = STEPS_MAX

    def space(self) -> None:
        """Pass over white space."""
        self.position = self._after(_SPACE)

    def refuse(self, where: str) -> None:
        """Say that the character here cannot be."""
        raise _Fault(f"invalid character {quoted(self._text[self.position])} {where}")

    def value(self, where: str, depth: int) -> None:
        """Pass over one value."""
        self._step()
        self.space()
        character = self._peek()
        if character == "{":
            self._object(depth + 1)
        elif character == "[":
            self._array(depth + 1)
        elif character == '"':
            self._string()
        elif character == "-" or character.isdigit():
            self._number()
        elif character in _LITERALS:
            self._literal(_LITERALS[character])
        else:
            self.refuse(where)

    def _peek(self) -> str:
        if self.position >= len(self._text):
            raise _Ended
        return self._text[self.position]

    def _after(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self.position)
        assert match is not None, pattern
        return match.end()

    def _object(self, depth: int) -> None:
        if depth > NESTED_MAX:
            raise _Fault("exceeded max depth")
        self.position += 1
        self.space()
        if self._peek() == "}":
            self.position += 1
            return
        while True:
            self.space()
            if self._peek() != '"':
                self.refuse("looking for beginning of object key string")
            self._string()
            self.space()
            if self._peek() != ":":
                self.refuse("after object key")
            self.position += 1
            self.value("looking for beginning of value", depth)
            self.space()
            if self._peek() == "}":
                self.position += 1
                return
            if self._peek() != ",":
                self.refuse("after object key:value pair")
            self.position += 1

    def _array(self, depth: int) -> None:
        if depth > NESTED_MAX:
            raise _Fault("exceeded max depth")
        self.position += 1
        self.space()
        if self._peek() == "]":
            self.position += 1
            return
        while True:
            self.value("looking for beginning of value", depth)
            self.space()
            if self._peek() == "]":
                self.position += 1
                return
            if self._peek() != ",":
                self.refuse("after array element")
            self.position += 1

    def _string(self) -> None:
        self.position += 1
        while True:
            self.position = self._after(_PLAIN)
            character = self._peek()
            self.position += 1
            if character == '"':
                return
            if character != "\\":
                self.position -= 1
                self.refuse("in string literal")
            self._escape()

    def _step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise _TooMuch

    def _escape(self) -> None:
        self._step()
        escaped = self._peek()
        if escaped == "u":
            for _ in range(4):
                self.position += 1
                if self._peek() not in _HEX:
                    self.refuse("in \\u hexadecimal character escape")
        elif escaped not in 'bfnrt\\/"':
            self.refuse("in string escape code")
        self.position += 1

    def _number(self) -> None:
        if self._peek() == "-":
            self.position += 1
            if self._peek() not in "0123456789":
                self.refuse("in numeric literal")
        if self._peek() == "0":
            self.position += 1
        else:
            self.position = self._after(_DIGITS)
        if self.position < len(self._text) and self._text[self.position] == ".":
            self.position += 1
            self._digits("after decimal point in numeric literal")
        if self.position < len(self._text) and self._text[self.position] in "eE":
            self.position += 1
            if self._peek() in "+-":
                self.position += 1
            self._digits("in exponent of numeric literal")

    def _digits(self, where: str) -> None:
        if self._peek() not in "0123456789":
            self.refuse(where)
        self.position = self._after(_DIGITS)

    def _literal(self, word: str) -> None:
        for expected in word:
            if self._peek() != expected:
                self.refuse(f"in literal {word} (expecting {quoted(expected)})")
            self.position += 1


def quoted(character: str) -> str:
    """Return *character* as Go quotes it in a message."""
    shown = _GO_ESCAPES.get(character)
    if shown is None:
        shown = character if character.isprintable() else f"\\x{ord(character):02x}"
    return f"'{shown}'"
