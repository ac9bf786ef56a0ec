"""``Context(metrics=":9404")``: the counters for Prometheus, by HTTP.

Owns the thread that serves them, and how a counter is named: ``mcast_NAME_total``, a gauge
``mcast_NAME``, with the labels ``socket`` (its number), ``type`` and ``endpoint``. The text is
made by prometheus-client. Invariant: between two scrapes nothing runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Final

from mcast.errors import OptionError, TransportError
from mcast.net.http import PageServer, parse_address
from mcast.runtime import counters
from mcast.runtime.deadline import Deadline
from mcast.runtime.status import Description

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["LABELS", "Metrics", "Sample", "families", "metric_text"]

LABELS: Final = ("socket", "type", "endpoint")
"""Of each value of a context; ``mcast stat --prometheus`` puts ``pid`` in front."""

Sample = tuple[tuple[str, ...], dict[str, int | float]]
"""The values of the labels, and the counters that bear them."""


class Metrics:
    """Serves the counters of a context until ``close``. Any thread."""

    def __init__(self, text: str, describe: Callable[[], Description]) -> None:
        """``text`` is the address. ``describe`` is called in the server's thread.

        Raises: OptionError for what is no address, or without prometheus-client;
        TransportError if the address cannot be had.
        """
        address = parse_address(text)
        client = _client()
        registry = client.CollectorRegistry()
        registry.register(_Collector(describe))
        try:
            self._server = PageServer(address, client.make_wsgi_app(registry), _start_clock)
        except (OSError, OverflowError) as error:
            number = error.errno if isinstance(error, OSError) else None
            raise TransportError(
                number,
                f"metrics={text!r}: {address[0]} port {address[1]} cannot be had ({error});"
                " another process may have it: choose another port, or ':0' for any",
            ) from None
        host, port = self._server.server_address[:2]
        self.address = f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"
        """Where it is served."""
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name="mcast-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more. Does not block and takes no lock; a second call does nothing."""
        if self._is_open:
            self._is_open = False
            self._server.stop()

    def join(self, timeout: float) -> None:
        """Wait until the port is free, up to ``timeout`` seconds."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def abandon(self) -> None:
        """In a forked child: the thread is the parent's, the port as well."""
        self._is_open = False
        self._server.socket.close()

    def _run(self) -> None:
        try:
            while self._is_open:
                self._server.handle_request()
        finally:
            self._server.server_close()


class _Collector:
    """What a registry asks at each scrape."""

    def __init__(self, describe: Callable[[], Description]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """One family for each counter."""
        samples: list[Sample] = []
        for socket in self._describe():
            endpoints, counts = socket["endpoints"], socket["counters"]
            assert isinstance(endpoints, list)
            assert isinstance(counts, dict)
            values = (str(socket["number"]), str(socket["type"]), " ".join(endpoints))
            samples.append((values, counts))
        return families(LABELS, samples)


def families(
    labels: tuple[str, ...], samples: Iterable[Sample]
) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    """The samples by counter, in the order in which counters are first seen.

    The reasons of ``malformed_REASON`` and ``send_error_ERRNO`` become a label ``reason``.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    texts = counters.all_descriptions()
    found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for values, counts in samples:
        for full_name, count in counts.items():
            name, reason = counters.split_reason(full_name)
            family = found.get(name)
            if family is None:
                make = GaugeMetricFamily if counters.is_gauge(name) else CounterMetricFamily
                names = (*labels, "reason") if reason else labels
                shown = f"{name}econds" if name.endswith("_s") else name
                family = found[name] = make(
                    f"mcast_{shown}", texts.get(name, "A counter of mcast."), labels=names
                )
            family.add_metric((*values, reason) if reason else values, count)
    return iter(found.values())


def _client() -> ModuleType:
    try:
        import prometheus_client
    except ImportError:
        raise OptionError(
            "metrics for Prometheus need prometheus-client: pip install mcast[metrics]"
        ) from None
    return prometheus_client


def _start_clock(limit_s: float) -> Callable[[], float]:
    deadline = Deadline(limit_s)
    return lambda: deadline.left or 0.0


def metric_text(labels: tuple[str, ...], samples: Iterable[Sample]) -> bytes:
    """The samples in Prometheus' text format.

    Raises: OptionError without prometheus-client.
    """
    client = _client()
    registry = client.CollectorRegistry()
    made = list(families(labels, samples))

    class Given:
        def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
            return iter(made)

    registry.register(Given())
    text: bytes = client.generate_latest(registry)
    return text
