"""How a published client and this library's take the same losses, side by side."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from metered_sync import (
    Connected,
    Disconnected,
    DisconnectedError,
    GoingAway,
    Message,
    MeteredError,
    MeteredTimeoutError,
    Outage,
    Presence,
    ReconnectOptions,
    SignallingClient,
    Subscription,
)
from metered_sync.local import LocalCloud
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.scenarios.interop.parties import FAST, Driver, Party

RECONNECT = ReconnectOptions(initial_delay=FAST["initial"], max_delay=FAST["most"], jitter_ratio=0)


def clients(driver: Driver, cloud: LocalCloud) -> tuple[SignallingClient, Party]:
    options = cloud.client_options()
    return SignallingClient(**options, reconnect=RECONNECT), driver.party(**options)


def both_hear(us: SignallingClient, inbox: Subscription, them: Party, channel: str) -> None:
    """Check that after a reconnect messages go both ways."""
    # Subscriptions are repeated before anything else is sent, so these acknowledgements
    # say that the server has carried them out.
    us.publish("elsewhere", 1)
    them.publish("elsewhere", 1)
    us.publish(channel, "ours")
    them.publish(channel, "theirs")
    assert them.next("message")["data"] == "ours"
    assert inbox.get(timeout=20).data == "theirs"


def test_a_dropped_connection_comes_back(published: Driver, cloud: LocalCloud) -> None:
    us, them = clients(published, cloud)
    with us, them, us.events(Disconnected, Connected) as seen:
        inbox = us.subscribe("drop")
        them.subscribe("drop")
        for _ in range(3):
            them.next("connected")
            cloud.faults.drop_connections()
            assert seen.get(timeout=20) == Disconnected(1006, "", will_reconnect=True)
            gone = them.next("disconnected")
            assert (gone["code"], gone["willReconnect"]) == (1006, True)
            back = seen.get(timeout=20)
            assert isinstance(back, Connected)
            assert back.is_reconnect
            wait_until(lambda: them.state == "connected")
            both_hear(us, inbox, them, "drop")


def test_others_see_who_went_and_who_came_back(published: Driver, cloud: LocalCloud) -> None:
    them = published.party(**cloud.token_options("them", peer_metadata={"n": 1}))
    with SignallingClient(**cloud.client_options()) as us, them, us.events(Presence) as seen:
        us.subscribe("room")
        seen.get(timeout=20)
        them.subscribe("room")
        assert [p.peer_id for p in seen.get(timeout=20).joined] == ["them"]
        cloud.faults.drop_connections("them")
        assert [p.peer_id for p in seen.get(timeout=20).left] == ["them"]
        assert [(p.peer_id, p.metadata) for p in seen.get(timeout=20).joined] == [
            ("them", {"n": 1})
        ]


def test_a_peer_that_is_alone_gets_its_snapshot_again(published: Driver, cloud: LocalCloud) -> None:
    us, them = clients(published, cloud)
    with us, them, us.events(Presence) as seen:
        us.subscribe("ours")
        them.subscribe("theirs")
        for _ in range(2):
            assert seen.get(timeout=20) == Presence("ours", (), ())
            assert them.next("presence", channel="theirs", joined=[], left=[])
            cloud.faults.drop_connections()


def test_a_server_that_restarts(published: Driver, cloud: LocalCloud) -> None:
    us, them = clients(published, cloud)
    again = LocalCloud(port=cloud.port)
    again.publishable_key = cloud.publishable_key
    with us, them, us.events(Disconnected) as gone:
        inbox = us.subscribe("restart")
        them.subscribe("restart")
        cloud.close()
        assert them.next("going_away")["retryAfterMs"] == 1000
        assert them.next("disconnected")["code"] == gone.get(timeout=20).code == 1001
        with again:
            wait_until(lambda: us.state == them.state == "connected", timeout=20)
            both_hear(us, inbox, them, "restart")
            us.close()
            them.close()


def test_a_server_that_goes_away_says_when_to_come_back(
    published: Driver, cloud: LocalCloud
) -> None:
    us, them = clients(published, cloud)
    with us, them, us.events(GoingAway, Disconnected, Outage) as seen:
        inbox = us.subscribe("away")
        them.subscribe("away")
        them.next("connected")
        cloud.faults.going_away(700)
        assert seen.get(timeout=20) == GoingAway(700)
        gone, back = seen.get(timeout=20), seen.get(timeout=20)
        assert isinstance(gone, Disconnected)
        assert gone.code == them.next("disconnected")["code"] == 1001
        assert isinstance(back, Outage)
        assert back.duration >= 0.65  # this client waits as asked; the published ones do not
        assert them.next("going_away")["retryAfterMs"] == 700
        them.next("connected", isReconnect=True)
        both_hear(us, inbox, them, "away")


def test_a_server_that_refuses_for_a_while(published: Driver, cloud: LocalCloud) -> None:
    us, them = clients(published, cloud)
    with us, them, us.events(Outage) as outages:
        inbox = us.subscribe("refused")
        them.subscribe("refused")
        them.next("connected")
        cloud.faults.refuse_connections(2)
        cloud.faults.drop_connections()
        assert outages.get(timeout=20).duration > 0.5
        them.next("connected", isReconnect=True)
        both_hear(us, inbox, them, "refused")


def test_slow_acknowledgements_and_messages_arrive_all_the_same(
    published: Driver, cloud: LocalCloud
) -> None:
    us, them = clients(published, cloud)
    with us, them:
        inbox = us.subscribe("slow")
        them.subscribe("slow")
        for client in (us, them):
            started = time.monotonic()
            cloud.faults.hold_acks(0.5)
            client.publish("slow", "held")
            assert time.monotonic() - started > 0.45
        assert them.next("message")["data"] == inbox.get(timeout=20).data == "held"
        cloud.faults.delay(0.3)
        us.publish("slow", "late")
        them.burst("slow", 50)
        assert them.next("message")["data"] == "late"
        assert [inbox.get(timeout=20).data for _ in range(50)] == list(range(50))


def test_a_token_that_expires_is_renewed(published: Driver, cloud: LocalCloud) -> None:
    options = cloud.token_options("brief", ttl=2)
    minted: list[float] = []

    def provide() -> str:
        minted.append(time.time())
        token: str = options["token_provider"]()
        return token

    url = cloud.url
    us = SignallingClient(token_provider=provide, url=url, reconnect=RECONNECT)
    with us, us.events(Disconnected, Connected) as seen:
        gone = seen.get(timeout=20)
        assert isinstance(gone, Disconnected)
        assert gone.code == 4002
        assert isinstance(seen.get(timeout=20), Connected)
        ours = len(minted)
    with published.party(token_provider=provide, url=url) as them:
        gone_there = them.next("disconnected")
        assert (gone_there["code"], gone_there["willReconnect"]) == (4002, True)
        them.next("connected", isReconnect=True)
        theirs = len(minted) - ours
    assert ours == theirs == 2


@pytest.mark.parametrize("code", [4001, 4003, 4012, 4020])
def test_codes_that_end_it_end_both(published: Driver, cloud: LocalCloud, code: int) -> None:
    us, them = clients(published, cloud)
    with us, them, us.events(Disconnected) as seen:
        inbox = us.subscribe("end")
        cloud.faults.close(code)
        assert not seen.get(timeout=20).will_reconnect
        with pytest.raises(DisconnectedError):
            inbox.get(timeout=20)
        gone = them.next("disconnected")
        assert (gone["code"], gone["reason"]) == (code, "closed on request")
        assert gone["willReconnect"] is False
        wait_until(lambda: us.state == them.state == "closed")


@pytest.mark.parametrize("code", [1001, 1008, 1009, 4000, 4002, 4011, 4999])
def test_codes_that_do_not_end_it(published: Driver, cloud: LocalCloud, code: int) -> None:
    options = cloud.token_options("it")
    us = SignallingClient(**options, reconnect=RECONNECT)
    with us, published.party(**options) as them, us.events(Disconnected, Connected) as seen:
        cloud.faults.close(code)
        gone, back = seen.get(timeout=20), seen.get(timeout=20)
        assert isinstance(gone, Disconnected)
        assert (gone.code, gone.will_reconnect) == (code, True)
        assert isinstance(back, Connected)
        gone_there = them.next("disconnected")
        assert (gone_there["code"], gone_there["willReconnect"]) == (code, True)
        them.next("connected", isReconnect=True)


def test_flooding_closes_and_a_new_connection_starts_afresh(
    published: Driver, cloud: LocalCloud
) -> None:
    options = cloud.client_options()
    paced = SignallingClient(**options)
    hasty = SignallingClient(**options, rate_limit=None, reconnect=RECONNECT)
    with paced, hasty, published.party(**options) as them, hasty.events(Disconnected) as seen:
        for number in range(250):  # more than the burst; this client paces itself
            paced.publish("flood", number)
        assert paced.state == "connected"

        def flood() -> None:
            for _ in range(40):
                try:
                    hasty.publish("flood", 1, during_outage="fail")
                except MeteredError:
                    return

        threads = [threading.Thread(target=flood) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen.get(timeout=20).code == 4011
        with pytest.raises(Exception, match="DisconnectedError"):
            them.burst("flood", 400)
        assert them.next("disconnected")["code"] == 4011
        them.next("connected", isReconnect=True)
        them.publish("flood", "calmer")


def test_a_budget_that_is_spent_ends_both(published: Driver, cloud: LocalCloud) -> None:
    options = cloud.client_options()
    thrice = ReconnectOptions(initial_delay=0.01, max_delay=0.01, max_attempts=3)
    us = SignallingClient(**options, reconnect=thrice)
    them = published.party(**options, reconnect={"initial": 0.01, "most": 0.01, "attempts": 3})
    with us, them:
        inbox = us.subscribe("end")
        cloud.close()
        with pytest.raises(DisconnectedError, match="3 attempts"):
            inbox.get(timeout=20)
        wait_until(lambda: them.state == "closed")


def test_without_reconnecting_a_loss_is_the_end(published: Driver, cloud: LocalCloud) -> None:
    options = cloud.client_options()
    us = SignallingClient(**options, reconnect=False)
    with us, published.party(**options, reconnect=False) as them:
        inbox = us.subscribe("end")
        cloud.faults.drop_connections()
        with pytest.raises(DisconnectedError):
            inbox.get(timeout=20)
        assert them.next("disconnected")["willReconnect"] is False
        wait_until(lambda: them.state == "closed")


def test_what_is_idle_stays_connected(published: Driver) -> None:
    # The pings of an idle client keep it, and it answers those of the server. Both of the
    # published clients ping each third of their inactivity timeout, a second at least.
    with LocalCloud(_timings=dataclasses.replace(DEFAULT_TIMINGS, server_ping=1.0)) as cloud:
        options = cloud.client_options()
        with (
            SignallingClient(**options, inactivity_timeout=2.5) as us,
            published.party(**options, inactivity=2.5) as them,
        ):
            inbox = us.subscribe("idle")
            with pytest.raises(MeteredTimeoutError):
                us.wait_for(Disconnected, timeout=4)
            assert not them.had("disconnected")
            them.publish("idle", "still here")
            assert inbox.get(timeout=20) == Message("idle", them.peer_id, "still here")
