"""Test the statistics and the gaps of a received stream."""

from metered_sync.local.sfu.reception import Reception


def fed(*seqs: int, start: float = 100.0) -> Reception:
    reception = Reception(7, 90000)
    for count, seq in enumerate(seqs):
        reception.add(seq, count * 900, start + count * 0.01)
    return reception


def test_nothing_yet():
    assert Reception(7, 90000).report(1.0) is None


def test_a_clean_stream_that_wraps():
    reception = fed(65534, 65535, 0, 1)
    report = reception.report(101.0)
    assert report is not None
    assert (report.ssrc, report.lost, report.fraction_lost) == (7, 0, 0)
    assert report.highest_seq == 0x10001
    assert report.jitter == 0
    assert list(reception.missing(100.0, 1.0)) == []


def test_gaps_are_told_and_filled():
    reception = fed(65534)
    assert reception.add(1, 0, 100.0)
    assert list(reception.missing(100.0, 1.0)) == [65535, 0]
    assert not reception.add(0, 0, 100.1)
    assert list(reception.missing(100.1, 1.0)) == [65535]
    assert list(reception.missing(102.0, 1.0)) == []
    assert list(reception.missing(100.0, 1.0)) == []


def test_a_jump_is_a_new_beginning():
    reception = fed(10)
    assert not reception.add(5000, 0, 100.0)
    assert list(reception.missing(100.0, 1.0)) == []


def test_loss_since_the_last_report():
    reception = fed(1, 2, 4, 5)
    first = reception.report(101.0)
    assert first is not None
    assert (first.lost, first.fraction_lost) == (1, 256 // 5)
    reception.add(6, 0, 101.0)
    second = reception.report(102.0)
    assert second is not None
    assert (second.lost, second.fraction_lost) == (1, 0)


def test_jitter_ignores_the_timestamps_wrap():
    reception = Reception(7, 90000)
    reception.add(1, 2**32 - 900, 100.0)
    reception.add(2, 0, 100.01)
    reception.add(3, 900 + 160, 100.02)
    report = reception.report(101.0)
    assert report is not None
    assert report.jitter == 10


def test_round_trip_fields():
    reception = fed(1)
    reception.on_sender_report(0x1234_5678_9ABC_DEF0, 100.0)
    report = reception.report(100.5)
    assert report is not None
    assert report.last_sender_report == 0x5678_9ABC
    assert report.delay == 32768


def test_what_was_expected_and_what_came():
    reception = Reception(1, 90000)
    assert reception.counts() == (0, 0)
    for seq in (65534, 65535, 2, 0):  # 1 is missing
        reception.add(seq, 0, 0.0)
    assert reception.counts() == (5, 4)
