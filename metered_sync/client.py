"""Publish/subscribe messaging for code that blocks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metered_sync._facade import Client
from metered_sync.bridge.loop import Engine
from metered_sync.bridge.reader import MAX_BYTES, Overflow, Reader
from metered_sync.delivery import Deliveries, Delivery
from metered_sync.errors import DisconnectedError, MeteredTimeoutError
from metered_sync.options import (
    DuringOutage,
    ReconnectOptions,
    check_during_outage,
    signalling_options,
)
from metered_sync.wire.events import IceServer, Message
from metered_sync.wire.names import check_channel, check_one_channel, check_peer_id
from metered_sync.wire.secrets import hides_arguments
from metered_sync.wire.states import SignallingClientState

if TYPE_CHECKING:  # (what runs a connection is loaded with the first one)
    from metered_sync.engine.messaging.link import SignallingLink
    from metered_sync.engine.messaging.request import Request
    from metered_sync.wire.control import Token
    from metered_sync.wire.timings import Timings

__all__ = ["SignallingClient", "Subscription"]


class Subscription(Reader[Message]):
    """The messages of one channel, in order, for one reader.

    Iterate over it or call :meth:`get`. ``maxsize`` messages may wait, of ``max_bytes`` in all;
    then one is dropped, by the subscription's ``overflow`` policy, and counted in ``dropped``.
    A subscription that is forgotten without being closed leaves its channel subscribed, for
    callbacks.
    """

    def __init__(
        self,
        channel: str,
        client: SignallingClient,
        link: SignallingLink,
        **options: Any,
    ) -> None:
        super().__init__(f"subscription to {channel!r}", **options)
        self.channel = channel
        self._client = client  # must not be collected while somebody reads
        self._link = link

    def _size(self, item: Message) -> int:
        return item.frame_size

    def close(self) -> None:
        """Stop receiving; closing a channel's last reader unsubscribes from it.

        Does not wait. What is queued can still be read; blocked readers wake.
        """
        super().close()
        self._link.stop_delivery(self.channel, self)


class SignallingClient(Client["SignallingLink"]):
    """A connection to Realtime Messaging: channels, direct messages, presence.

    ``with`` connects and closes; so do :meth:`connect` and :meth:`close`. All methods may
    be called from any thread and from callbacks. A lost connection is made again by itself,
    and subscriptions with it; messages sent meanwhile are lost (the service keeps no
    history), and an :class:`~metered_sync.Outage` event says for how long.

    Args:
        api_key: A publishable key (``pk_live_…``).
            Without key and provider: ``METERED_KEY`` in the environment.
        token_provider: Instead of a key: a plain function that returns a token, as text or as
            :class:`~metered_sync.Token`, called on a worker thread before the first connect
            and each reconnect; or a fixed token.
        url: The service's origin, ``wss://host`` (``ws://`` for loopback hosts only);
            ``METERED_URL`` in the environment.
        timeout: Seconds that a call which acts may take, unless it says otherwise.
        reconnect: ``False`` for never, or :class:`ReconnectOptions`.
        inactivity_timeout: Seconds of silence after which the connection counts as lost.
        token_provider_timeout: Seconds that one call of the provider may take.
        auto_resubscribe: Whether subscriptions are repeated after a reconnect.
        rate_limit: Frames per second and burst that the client keeps to; the service
            closes a connection that sends more than 100 and 200. ``None``: no limit.
        ca_file: A file of certificates (PEM) to be trusted instead of the system's; the
            environment's ``SSL_CERT_FILE``, else ``REQUESTS_CA_BUNDLE``, unless given.

    Raises:
        ValueError: Both or neither of key and provider, a key or token of another kind, or
            another bad argument.
        TypeError: A provider that is no plain function: an ``async def``, for instance.
    """

    _emitter = "SignallingClient"

    @hides_arguments
    def __init__(
        self,
        *,
        api_key: str | None = None,
        token_provider: Callable[[], str | Token] | Token | str | None = None,
        url: str | None = None,
        timeout: float = 15.0,
        reconnect: bool | ReconnectOptions = True,
        inactivity_timeout: float = 60.0,
        token_provider_timeout: float = 10.0,
        auto_resubscribe: bool = True,
        rate_limit: tuple[float, float] | None = (90, 180),
        ca_file: str | os.PathLike[str] | None = None,
        _timings: Timings | None = None,
    ) -> None:
        super().__init__("SignallingClient", timeout)
        try:
            self._options = signalling_options(
                "SignallingClient",
                api_key=api_key,
                token_provider=token_provider,
                url=url,
                reconnect=reconnect,
                inactivity_timeout=inactivity_timeout,
                token_provider_timeout=token_provider_timeout,
                auto_resubscribe=auto_resubscribe,
                rate_limit=rate_limit,
                ca_file=ca_file,
            )
        finally:
            del api_key, token_provider  # no frame of a traceback shows them
        self._url = self._options.url
        self._timings = _timings
        self._deliveries = Deliveries()

    def __repr__(self) -> str:
        peer = f", peer {self.peer_id!r}" if self.peer_id else ""
        return f"<SignallingClient {self._url}: {self.state}{peer}>"

    # --- life ---

    def connect(self, *, timeout: float | None = None) -> None:
        """Connect, and return when the server has sent its welcome.

        Returns at once if connected. A first connect is not retried.

        Raises:
            SignallingConnectError: Refused, unreachable or not a messaging service.
            MeteredTimeoutError: No welcome before the deadline.
            ClosedError: The client was closed; make a new one.
        """
        deadline = self._deadline(timeout)
        link = self._link_to_open()
        self._call(link.connect, deadline=deadline, what="connect", progress=link.progress)

    def _enter(self) -> None:
        self.connect()

    def _make_link(self, engine: Engine) -> SignallingLink:
        # Here, on a caller's thread: loading it takes as long as all that is imported without it.
        from metered_sync.engine.messaging.link import SignallingLink
        from metered_sync.wire.timings import DEFAULT_TIMINGS

        timings = self._timings or DEFAULT_TIMINGS
        return SignallingLink(engine, self._hub, self._options, self._label, timings)

    # --- what the connection knows ---

    @property
    def state(self) -> SignallingClientState:
        """``"idle"``, ``"connecting"``, ``"connected"``, ``"reconnecting"`` or ``"closed"``."""
        if self._link is None:
            return "closed" if self._closed else "idle"
        return self._link.state

    @property
    def peer_id(self) -> str | None:
        """This client's id among the peers; ``None`` before the first welcome."""
        return self._link.peer_id if self._link is not None else None

    @property
    def expires_at(self) -> float | None:
        """The token's expiry in unix seconds; ``None`` with a publishable key."""
        return self._link.expires_at if self._link is not None else None

    @property
    def max_message_size(self) -> int | None:
        """The largest frame the server accepts, in bytes; ``None`` before the first welcome."""
        return self._link.max_message_size if self.peer_id is not None and self._link else None

    @property
    def ice_servers(self) -> tuple[IceServer, ...] | None:
        """STUN and TURN servers from the welcome, where it had some."""
        return self._link.ice_servers if self._link is not None else None

    # --- channels ---

    def subscribe(
        self,
        channel: str,
        *,
        include_sender_metadata: bool = False,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
        timeout: float | None = None,
    ) -> Subscription:
        """Subscribe to a channel, and return its messages once the server has acknowledged.

        Again on the same channel it returns a further, independent reader.

        Args:
            channel: 1 to 256 bytes of UTF-8.
            include_sender_metadata: Fill ``sender_metadata`` of messages. On for all readers
                of the channel if one asks for it.
            maxsize: How many messages may wait to be read.
            max_bytes: How many bytes their frames may have together. (In memory a message
                takes up to 23 times as much.)
            overflow: What a full reader drops: ``"drop_oldest"`` or ``"drop_newest"``.

        Raises:
            ServerRequestError: Refused; ``code`` says why.
            AckTimeoutError: No acknowledgement before the deadline.
            NotConnectedError: Before :meth:`connect`.
        """
        deadline = self._deadline(timeout)
        what = f"subscribe to {check_channel(channel)!r}"
        link = self._ready(what)
        options = {"maxsize": maxsize, "max_bytes": max_bytes, "overflow": overflow}
        reader = Subscription(channel, self, link, **options)
        try:
            link.wait(link.subscribe(channel, reader, include_sender_metadata), deadline)
        except BaseException:
            reader.close()
            raise
        return reader

    def unsubscribe(self, channel: str, *, timeout: float | None = None) -> None:
        """Close all readers of a channel and wait until the server knows.

        Does nothing where the channel is not subscribed to.
        """
        deadline = self._deadline(timeout)
        what = f"unsubscribe from {check_channel(channel)!r}"
        link = self._ready(what)
        try:
            link.wait(link.unsubscribe(channel), deadline)
        except DisconnectedError:
            pass  # the next connection will not repeat the subscription

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        during_outage: DuringOutage = "wait",
        timeout: float | None = None,
    ) -> None:
        """Publish to a channel's subscribers; return when the server has acknowledged.

        The publisher does not receive its own message.

        Args:
            channel: 1 to 256 bytes of UTF-8. Subscribing first is not needed.
            data: Anything that JSON can carry. With everything around it, at most
                :attr:`max_message_size` bytes.
            during_outage: ``"wait"`` for the reconnect, within the deadline, or ``"fail"``
                with :class:`NotConnectedError` at once.
            timeout: Seconds until the acknowledgement; ``None`` is the client's default.

        Raises:
            ServerRequestError: Refused; ``code`` says why.
            NotConnectedError: The frame never left: safe to repeat.
            DisconnectedError: The connection was lost in between; it may have arrived.
            AckTimeoutError: No acknowledgement in time; ``sent`` says whether it had left.
            OversizedPayloadError: Larger than the server accepts; nothing was sent.
            TypeError, ValueError: The data is not JSON.
        """
        deadline = self._deadline(timeout)
        what = f"publish to {check_one_channel(channel, 'publish')!r}"
        outage = check_during_outage(during_outage)
        link = self._ready(what)
        request = link.outbox.publication(channel, data, what, outage=outage)
        link.outbox.put(request)
        link.wait(request, deadline)

    def send(
        self,
        peer_id: str,
        data: Any,
        *,
        during_outage: DuringOutage = "wait",
        timeout: float | None = None,
    ) -> None:
        """Send to one peer, which receives a :class:`~metered_sync.Direct` event.

        Arguments and errors as :meth:`publish`; the key needs the Send permission.
        """
        deadline = self._deadline(timeout)
        what = f"send to {check_peer_id(peer_id)!r}"
        outage = check_during_outage(during_outage)
        link = self._ready(what)
        request = link.outbox.direct_message(peer_id, data, what, outage=outage)
        link.outbox.put(request)
        link.wait(request, deadline)

    def publish_nowait(self, channel: str, data: Any) -> Delivery:
        """Publish without waiting; return the :class:`Delivery` that tells how it went.

        Messages leave in the order of the calls, and are acknowledged behind your back; so
        many of them take little more time than one. During an outage they queue. Call
        :meth:`flush` before :meth:`close`: what is on its way then fails with
        :class:`ClosedError`.

        Raises:
            queue.Full: 4,096 messages or 16 MiB wait to be sent; call :meth:`flush`.
            NotConnectedError, OversizedPayloadError, TypeError, ValueError: As :meth:`publish`.
        """
        what = f"publish to {check_one_channel(channel, 'publish')!r}"
        link = self._ready(what, blocking=False)
        request = link.outbox.publication(channel, data, what, timeout=self._timeout)
        return self._deliver(link, request)

    def send_nowait(self, peer_id: str, data: Any) -> Delivery:
        """Send to one peer without waiting; otherwise as :meth:`publish_nowait`."""
        what = f"send to {check_peer_id(peer_id)!r}"
        link = self._ready(what, blocking=False)
        request = link.outbox.direct_message(peer_id, data, what, timeout=self._timeout)
        return self._deliver(link, request)

    def flush(self, *, timeout: float | None = None) -> None:
        """Wait until what was queued before is acknowledged or has failed.

        Raises:
            MeteredTimeoutError: Not in time. What is on its way stays so.
            SignallingError: The first failure that nobody has fetched from its
                :class:`Delivery`; the others are on theirs.
            ClosedError: The client is closed.
        """
        deadline = self._deadline(timeout)
        link = self._connected("flush")
        self._start().check("flush")
        self._deliveries.flush(deadline)
        link.check()

    # --- who is there ---

    def roster(
        self, channel: str, *, timeout: float | None = 0.0
    ) -> dict[str, dict[str, Any] | None]:
        """Return who else is in a channel: peer id to metadata, ``None`` where it has none.

        Kept current from presence events; after a reconnect it is the old one until the
        server has listed the members anew. It stays empty where the key or token lacks the
        presence permission, and for patterns.

        Args:
            channel: A channel that is subscribed to.
            timeout: Seconds to wait for the first list of members, which follows a
                subscription's acknowledgement; 0 returns what is known, ``None`` waits as long
                as the client's default.

        Raises:
            KeyError: The channel is not subscribed to.
            MeteredTimeoutError: No list came in time.
        """
        deadline = self._deadline(timeout)
        what = f"roster of {check_channel(channel)!r}"
        link = self._connected(what)
        channels = link.subscriptions
        try:
            if deadline.timeout:
                self._start().check(what)
                if not channels.listed(channel).wait(deadline):
                    raise MeteredTimeoutError(
                        f"{what}: the server has listed no members within {deadline}; "
                        "does the key or token have the presence permission?"
                    )
            return channels.members(channel)
        except KeyError:
            lacking = KeyError(f"{what}: the channel is not subscribed to")
        link.check()
        raise lacking

    # --- crossing ---

    def _ready(self, what: str, *, blocking: bool = True) -> SignallingLink:
        """Return the link; raise where the call cannot be made from here, or now."""
        link = self._connected(what)
        link.check_open(what, blocking=blocking)
        return link

    def _deliver(self, link: SignallingLink, request: Request) -> Delivery:
        """Queue a request that nobody waits for; it has a timeout of its own."""
        delivery = Delivery(link, self._hub, request)
        link.outbox.put(request)
        self._deliveries.add(request)
        return delivery
