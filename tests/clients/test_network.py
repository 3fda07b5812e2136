"""The bad network: its statistics and draws, the way of ICE through it, the measuring tone."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.bench import sweep
from clients.bench.errors import BenchError
from clients.bench.impairment import CLEAN, Condition, Impairment
from clients.bench.relay import Relay, server_endpoint, through_relay, without_candidates
from daemon.__main__ import main

RTP = b"\x80\x60"


def fates(condition: Condition, count: int, seed: int = 1) -> list[list[float]]:
    """How long each of `count` packets, 20 ms apart, takes."""
    impairment = Impairment(seed=seed, condition=condition)
    return [
        [at_s - k * 0.02 for at_s in impairment.arrivals_s(k * 0.02, 100)] for k in range(count)
    ]


# ------------------------------------------------------------------------------- impairment
def test_a_clean_network_changes_nothing() -> None:
    assert fates(CLEAN, 10) == [[0.0]] * 10


@pytest.mark.parametrize("mean_burst", [1, 4])
def test_loss_comes_at_the_rate_and_in_the_bursts_asked_for(mean_burst: int) -> None:
    lost = [not fate for fate in fates(Condition(loss=0.05, mean_burst=mean_burst), 40_000)]
    assert 0.04 < sum(lost) / len(lost) < 0.06
    starts = sum(now and not before for before, now in pairwise(lost))
    assert sum(lost) / starts == pytest.approx(mean_burst, rel=0.1)


def test_delay_and_jitter_reorder_unless_order_is_kept() -> None:
    condition = Condition(delay_ms=40, jitter_ms=20)
    took_s = [fate[0] for fate in fates(condition, 2_000)]
    assert 0.02 <= min(took_s) < 0.022
    assert 0.058 < max(took_s) <= 0.06
    out_s = [k * 0.02 + each for k, each in enumerate(took_s)]
    assert out_s != sorted(out_s)
    kept = Condition(delay_ms=40, jitter_ms=20, keeps_order=True)
    out_s = [k * 0.02 + fate[0] for k, fate in enumerate(fates(kept, 2_000))]
    assert out_s == sorted(out_s)


def test_a_slow_link_queues_then_drops() -> None:
    slow = fates(Condition(rate_kbps=20, max_queue_ms=100), 100)  # 100 bytes take 40 ms
    assert slow[0] == [pytest.approx(0.04)]
    assert [] in slow
    assert max(fate[0] for fate in slow if fate) <= 0.1 + 0.04 + 1e-9


def test_doubled_packets() -> None:
    counts = [len(fate) for fate in fates(Condition(doubled=0.1), 5_000)]
    assert set(counts) == {1, 2}
    assert 0.08 < counts.count(2) / 5_000 < 0.12


@given(changes=st.lists(st.sampled_from([0.0, 0.3, 0.6]), min_size=1, max_size=5))
def test_the_fate_of_a_packet_does_not_depend_on_what_was_before(changes: list[float]) -> None:
    always = fates(Condition(loss=0.3), 50)
    impairment = Impairment(seed=1)
    for k in range(50):
        impairment.condition = Condition(loss=changes[k % len(changes)] if k < 40 else 0.3)
        fate = impairment.arrivals_s(k * 0.02, 999)
        if k >= 40:
            assert bool(fate) == bool(always[k])


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.0}, {"mean_burst": 0.5}, {"jitter_ms": 5.0}, {"doubled": -0.1}]
)
def test_impossible_networks(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|can not"):
        Condition(**wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- relay
ANSWER = """v=0
m=audio 9 UDP/TLS/RTP/SAVPF 96
a=mid:0
a=candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host
a=candidate:2 1 udp 2130706431 127.0.0.1 5001 typ host
a=candidate:3 1 tcp 1518214911 127.0.0.1 9 typ host tcptype active
a=end-of-candidates
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
a=candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host
a=end-of-candidates
"""


def test_ice_knows_nothing_but_the_relay() -> None:
    assert server_endpoint(ANSWER) == ("127.0.0.1", 5001)
    assert server_endpoint(ANSWER.replace("127.0.0.1 5001", "192.0.2.8 5001")) == (
        "192.0.2.7",
        5000,
    )
    rewritten = through_relay(ANSWER, ("127.0.0.1", 7000))
    assert rewritten.count("a=candidate") == 2
    assert rewritten.count(" 127.0.0.1 7000 typ host") == 2
    assert "candidate" not in without_candidates(ANSWER)
    with pytest.raises(BenchError, match="no IPv4 candidate"):
        server_endpoint("v=0\r\n")


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes."""

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


class Inbox(asyncio.DatagramProtocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.append(data)


async def relayed(seed: int, condition: Condition) -> tuple[list[int], list[int], list[bytes]]:
    """100 RTP packets, a control packet between any two: (passed up, passed down, received)."""
    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    async with await Relay.open(server.get_extra_info("sockname")[:2], seed=seed) as relay:
        relay.impair(up=condition)
        client, inbox = await loop.create_datagram_endpoint(Inbox, remote_addr=relay.address)
        for number in range(100):
            client.sendto(RTP + number.to_bytes(2, "big") + bytes(8))
            client.sendto(b"\x00\x01 stun")
            await asyncio.sleep(0)
        await asyncio.sleep(0.15)
        client.close()
        server.close()
        return relay.up.passed, relay.down.passed, inbox.got


async def test_packets_go_both_ways_and_the_same_ones_are_lost_every_time() -> None:
    condition = Condition(delay_ms=20, jitter_ms=10, loss=0.2)
    up, down, got = await relayed(1, condition)
    assert 60 < len(up) < 95
    assert sorted(down) == sorted(up)
    assert down != up, "reordered"
    assert {int.from_bytes(data[2:4], "big") for data in got if data[0] == 0x80} == set(up)
    assert (await relayed(1, condition))[0] == up
    assert (await relayed(2, condition))[0] != up


# ------------------------------------------------------------------------------- sweep
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_the_tone_tells_its_place_and_its_delay(rate_hz: int) -> None:
    count = 7 * rate_hz
    pcm = sweep.samples(0, count, rate_hz)
    at_s = 100 + np.arange(1, count + 1) / rate_hz + 0.25
    heard = sweep.locate(pcm, at_s, rate_hz=rate_hz, began_s=100.0)
    assert len(heard.at_s) > 600
    delay_s = heard.at_s - 100.0 - heard.position_s
    np.testing.assert_allclose(delay_s, 0.25, atol=0.002)


def test_a_hole_and_silence_are_no_places() -> None:
    pcm = sweep.samples(0, 48_000, 16_000)
    pcm[16_000:32_000] = 0
    heard = sweep.locate(pcm, np.arange(48_000) / 16_000, rate_hz=16_000, began_s=0.0)
    assert not ((heard.position_s > 1.03) & (heard.position_s < 1.99)).any()
    nothing = sweep.locate(pcm[:10], np.zeros(10), rate_hz=16_000, began_s=0.0)
    assert len(nothing.at_s) == 0


# ------------------------------------------------------------------------------- the command
def test_the_comparison_runs(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--receivers", "adaptive", "--scenarios", "loss 5 %,storm", "--seconds", "2.4"]
    assert main(["bench", "network", *arguments, "--json", str(report)]) == 0
    loss, storm = json.loads(report.read_text())["rows"]
    assert loss["used_share"] >= 0.9
    assert 0 < loss["added_delay_ms"]["p50"] < 150
    assert loss["packets_passed"] > 40
    assert storm["back_after_s"] is not None
    assert 0 < loss["cpu_share"] < 0.9


@pytest.mark.parametrize(
    "flags", [["--scenarios", "fog"], ["--receivers", "nobody"], ["--seconds", "0"]]
)
def test_wrong_flags_are_told(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "network", *flags]) == 1
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize("python", ["/bin/false", "/no/such/python"])
def test_a_receiver_that_does_not_start_is_told(
    python: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--receivers", "adaptive", "--scenarios", "clean", "--wrtc-python", python]
    assert main(["bench", "network", *flags]) == 1
    assert "the receiver 'wrtc'" in capsys.readouterr().err
