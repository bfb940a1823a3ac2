"""Makes one method of a flow: blocking in a `Foxhound`, asynchronous in an `AsyncFoxhound`.

A group of methods is written once. Which of both a method is follows from the group's transport, for the type checker
too. The module sends nothing.
"""

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from foxhound_client.sending import Policy
from foxhound_client.steps import Flow, Items
from foxhound_client.transports import Awaiting, Blocking

P = ParamSpec("P")
T = TypeVar("T")
Transport = TypeVar("Transport", Blocking, Awaiting)


class Group(Generic[Transport]):
    """Methods that share a transport."""

    def __init__(self, transport: Transport, policy: Policy) -> None:
        """Send with a transport; retry by a policy."""
        self._transport: Transport = transport
        self._policy = policy


class operation(Generic[P, T]):
    """A method that returns what a flow returns."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        """Run `flow`."""
        self.flow = flow
        functools.update_wrapper(self, flow)  # type: ignore[arg-type]

    @overload
    def __get__(self, group: Group[Blocking], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, group: Group[Awaiting], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, group: Any, owner: type) -> Any:
        """Return the method of a group."""
        if group is None:
            return self.flow

        @functools.wraps(self.flow)
        def call(*args: Any, **options: Any) -> Any:
            return group._transport.run(self.flow(group, *args, **options))

        return call


class iteration(Generic[P, T]):
    """A method that yields the items of a flow."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Items[T]]) -> None:
        """Iterate over `flow`."""
        self.flow = flow
        functools.update_wrapper(self, flow)  # type: ignore[arg-type]

    @overload
    def __get__(self, group: Group[Blocking], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, group: Group[Awaiting], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, group: Any, owner: type) -> Any:
        """Return the method of a group."""
        if group is None:
            return self.flow

        @functools.wraps(self.flow)
        def call(*args: Any, **options: Any) -> Any:
            return group._transport.iterate(self.flow(group, *args, **options))

        return call
