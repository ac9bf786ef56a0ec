"""``mcast perf`` without a network: criteria, URLs, sums, and what the ends count."""

from __future__ import annotations

import argparse
import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from mcast.cli import main, perf, perf_ends, perf_load, perf_report, perf_sockets
from mcast.errors import EndpointError, OptionError

CONTROL = struct.Struct("=2sxxIQ")
STAMP = struct.Struct("=2s6xQ")


def load(**changes: Any) -> perf_load.Load:
    return perf_load.Load(
        **{"url": "epgm://lo;239.192.7.1:1", "options": {}, "context": {}, **changes}
    )


class Sub:
    """Hands out what it was given, like a subscriber socket whose queue is full already."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.waiting = list(messages)

    def recv(self) -> bytes:
        return self.waiting.pop(0)

    def recv_many(self, count: int) -> list[bytes]:
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


class Watch:
    done = 0


def tally_of(messages: Sequence[bytes], *, chunk: int = 4, batch: int = 1) -> Any:
    tally = perf_ends._Tally(Sub(messages))  # type: ignore[arg-type]
    tally.begin(CONTROL.pack(b"\xffS", chunk, 20))
    take = perf_ends._take_batches if batch > 1 else perf_ends._take_singly
    take(load(batch=batch), tally, Watch())  # type: ignore[arg-type]
    return tally


def data(count: int) -> list[bytes]:
    return [b"x" * 20] * count


def ends(count: int, sent: int) -> list[bytes]:
    return [CONTROL.pack(b"\xffE", number, sent) for number in range(count)]


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("sent", [1, 3, 4, 5, 8, 30])
def test_every_message_that_came_is_counted(sent: int, batch: int) -> None:
    tally = tally_of(data(sent) + ends(12, sent), batch=batch)
    assert (tally.received, tally.missing) == (sent, 0)


@pytest.mark.parametrize("batch", [1, 5])
def test_missing_messages_are_counted_exactly(batch: int) -> None:
    tally = tally_of(data(25) + ends(12, 30), batch=batch)
    assert (tally.received, tally.missing) == (25, 5)


def test_missing_end_counts_as_missing_message() -> None:
    tally = tally_of(data(30) + ends(12, 30)[2:])
    assert tally.missing == 2


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_each_stamped_message_gives_a_delay(batch: int) -> None:
    chunk = [*data(3), STAMP.pack(b"xT", 1) + b"xxxx"]
    tally = tally_of(chunk * 5 + ends(12, 20), batch=batch)
    expected = 5 if batch <= 4 else tally.taken // batch
    assert len(tally.delays_ns) >= min(expected, 2)
    assert all(delay > 0 for delay in tally.delays_ns)


def test_stamp_displaced_by_a_loss_is_not_a_delay() -> None:
    chunk = [*data(3), STAMP.pack(b"xT", 1) + b"xxxx"]
    assert tally_of((chunk * 5)[1:] + ends(12, 20)).delays_ns == []


def test_percentiles_are_right_to_three_digits() -> None:
    report = perf_load.delays_report(range(1_000, 1_001_000, 1_000), "latency")
    assert report["latency_p50_s"] == pytest.approx(500e-6, rel=2e-3)
    assert report["latency_p99_s"] == pytest.approx(990e-6, rel=2e-3)
    assert report["latency_max_s"] == pytest.approx(1e-3, rel=2e-3)


def test_jitter_is_the_mean_change_between_neighbours() -> None:
    assert perf_load.delays_report([1000, 3000, 2000], "delay")["jitter_s"] == pytest.approx(1.5e-6)


def test_no_delays_give_no_percentiles() -> None:
    report = perf_load.delays_report([], "delay")
    assert report["delay_p50_s"] is None
    assert report["jitter_s"] is None


def test_delay_beyond_the_histogram_counts_as_its_limit() -> None:
    report = perf_load.delays_report([10**18], "delay")
    assert report["delay_max_s"] == pytest.approx(perf_load.LATENCY_LIMIT_S, rel=2e-3)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("messages_per_s>1e6", ("messages_per_s", ">", 1e6)),
        ("loss==0", ("loss", "==", 0.0)),
        (" latency_p99_s <= 50e-6 ", ("latency_p99_s", "<=", 50e-6)),
        ("sent>=3", ("sent", ">=", 3.0)),
        ("jitter_s<1", ("jitter_s", "<", 1.0)),
    ],
)
def test_criterion_is_read(text: str, parts: perf_report.Criterion) -> None:
    assert perf_report.criterion(text) == parts


@pytest.mark.parametrize("text", ["", "loss", "loss=0", ">3", "loss<", "loss<many", "a b<1"])
def test_malformed_criterion_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        perf_report.criterion(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [("a>1", True), ("a>2", False), ("a>=2", True), ("a<2", False), ("a<=2", True), ("a==2", True)],
)
def test_criterion_is_judged(text: str, holds: bool) -> None:
    assert (perf_report.unmet([perf_report.criterion(text)], {"a": 2}) == []) is holds


def test_criterion_on_what_was_not_measured_is_unmet() -> None:
    assert perf_report.unmet([("delay_p50_s", "<", 1.0)], {"delay_p50_s": None}) != []
    assert perf_report.unmet([("delay_p50_s", "<", 1.0)], {}) != []


def test_unmet_criterion_says_what_was_found() -> None:
    assert perf_report.unmet([("sent", ">", 5.0)], {"sent": 3}) == ["sent>5, and it is 3"]


def test_pong_answers_on_the_next_port() -> None:
    assert perf_sockets.reply_url("epgm://lo;239.192.7.1:5572") == "epgm://lo;239.192.7.1:5573"


def test_pong_of_the_last_port_answers_on_the_one_before() -> None:
    assert perf_sockets.reply_url("epgm://lo;239.192.7.1:65535") == "epgm://lo;239.192.7.1:65534"


def test_pong_of_a_path_answers_beside_it() -> None:
    assert perf_sockets.reply_url("ipc:///tmp/perf") == "ipc:///tmp/perf.reply"


def test_reply_of_no_url_is_an_endpoint_error() -> None:
    with pytest.raises(EndpointError):
        perf_sockets.reply_url("nowhere")


def test_report_shows_readers_units() -> None:
    text = perf_report.report_line(
        {"loss": 0.01, "delay_p50_s": 25e-6, "cpu_s_per_message": 2e-7, "messages_per_s": 1e6}
    )
    rows = dict(line.split() for line in text.splitlines())
    assert rows == {
        "loss": "1.0000%",
        "delay_p50_us": "25.0",
        "cpu_ns_per_message": "200",
        "messages_per_s": "1,000,000",
    }


def test_report_leaves_out_what_was_not_measured() -> None:
    assert "jitter" not in perf_report.report_line({"sent": 1, "jitter_s": None})


def test_chunk_is_short_where_the_rate_is_low() -> None:
    assert load(size=1000, options={"rate": 8e5}).chunk == 5
    assert load(size=1 << 20, options={"rate": 1e5}).chunk == 1


def test_chunk_is_a_batch_where_batches_are_sent() -> None:
    assert load(batch=1000, options={"rate": 1e5}).chunk == 1000


@pytest.mark.parametrize("rate", [None, math.inf, 1e10])
def test_chunk_is_long_where_the_rate_is_not(rate: float | None) -> None:
    options = {} if rate is None else {"rate": rate}
    assert load(options=options).chunk == perf_load.CHUNK_COUNT


@pytest.mark.parametrize(("rate", "count"), [(1e6, 100), (2e7, 1953), (math.inf, 100_000)])
def test_paced_publisher_queues_no_more_than_a_moment(rate: float, count: int) -> None:
    assert perf._short_queue({"rate": rate}, 64) == count


def test_loop_that_this_build_lacks_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="loop='sideways'"):
        load(context={"loop": "sideways"}).open_context()


@pytest.mark.parametrize(
    "arguments",
    [
        ["throughput", "--require", "latency_p50_s<1"],
        ["throughput", "--require", "speed"],
        ["throughput", "--size", "0"],
        ["throughput", "--count", "1", "--duration", "1"],
        ["latency", "--rate", "1G"],
        ["sub"],
        ["pub", "udp://lo;239.192.1.1:5555"],
        ["pub", "inproc://here"],
        ["sub", "tcp://*:5555"],
        ["sub", "tcp://127.0.0.1:*", "--bind"],
        ["pub", "epgm://lo;239.192.1.1:5555", "--bind"],
        ["throughput", "--type", "push"],
        ["throughput", "tcp://127.0.0.1:5555", "--type", "push", "--sockets", "2"],
        ["sub", "tcp://127.0.0.1:5555", "--bind", "--sockets", "2"],
        ["sub", "tcp://127.0.0.1:5555", "--type", "push"],
        ["throughput", "-o", "nonsense=1"],
        ["nothing"],
        [],
    ],
)
def test_bad_arguments_end_with_status_3(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["perf", *arguments]) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["throughput", "latency", "pub", "sub", "ping", "pong"])
def test_help_has_examples(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perf", kind, "--help"]) == 0
    assert "examples:" in capsys.readouterr().out
