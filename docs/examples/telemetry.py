"""Telemetry: many sensors publish to one group, one collector knows the state of each.

Six processes are the sensors. Each says who it is in the first part, and numbers its readings, so
that the collector can tell what is missing and who has gone silent: one of them crashes half-way.
The collector throws 5 % of the packets away; they come again from the sensor that sent them.

python docs/examples/telemetry.py [URL]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import mcast

SENSORS = 6
READINGS = 40
PERIOD_S = 0.02
SILENT_AFTER_S = 1.5
CRASHES = "sensor-5"
SMALL: dict[str, float] = {"rate": 1e6, "txw_bytes": 1 << 20}
"""A sensor says little: 1 Mbit/s at most, and 1 MiB to repair from."""


def measure(url: str, name: str) -> None:
    with mcast.Context(linger=5.0) as ctx:
        pub = ctx.socket(mcast.PUB, **SMALL)
        pub.connect(url)
        for number in range(READINGS):
            reading = {"number": number, "celsius": 20 + number / 10, "at": time.time()}
            pub.send_multipart([name.encode(), json.dumps(reading).encode()])
            time.sleep(PERIOD_S)
            if name == CRASHES and number == READINGS // 2:
                os._exit(1)  # no goodbye


class Sensor:
    """What the collector knows of one."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.celsius = 0.0
        self.heard_at = 0.0

    def take(self, reading: dict[str, float]) -> None:
        self.numbers.append(int(reading["number"]))
        self.celsius = reading["celsius"]
        self.heard_at = time.monotonic()


def collect(sub: mcast.Sub) -> dict[str, Sensor]:
    """The sensors by name, when each of them is silent."""
    sensors: dict[str, Sensor] = {}
    while True:
        try:
            for name, body in sub.recv_many_multipart(1000, timeout=0.1):
                sensors.setdefault(name.decode(), Sensor()).take(json.loads(body))
        except mcast.Again:
            pass
        silent_s = [time.monotonic() - sensor.heard_at for sensor in sensors.values()]
        if len(sensors) == SENSORS and min(silent_s) > SILENT_AFTER_S:
            return sensors


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    with mcast.Context() as ctx:
        sub = ctx.socket(mcast.SUB, drop_rate=0.05, drop_seed=1)
        sub.connect(url)
        sub.subscribe("sensor-")
        processes = [
            subprocess.Popen([sys.executable, __file__, url, f"sensor-{index}"])
            for index in range(SENSORS)
        ]
        sensors = collect(sub)
        for process in processes:
            process.wait()

        finished = sum(
            isinstance(event, mcast.PeerLeft) and event.reason == "finished"
            for event in sub.events()
        )
        for name, sensor in sorted(sensors.items()):
            in_order = sensor.numbers == list(range(len(sensor.numbers)))
            print(f"{name}: {len(sensor.numbers)} readings, none missing between: {in_order}")
        print(f"said goodbye: {finished} of {SENSORS}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
    else:
        main(*sys.argv[1:])
