"""A voice agent: a member of a room that listens, understands a few phrases, and answers.

    python agent.py ROOM

Whoever joins can talk to it, from a browser or from anywhere. It may be interrupted: as soon
as somebody speaks, it is silent and listens.
"""

import sys
import threading
import time

from speech import Ears, Mouth

from metered_sync import MeteredError, MeteredPeer, PeerJoined

STORY = """Once upon a time, two computers wanted to talk to each other. But a wall stood between
them, and neither could see the other. So they asked a friend who lived on top of the wall, and
the friend carried their letters to and fro. From these letters they learned of a small gap in the
wall, just wide enough for a voice. And if nobody has closed it, they are talking to this day."""

ANSWERS = {
    "tell me a story": lambda: STORY,
    "what is the time": lambda: time.strftime("It is %H:%M."),
    "thank you": lambda: "You are welcome.",
    "goodbye": lambda: "Goodbye.",
}
NOT_UNDERSTOOD = "Sorry, I did not understand. You may say: " + ", or: ".join(ANSWERS)


def converse(caller, mouth):
    """Talk with one caller until they leave; tell them by messages, too, what is going on."""
    try:
        words = Ears(ANSWERS).listen(caller.track("audio", timeout=60))
        caller.send({"listening": True})
        for heard in words:
            if heard != "speech":
                answer = ANSWERS.get(heard, lambda: NOT_UNDERSTOOD)()
                mouth.say(answer)
                caller.send({"heard": heard, "answer": answer})
            elif mouth.speaking:
                mouth.hush()  # they interrupt: let them speak
                caller.send({"interrupted": True})
    except MeteredError as error:
        print(f"the conversation with {caller.id} has ended: {error}", flush=True)


def main(room):
    mouth = Mouth()
    with mouth.source, MeteredPeer() as peer, peer.events(PeerJoined) as arrivals:
        peer.add_track(mouth.source.audio)
        peer.join(room)
        print(f"listening in {room!r}", flush=True)
        for arrival in arrivals:
            threading.Thread(target=converse, args=(arrival.peer, mouth), daemon=True).start()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        pass
