"""Which tokens may come next: small pure objects that a sampler asks, and their conjunction."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Protocol

import numpy as np

# V vocabulary

REMEMBERED = 100_000
"""States whose allowed tokens are kept; beyond, all are forgotten and found again."""


class TokenConstraint(Protocol):
    """A language over tokens, as an automaton without side effects.

    A constraint that knows what is to come allows a token only if the text can still be ended: it has no dead ends.
    One that does not (`stoppable` true) allows the end token in every state.
    """

    stoppable: bool
    """Whether the end token is allowed in every state, so that a conjunction with others has no dead end."""

    def start(self) -> Hashable:
        """The state before the first token."""
        ...

    def allowed(self, state: Any) -> np.ndarray:
        """Tokens that may come next, (V,) bool."""
        ...

    def advance(self, state: Any, token: int) -> Hashable:
        """The state after an allowed token other than the end."""
        ...


class AllowedTokens:
    """The same tokens in every state.

    Args:
        allowed_V: (V,) bool; the end token must be among them.
        end: the end token.
    """

    stoppable = True

    def __init__(self, allowed_V: np.ndarray, end: int) -> None:
        if not allowed_V[end]:
            raise ValueError("the end token is always allowed")
        self._allowed_V = allowed_V

    def start(self) -> Hashable:
        """No state."""
        return None

    def allowed(self, state: Any) -> np.ndarray:  # noqa: ARG002 (every state)
        """The given tokens."""
        return self._allowed_V

    def advance(self, state: Any, token: int) -> Hashable:  # noqa: ARG002 (every state)
        """No state."""
        return None


class TokenLimit:
    """At most so many tokens of a set.

    Args:
        counted_V: (V,) bool, without the end token.
        most: how many of them a text may have.
    """

    stoppable = True

    def __init__(self, counted_V: np.ndarray, most: int) -> None:
        self._counted_V, self._most = counted_V, most
        self._others_V, self._all_V = ~counted_V, np.ones_like(counted_V)

    def start(self) -> Hashable:
        """Number of counted tokens so far."""
        return 0

    def allowed(self, state: Any) -> np.ndarray:
        """Everything below the limit, then the tokens that are not counted."""
        return self._all_V if state < self._most else self._others_V

    def advance(self, state: Any, token: int) -> Hashable:
        """One more if the token counts."""
        return state + int(self._counted_V[token])


class Conjunction:
    """What all of several constraints allow. At most one of them may forbid to stop, or there could be dead ends."""

    def __init__(self, parts: Iterable[TokenConstraint]) -> None:
        self._parts = tuple(parts)
        if sum(not part.stoppable for part in self._parts) > 1:
            raise ValueError("two constraints that forbid to stop can contradict each other")
        self.stoppable = all(part.stoppable for part in self._parts)

    def start(self) -> Hashable:
        """The states of the parts."""
        return tuple(part.start() for part in self._parts)

    def allowed(self, state: Any) -> np.ndarray:
        """Tokens that every part allows."""
        masks = [part.allowed(own) for part, own in zip(self._parts, state, strict=True)]
        return np.logical_and.reduce(masks)

    def advance(self, state: Any, token: int) -> Hashable:
        """Every part by itself."""
        return tuple(part.advance(own, token) for part, own in zip(self._parts, state, strict=True))


class Continued:
    """What a constraint allows after given tokens.

    Args:
        constraint: any.
        state: of that constraint, after these tokens.
    """

    def __init__(self, constraint: TokenConstraint, state: Hashable) -> None:
        self._constraint, self._state = constraint, state
        self.stoppable = constraint.stoppable

    def start(self) -> Hashable:
        """The given state."""
        return self._state

    def allowed(self, state: Any) -> np.ndarray:
        """As the constraint's."""
        return self._constraint.allowed(state)

    def advance(self, state: Any, token: int) -> Hashable:
        """As the constraint's."""
        return self._constraint.advance(state, token)


class Remembering:
    """The same constraint, which looks every state up at most once (until there are too many of them)."""

    def __init__(self, constraint: TokenConstraint, most: int = REMEMBERED) -> None:
        self._constraint, self._most = constraint, most
        self.stoppable = constraint.stoppable
        self._allowed: dict[Hashable, np.ndarray] = {}
        self._next: dict[tuple[Hashable, int], Hashable] = {}

    def start(self) -> Hashable:
        """As the constraint's."""
        return self._constraint.start()

    def allowed(self, state: Any) -> np.ndarray:
        """As the constraint's."""
        found = self._allowed.get(state)
        if found is None:
            if len(self._allowed) >= self._most:
                self._allowed.clear()
            found = self._allowed[state] = self._constraint.allowed(state)
        return found

    def advance(self, state: Any, token: int) -> Hashable:
        """As the constraint's."""
        key = (state, token)
        if key not in self._next:
            if len(self._next) >= self._most:
                self._next.clear()
            self._next[key] = self._constraint.advance(state, token)
        return self._next[key]
