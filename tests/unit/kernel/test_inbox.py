"""The inbox stays sound when the objects that it drops run code of their own."""

from __future__ import annotations

from mcast import kernel


class _Chatty(Exception):
    """Looks into its inbox, and puts something there, while it is being freed."""

    def __init__(self, inbox: kernel.Inbox, seen: list[int]) -> None:
        self._inbox = inbox
        self._seen = seen

    def __del__(self) -> None:
        self._seen.append(len(self._inbox))
        self._seen.append(len(self._inbox.get_many(10)))
        self._inbox.put([b"late"])


def test_who_is_freed_by_clear_finds_an_empty_inbox_and_what_it_puts_there_stays() -> None:
    inbox = kernel.Inbox()
    seen: list[int] = []
    inbox.put([b"first", b"second"])
    assert inbox.get_many(1) == [b"first"]  # so that a place in a list is remembered
    inbox.put_error(_Chatty(inbox, seen))
    inbox.put([b"third"])
    inbox.clear()
    assert seen == [0, 0]
    assert inbox.get_many(10) == [b"late"]
    assert len(inbox) == 0
