"""Hand packets to receivers of aiortc's, in every order, and read what its decoders get."""

from __future__ import annotations

from typing import Any

import pytest
from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket

from metered_sync.engine.webrtc import jitter
from metered_sync.engine.webrtc.aiortc_private import capabilities
from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.picture_extensions import COLOR_SPACE, VIDEO_ORIENTATION, Colours
from tests.support.receivers import (
    FRAME,
    PCMU,
    Clock,
    Decoder,
    Network,
    Receiver,
    Transport,
    encoded,
    packets,
)

pytestmark = pytest.mark.usefixtures("clock")
both = pytest.mark.parametrize("codec", ["vp8", "h264"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    assert can(Capability.INTAKES)
    clock = Clock()
    monkeypatch.setattr(jitter, "monotonic", clock.monotonic)
    return clock


def stamps(handed: list[Any]) -> list[int]:
    """Return the times of frames, in 1/90000 s since the first one that was handed over."""
    return [frame.timestamp for _, frame in handed]


@both
def test_a_picture_is_handed_over_with_its_last_packet(codec: str) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    for number, picture in enumerate(packets(codec, encoded(codec, 20))):
        *first, last = picture
        assert receiver.take(*first) == []
        handed = receiver.take(last)
        assert stamps(handed) == [number * FRAME]
        assert decoder.numbers(handed) == [number]
    assert (receiver.plis, receiver.asked) == (0, [])


@both
@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_or_reordered_by_a_bad_network(codec: str, seed: int, clock: Clock) -> None:
    """Packets are lost, delayed and doubled, 3 % each; so are those that are sent again."""
    receiver, decoder = Receiver(), Decoder(codec)
    sent = packets(codec, encoded(codec, 200))
    handed = receiver.take(*sent[0])
    network = Network(receiver, clock, seed)
    for picture in sent[1:]:
        for packet in picture:
            network.send(packet)
        handed += network.run(clock.now + FRAME / 90000)
    for number in range(200, 220):  # what comes after tells that the last ones are missing
        network.send(RtpPacket(97, 0, sent[-1][-1].sequence_number + number - 199, 9, 1, b""))
        handed += network.run(clock.now + FRAME / 90000)
    assert receiver.asked
    assert stamps(handed) == [number * FRAME for number in range(200)]
    assert decoder.numbers(handed) == list(range(200))
    assert receiver.plis == 0


def test_what_waited_for_a_packet_comes_with_it_at_once() -> None:
    """Pictures of one packet: handed over one by one, they would stay late."""
    receiver = Receiver()
    sent = packets("vp8", [[bytes([0x10, number > 0, 7])] for number in range(10)])
    assert len(receiver.take(*sent[0])) == 1
    assert receiver.take(*(packet for picture in sent[2:9] for packet in picture)) == []
    assert stamps(receiver.take(*sent[1])) == [number * FRAME for number in range(1, 9)]
    assert stamps(receiver.take(*sent[9])) == [9 * FRAME]


def test_missing_packets_are_asked_for_until_they_come(clock: Clock) -> None:
    receiver = Receiver()
    sent = [p for picture in packets("vp8", encoded("vp8", 40)) for p in picture]
    receiver.take(*sent[:10])
    lost = sent[10].sequence_number
    for packet in sent[11:31]:
        clock.now += 0.03
        receiver.take(packet)
    assert receiver.asked == [[lost]] * 3  # at once, after 0.1 s, and after 0.2 s more
    receiver.take(sent[10])
    clock.now += 1
    receiver.take(*sent[31:])
    assert len(receiver.asked) == 3


def test_a_new_loss_asks_for_nothing_a_second_time(clock: Clock) -> None:
    receiver = Receiver()
    sent = [p for picture in packets("vp8", encoded("vp8", 40)) for p in picture]
    for number in (0, 2, 3, 5, 6, 8):
        clock.now += 0.01
        receiver.take(sent[number])
    assert receiver.asked == [[sent[number].sequence_number] for number in (1, 4, 7)]
    clock.now += 0.07
    receiver.take(sent[9])  # 0.11 s after the first one was asked for, 0.09 s after the second
    assert receiver.asked[3:] == [[sent[1].sequence_number]]


def test_a_packet_that_does_not_come_is_asked_for_ever_less_often(clock: Clock) -> None:
    receiver = Receiver()
    sent = [p for picture in packets("vp8", encoded("vp8", 120)) for p in picture]
    receiver.take(sent[0])
    for packet in sent[2:112]:  # 2.2 s
        clock.now += 0.02
        receiver.take(packet)
    assert len(receiver.asked) == 7  # at once; after 0.1, 0.2 and 0.4 s, and so on


@both
def test_packets_come_in_any_order_at_the_beginning(codec: str) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    sent = [packet for picture in packets(codec, encoded(codec, 10)) for packet in picture]
    handed = receiver.take(*reversed(sent[:8]))
    assert handed
    handed += receiver.take(*sent[8:])
    assert decoder.numbers(handed) == list(range(10))


@both
def test_padding_and_doubles_change_nothing(codec: str) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    handed = []
    sequence = 65530
    for number, picture in enumerate(packets(codec, encoded(codec, 12))):
        # A browser's padding has the time of the picture before, or of none.
        moments = [picture[-1].timestamp, picture[-1].timestamp + 1][: number % 3]
        padding = [RtpPacket(picture[0].payload_type, timestamp=at, ssrc=1) for at in moments]
        for packet in (*picture, *padding):
            packet.sequence_number = sequence = (sequence + 1) & 0xFFFF
        handed += receiver.take(*picture, *picture)
        for packet in padding:
            packet.padding_size = 200
            assert receiver.take(packet) == []
    assert decoder.numbers(handed) == list(range(12))
    assert receiver.plis == 0


@both
def test_pictures_without_a_marker_come_with_the_next_one(codec: str) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    handed = []
    for number, picture in enumerate(packets(codec, encoded(codec, 10))):
        for packet in picture:
            packet.marker = 0
        handed += receiver.take(*picture)
        assert len(handed) == number
    assert decoder.numbers(handed) == list(range(9))


@both
def test_pictures_of_the_same_moment_are_two(codec: str) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    handed = []
    for picture in packets(codec, encoded(codec, 10)):
        for packet in picture:
            packet.timestamp = 5
        handed += receiver.take(*picture)
    assert decoder.numbers(handed) == list(range(10))
    assert stamps(handed) == [0] * 10


def test_a_sender_whose_markers_are_wrong_is_not_trusted_again() -> None:
    """RFC 6184 lets receivers take the marker of H.264 for a hint only."""
    receiver = Receiver()
    first, second = (
        b"\x41\x9a one",
        b"\x41\x1a two",
    )  # slices, from macroblock 0 and from a later one
    parameters = b"\x67 parameters"
    sent = packets("h264", [[parameters, b"\x68 more", first, second]] + [[first, second]] * 3)
    for picture in sent:
        for packet in picture:
            packet.marker = 1
    handed = [frame.data for _, frame in receiver.take(*(p for picture in sent for p in picture))]
    start = b"\0\0\0\1"
    whole = start + first + start + second
    # Of the first picture what followed a marker came apart; then pictures are whole.
    assert handed[-2:] == [whole, whole]
    assert b"".join(handed[:-2]) == start + parameters + start + b"\x68 more" + whole
    assert len(receiver.take(*packets("h264", [[first]], timestamp=99, sequence=65510)[0])) == 1


# --- what is lost for good ------------------------------------------------------------


@both
def test_after_a_loss_pictures_go_on_with_a_key_frame(codec: str, clock: Clock) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    sent = packets(codec, encoded(codec, 60, keys=(45,)))
    handed = []
    for number, picture in enumerate(sent):
        clock.now += FRAME / 90000
        handed += receiver.take(*(picture[1:] if number == 5 else picture))
        if number == 5 + 29:
            assert receiver.plis == 0
        if number == 40:
            assert receiver.plis == 1  # a second after the loss
    assert decoder.numbers(handed) == [*range(5), *range(45, 60)]
    assert receiver.plis == 1


def test_a_key_frame_is_asked_for_again(clock: Clock) -> None:
    receiver = Receiver()
    sent = [[p] for p in (bytes([0x10, number > 0]) for number in range(200))]
    pictures = packets("vp8", sent)
    receiver.take(*pictures[0])
    for picture in pictures[2:62]:  # two seconds more than are waited for
        clock.now += 1 / 30
        receiver.take(*picture)
    assert receiver.plis in (2, 3)
    # Without one nothing is decoded, however long it takes; and it is said.
    for picture in pictures[62:]:
        clock.now += 0.1
        assert receiver.take(*picture) == []
    assert 25 < receiver.plis < 33  # twice a second
    assert receiver.consumer.lacking == [True]
    assert receiver.consumer.dropped == 0
    key, later = packets("vp8", [[b"\x10\x00"], [b"\x10\x01"]], sequence=65500 + 200)
    assert len(receiver.take(*key)) == len(receiver.take(*later)) == 1
    assert receiver.consumer.lacking == [True, False]
    plis = receiver.plis
    clock.now += 5
    receiver.take(*packets("vp8", [[b"\x10\x01"]], sequence=65500 + 202)[0])
    assert receiver.plis == plis


def test_a_stream_that_begins_without_a_key_frame_is_asked_for_one(clock: Clock) -> None:
    receiver = Receiver()
    for picture in packets("vp8", [[b"\x10\x01"]] * 60):
        clock.now += 0.1
        assert receiver.take(*picture) == []
    assert 10 < receiver.plis < 14
    assert receiver.consumer.lacking == [True]


# --- a decoder that is slower than the stream -----------------------------------------


def run_slowly(
    receiver: Receiver, clock: Clock, sent: list[list[RtpPacket]], interval: int
) -> tuple[list[Any], list[float]]:
    """Send pictures, of which the decoder takes one in every ``interval``.

    Returns:
        The pictures that it takes, and how old the oldest of those was.
    """
    born: dict[int, float] = {}
    taken, ages = [], []
    for number, picture in enumerate(sent):
        clock.now += 1 / 30
        born[number * FRAME] = clock.now
        receiver.queue(*picture)
        if number % interval == 0:
            for codec, frame in receiver.decode(1):
                taken.append((codec, frame))
                ages.append(clock.now - born[frame.timestamp])
    return taken, ages


@both
@pytest.mark.parametrize("slowness", [2, 5, 20])
def test_what_waits_for_a_slow_decoder_is_bounded(codec: str, slowness: int, clock: Clock) -> None:
    """Up to the next key frame it is dropped; what is decoded is new, and can be decoded."""
    receiver, decoder = Receiver(), Decoder(codec)
    keys = tuple(range(0, 240, 24))
    sent = packets(codec, encoded(codec, 240, keys=keys))
    taken, ages = run_slowly(receiver, clock, sent, slowness)
    numbers = decoder.numbers(taken)
    assert len(numbers) >= 5
    assert None not in numbers
    assert numbers == sorted(numbers)
    assert max(ages) < jitter.MAX_DECODER_WAIT + (slowness + 2) / 30
    assert receiver.plis
    left = len(receiver.decode())
    assert left < 2 + jitter.MAX_DECODER_WAIT * 30
    assert receiver.consumer.dropped == 240 - len(numbers) - left


@both
def test_once_a_slow_decoder_is_quick_again_nothing_is_dropped(codec: str, clock: Clock) -> None:
    """From the next key frame on, which the sender has been asked for, all is decoded."""
    receiver = Receiver()
    sent = packets(codec, encoded(codec, 240, keys=tuple(range(0, 240, 24))))
    run_slowly(receiver, clock, sent[:125], 20)
    receiver.decode()  # the load has gone: the decoder takes what waits
    asked = receiver.plis
    handed = []
    for picture in sent[125:]:
        clock.now += 1 / 60
        handed += receiver.take(*picture)
    assert asked
    assert Decoder(codec).numbers(handed)[-96:] == list(range(144, 240))


@both
def test_a_decoder_that_keeps_up_loses_nothing(codec: str, clock: Clock) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    sent = packets(codec, encoded(codec, 60))
    taken, _ = run_slowly(receiver, clock, sent, 1)
    assert decoder.numbers(taken) == list(range(60))
    assert (receiver.consumer.dropped, receiver.plis) == (0, 0)


def test_a_process_that_stood_still_drops_nothing(clock: Clock) -> None:
    """All that came meanwhile is handed over at once, and the decoder gets its time."""
    receiver, decoder = Receiver(), Decoder("vp8")
    sent = packets("vp8", encoded("vp8", 60))
    receiver.queue(*sent[0], *sent[1])
    clock.now += 10
    receiver.queue(*(packet for picture in sent[2:] for packet in picture))
    assert decoder.numbers(receiver.decode()) == list(range(60))
    assert (receiver.consumer.dropped, receiver.plis) == (0, 0)


def test_sound_that_waits_for_a_slow_decoder_is_bounded(clock: Clock) -> None:
    receiver = Receiver("audio")
    heard_of = []
    for number in range(100):
        clock.now += 0.02
        receiver.queue(*sound([number]))
        if number % 4 == 0:
            heard_of += heard(receiver.decode(1))
    assert heard_of == sorted(heard_of)
    assert heard_of[-1] > 96 - 5 - jitter.MAX_DECODER_WAIT / 0.02
    left = len(receiver.decode())
    assert receiver.consumer.dropped == 100 - len(heard_of) - left
    assert receiver.plis == 0


def test_the_end_of_a_decoder_is_not_dropped(clock: Clock) -> None:
    receiver = Receiver()
    sent = packets("vp8", [[b"\x10\0"]] * 20)
    for picture in sent[:5]:
        receiver.queue(*picture)
    receiver.raw._RTCRtpReceiver__decoder_queue.put(None)
    for picture in sent[5:]:
        clock.now += 0.1
        receiver.queue(*picture)
    assert None in receiver.decode()


@both
@pytest.mark.parametrize("jump", [2000, 30000, 40000])
def test_numbers_that_jump_are_a_new_beginning(codec: str, jump: int) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    pictures = encoded(codec, 200, keys=(60,))
    handed = receiver.take(*(p for picture in packets(codec, pictures[:10]) for p in picture))
    for picture in packets(codec, pictures[10:], sequence=65500 + jump):
        handed += receiver.take(*picture)
    assert decoder.numbers(handed) == [*range(10), *range(60, 200)]
    assert receiver.plis > 0


@both
def test_another_source_begins_at_once(codec: str) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    handed = []
    for ssrc, sequence in ((1, 100), (2, 90), (3, 40000)):
        for picture in packets(codec, encoded(codec, 8), sequence=sequence, ssrc=ssrc):
            handed += receiver.take(*picture)
    assert decoder.numbers(handed) == [*range(8)] * 3
    assert receiver.plis == 0


def test_it_holds_a_bounded_number_of_packets() -> None:
    receiver = Receiver()
    sent = packets("vp8", [[b"\x10\x01"]] * 5000)
    for picture in sent:
        if picture[0].sequence_number % 700:
            receiver.take(*picture)
        assert len(receiver.raw._RTCRtpReceiver__jitter_buffer._waiting) <= jitter.MAX_WAITING


# --- where nobody reads ---------------------------------------------------------------


@both
def test_what_nobody_wants_is_not_decoded(codec: str, clock: Clock) -> None:
    receiver, decoder = Receiver(), Decoder(codec)
    sent = packets(codec, encoded(codec, 60, keys=(45,)))
    handed = [item for picture in sent[:10] for item in receiver.take(*picture)]
    receiver.consumer.wants = False
    for picture in sent[10:30]:
        assert receiver.take(*picture) == []
    assert (receiver.consumer.left_out, receiver.plis) == (20, 0)
    receiver.consumer.wants = True
    for picture in sent[30:]:
        clock.now += FRAME / 90000
        handed += receiver.take(*picture)
        assert receiver.plis == 1  # with the first packet, and that is enough
    assert decoder.numbers(handed) == [*range(10), *range(45, 60)]
    assert stamps(handed)[10] == 45 * FRAME  # time has gone on


@both
def test_who_begins_to_read_what_was_left_out_asks_for_a_key_frame_at_once(
    codec: str, clock: Clock
) -> None:
    receiver = Receiver()
    receiver.consumer.wants = False
    assert receiver.begin_reading() == 0  # there is nobody to ask yet
    first, second, key = packets(codec, encoded(codec, 3, keys=(2,)))
    assert receiver.take(*first) == []
    receiver.consumer.wants = True
    assert receiver.begin_reading() == 1  # though no packet comes
    assert receiver.begin_reading() == 0  # it is on its way
    assert receiver.take(*second) == []
    assert receiver.plis == 1
    clock.now += jitter.KEY_FRAME_REQUEST_INTERVAL
    assert receiver.begin_reading() == 1
    assert len(receiver.take(*key)) == 1
    clock.now += jitter.KEY_FRAME_REQUEST_INTERVAL / 2
    assert receiver.begin_reading() == 0


@both
def test_one_more_reader_asks_for_a_key_frame_where_pictures_come_seldom(
    codec: str, clock: Clock
) -> None:
    receiver = Receiver()
    receiver.take(*packets(codec, encoded(codec, 1))[0])
    assert receiver.begin_reading() == 0  # as quickly as that the next one may come
    clock.now += jitter.PACKET_EXPECTED
    assert receiver.begin_reading() == 1


def test_who_begins_to_decode_what_was_passed_on_asks_for_a_key_frame(clock: Clock) -> None:
    receiver = Receiver()
    receiver.consumer.wants, receiver.consumer.passes_on = False, True
    receiver.take(*packets("vp8", encoded("vp8", 1))[0])
    assert receiver.begin_reading() == 0  # a further one that takes them as they are
    receiver.consumer.wants = True
    assert receiver.begin_reading() == 1


def test_who_begins_to_hear_asks_for_nothing() -> None:
    receiver = Receiver("audio")
    receiver.consumer.wants = False
    receiver.take(*packets("pcmu", [[bytes(160)]])[0])
    receiver.consumer.wants = True
    assert receiver.begin_reading() == 0


def test_sound_that_nobody_wants_is_not_decoded() -> None:
    receiver = Receiver("audio")
    assert len(receiver.take(*sound(range(3)))) == 3
    receiver.consumer.wants = False
    assert receiver.take(*sound(range(3, 100))) == []
    assert receiver.consumer.left_out == 97
    receiver.consumer.wants = True
    assert [frame.data for _, frame in receiver.take(*sound(range(100, 102)))] == [b"d", b"e"]


def test_another_taker() -> None:
    first, second = Receiver(), Receiver()
    jitter.take_over(first.raw, second.consumer)
    second.consumer.wants = False
    assert first.take(*packets("vp8", [[b"\x10\0"]])[0]) == []
    assert (first.consumer.left_out, second.consumer.left_out) == (0, 1)


# --- sound ----------------------------------------------------------------------------


def sound(numbers: range | list[int]) -> list[RtpPacket]:
    return [
        RtpPacket(PCMU.payloadType, 0, 65530 + n & 0xFFFF, n * 160, 1, bytes([n & 0xFF]))
        for n in numbers
    ]


def heard(handed: list[Any]) -> list[int]:
    return [frame.data[0] for _, frame in handed]


def test_sound_comes_at_once_and_in_order() -> None:
    receiver = Receiver("audio")
    for number in range(20):
        assert heard(receiver.take(*sound([number]))) == [number]
    assert heard(receiver.take(*sound([22, 20, 20, 21]))) == [20, 21, 22]
    assert heard(receiver.take(*sound([5, 23]))) == [23]


def test_sound_goes_on_after_a_loss(clock: Clock) -> None:
    receiver = Receiver("audio")
    receiver.take(*sound(range(10)))
    assert heard(receiver.take(*sound([11, 12, 13, 14]))) == []
    assert heard(receiver.take(*sound([15]))) == [11, 12, 13, 14, 15]
    assert heard(receiver.take(*sound([10, 16]))) == [16]  # too late
    assert receiver.take(*sound([18])) == []
    clock.now += 0.2  # a pause, as with silence
    assert heard(receiver.take(*sound([19]))) == [18, 19]
    assert heard(receiver.take(*sound([5000, 5001]))) == [5000 & 0xFF, 5001 & 0xFF]
    assert receiver.plis == 0


# --- other receivers, other versions --------------------------------------------------


def test_a_receiver_that_works_in_another_way_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capabilities, "capabilities", frozenset)
    receiver: Any = RTCRtpReceiver("video", Transport())  # type: ignore[arg-type]
    before = dict(vars(receiver))
    jitter.take_over(receiver, Receiver.__new__(Receiver))  # type: ignore[arg-type]
    assert vars(receiver) == before
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, JitterBuffer)


def test_other_receivers_of_the_process_are_left_alone() -> None:
    Receiver()
    other: Any = RTCRtpReceiver("video", Transport())  # type: ignore[arg-type]
    assert type(other._RTCRtpReceiver__jitter_buffer) is JitterBuffer


@both
def test_how_pictures_are_to_be_shown(codec: str) -> None:
    """It is told with the picture from which it holds; what is not said stays as it was."""
    receiver = Receiver()
    canvas, turned = bytes((1, 13, 1, 0x20)), b"\1"
    said: list[dict[str, bytes]] = [
        {COLOR_SPACE: canvas, VIDEO_ORIENTATION: turned},  # a key frame
        {},
        {VIDEO_ORIENTATION: b"\0"},
        {},
        {},  # a key frame
        {},
    ]
    pictures = packets(codec, encoded(codec, len(said), keys=(0, 4)))
    for parts, values in zip(pictures, said, strict=True):
        parts[-1].extensions.further = values  # type: ignore[attr-defined]
        receiver.take(*parts)
    assert receiver.consumer.appearances == [
        (0, 1, Colours(1, 2)),
        (2 * FRAME, 0, Colours(1, 2)),
        (4 * FRAME, 0, None),
    ]
