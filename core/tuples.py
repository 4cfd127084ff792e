"""Named tuples made quickly, where every put makes them.

Calling the class of a NamedTuple goes through a function of Python's own making, compiled or not, which takes most
of the time.  What is made so must have all fields, in their order: mypy does not see that.
"""

from __future__ import annotations

from typing import Final

make_tuple: Final = tuple.__new__
"""``make_tuple(Kind, (first, second))`` is ``Kind(first, second)``."""
