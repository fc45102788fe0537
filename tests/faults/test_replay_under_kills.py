"""The real transcript once more, while the broker is killed three times: nothing is lost, doubled, invented or out of order."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from chatlib.brokers import LocalBroker
from chatlib.replay import GAP, Progress, replay
from chatlib.transcript import read_transcript
from tests.support import SHARED, process_runs

REAL = SHARED / "data" / "real-chat.jsonl"
KILLS = (0.2, 0.5, 0.8)  # of the messages


class Killer:
    """Kills and starts `broker` when the replay has sent so much of its messages; on a thread of its own, while it sends on."""

    def __init__(self, broker: LocalBroker, messages: int) -> None:
        self.broker = broker
        self.moments = [int(messages * share) for share in KILLS]
        self.pids = [broker.pid]
        self.dead: list[int] = []  # pids that were seen to be gone
        self.at: list[Progress] = []
        self.failure: BaseException | None = None
        self.thread: threading.Thread | None = None

    def __call__(self, progress: Progress) -> None:
        if self.failure is not None:
            raise self.failure
        busy = self.thread is not None and self.thread.is_alive()
        if not busy and self.moments and progress.phase == "playing" and progress.sent >= self.moments[0]:
            self.moments.pop(0)
            self.at.append(progress)
            self.thread = threading.Thread(target=self._kill_and_start)
            self.thread.start()

    def _kill_and_start(self) -> None:
        try:
            before = self.broker.pid
            assert before is not None
            self.broker.kill()
            if not process_runs(before):
                self.dead.append(before)
            self.broker.start()
            self.pids.append(self.broker.pid)
        except BaseException as exc:
            self.failure = exc

    def join(self) -> None:
        if self.thread is not None:
            self.thread.join(60)


@pytest.mark.skipif(not REAL.exists(), reason="the real transcript is not beside the project")
@pytest.mark.timeout(900)
def test_three_kills_in_the_middle_of_the_real_transcript_lose_nothing() -> None:
    """12,728 messages of 972 people in 17 groups: 1 replay the whole file; 2 SIGKILL and start, three times, while it sends on; 3 the
    kills were seen; 4 the verdict is clean; 5 memory is bounded. Without kills it takes about 100 s on two idle cores, with them 30 s more.
    """
    script, began = read_transcript(REAL), time.monotonic()
    process, peak = psutil.Process(), [0]
    with LocalBroker() as broker:
        killer = Killer(broker, len(script.messages))

        def on_progress(progress: Progress) -> None:
            peak.append(process.memory_info().rss)
            killer(progress)

        result = replay(script, broker, fresh=True, on_progress=on_progress)
        killer.join()

    # the faults happened: three nodes died, each was followed by another process, in the middle of the transcript
    assert len(killer.dead) == 3
    assert len(set(killer.pids)) == 4 and killer.dead == killer.pids[:3]
    assert result.reconnects >= 3
    assert all(0 < seen.sent < len(script.messages) and seen.online > 0 for seen in killer.at)

    # and the verdict is the same as without them
    verdict = result.verdict
    print(f"\n{verdict}\nplay {result.seconds:.0f} s, in all {time.monotonic() - began:.0f} s, memory at most {max(peak) / 1e6:.0f} MB")
    assert (result.messages, result.senders, result.groups, result.expected) == (12_728, 972, 17, 683_477)
    assert (verdict.lost, verdict.duplicated, verdict.unexpected, verdict.out_of_order) == (0, 0, 0, 0)
    assert verdict.attempted == verdict.confirmed == len(script.messages) == 12_728
    assert verdict.handled == verdict.expected == result.expected == script.summary(gap=GAP).deliveries
    assert result.clean
    assert max(peak) < 1e9
