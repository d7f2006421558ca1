"""Decide when to offer, answer, repeat, begin anew and give up: a machine without I/O.

Events go in, with the time; actions come out. :class:`RemoteConnection` carries them out.

In ``machine`` is what is done with which event in which phase; in ``events`` what it is told of,
and what it asks for; in ``exchange`` what was exchanged on one generation, which tells whether what
comes is stale; in ``schedule`` the deadlines, and the attempts so far.

**Who offers.** Either side may, at any time. The two agree on who gives way by their ids: the
*polite* one has the smaller. At first each lets the other begin: the polite one for
``Timings.first_offer``, so that as a rule offers do not cross; the other for ``Timings.courtesy``,
since a browser offers at once, polite or not, and one that is interrupted in its first offer on a
peer connection may never find candidates. So it is on each generation; after its first negotiation
nobody waits.

Two with this library tell each other so, in a hello that other clients take for nothing, and
whether they have something to offer. Then one of them offers at once, and the other knows it:
the impolite one if it has said that it offers, else the polite one if it has, else whoever has
something first. Later generations begin without words: the polite one waits for
``Timings.courtesy``, the other does not.

**Where offers cross**, the polite side takes its own back and answers; the other ignores what
came. It repeats its own soon, in case that was what the other side missed. What cannot be taken
back, since its sections do not fit, is dropped with its generation.

**A generation** is one peer connection. aiortc cannot restart ICE, so wherever a browser would,
the next generation takes the place of the present one. The other side knows it by a new ICE
user name fragment, and answers from a new generation itself: what we do, too, when its fragment
changes. An answer with another fragment means that it has dropped what we had together; one that
comes when nobody waits for it, that what we took was outdated.

**What ends a generation:** it does not connect within ``Timings.media_connect``; it fails (a path
that has died counts once signalling is up: before, nothing could be made anew); the other side
closes it but stays (``Timings.media_closed`` later, lest it was leaving); a step of the negotiation
fails; a track that the other side sends again cannot be received on it; it, or we, come back from
an outage of signalling. Before each attempt there is a pause, the next of ``Timings.ladder``; none
after the last. A connection that comes up begins the ladder anew, and ends a pause: a late answer
may bring that about. After the last attempt only the other side's offer helps, or a rebuild.

**What is lost** is sent again: an offer without an answer, an answer after which no connection
comes about, after ``Timings.answer``, then twice that, up to ``Timings.answer_max``. An offer
that comes again gets the same answer again, to the letter: the other side may not be waiting for
one any more, and would not learn of what is new in it. Other clients make a new one. Since
nothing in an answer says which offer it is for, such a one may also be taken for an answer to the
next offer. So where an answer nobody waits for says something else than the one that was taken,
or where one refuses a track after an offer was repeated, we offer once more, ``MAX_DOUBTS`` times
in a row at the most (:class:`Exchange`).

**What is refused** is not offered again. An answer that rejects the section of a track of ours
(port 0), or does not want to receive in it, settles the matter: the track counts as placed, until
our tracks change, a section of the other side has room for it, or a new generation begins; then
there is one offer more. Where a section that was agreed on is stopped by an offer, its track moves
to another one, and settles if that is stopped, too. Where nothing is left in use, there is nothing
to connect for: the state is ``idle``, and no deadline runs. (:class:`Sections` remembers what was
refused; here it shows in :attr:`Observed.unsettled` and :attr:`AnswerTaken.in_use`.)

While an action takes its time the machine is told of nothing but its outcome. The table names what
is done, by methods of :class:`Negotiation`:

============ ================ ================ ================ ================ ================
event        STABLE           OFFERED          CLOSING          PAUSED           EXHAUSTED
============ ================ ================ ================ ================ ================
Observed     look             look             look             look_for_life    look_for_life
Tick         offer_or_repeat  repeat_or_fail   fail_if_late     begin_anew       fail_if_late
OfferCame    answer           meet_offer       answer_anew      answer_anew      answer_anew
AnswerCame   doubt            take_answer      ignore           take_late_answer take_late_answer
HelloCame    note_hello       note_hello       note_hello       note_hello       note_hello
TracksDiffer replace          replace          replace          replace          replace
Rebuild      rebuild          rebuild          rebuild          rebuild          rebuild
============ ================ ================ ================ ================ ================

============= ================ ================ ================
event         MAKING           ANSWERING        TAKING
============= ================ ================ ================
OfferMade     note_offer       -                -
OfferAnswered -                note_answer      -
AnswerTaken   -                -                note_agreement
ActionFailed  fail             answer_or_fail   fail
Rebuild       rebuild          rebuild          rebuild
============= ================ ================ ================

In every phase ``InternalError`` leads to a failure, and ``Closing`` to the end, after which
nothing is done. What may come of each, besides nothing:

================ ============================================ ==================================
method           actions                                      phases after it
================ ============================================ ==================================
look             StartMedia ChangeState Report GiveUp         STABLE OFFERED CLOSING PAUSED
                                                              EXHAUSTED
look_for_life    StartMedia ChangeState                       STABLE OFFERED PAUSED EXHAUSTED
offer_or_repeat  Greet ChangeState MakeOffer Send Report      STABLE MAKING PAUSED EXHAUSTED
                 GiveUp
repeat_or_fail   Send ChangeState Report GiveUp               OFFERED PAUSED EXHAUSTED
fail_if_late     ChangeState Report GiveUp                    CLOSING PAUSED EXHAUSTED
begin_anew       Replace ChangeState TellReset                PAUSED STABLE
answer           Send Replace ChangeState TellReset           STABLE ANSWERING
                 MakeAnswer
meet_offer       Send RollBack Replace ChangeState TellReset  OFFERED ANSWERING
                 MakeAnswer
answer_anew      Replace ChangeState TellReset MakeAnswer     ANSWERING
doubt            Report ChangeState                           STABLE PAUSED
take_answer      TakeAnswer Replace ChangeState TellReset     OFFERED TAKING STABLE
take_late_answer TakeAnswer Replace ChangeState TellReset     PAUSED EXHAUSTED TAKING STABLE
ignore                                                        CLOSING
note_hello                                                    STABLE OFFERED CLOSING PAUSED
                                                              EXHAUSTED
note_offer       Send ChangeState                             OFFERED CLOSING
note_answer      Send UpdateTracks ChangeState                STABLE CLOSING
note_agreement   UpdateTracks ChangeState                     STABLE CLOSING PAUSED EXHAUSTED
answer_or_fail   Replace ChangeState TellReset MakeAnswer     ANSWERING PAUSED EXHAUSTED
                 Report GiveUp
fail             Report GiveUp ChangeState                    PAUSED EXHAUSTED
replace          Replace ChangeState TellReset                STABLE
rebuild          Replace ChangeState TellReset                STABLE
================ ============================================ ==================================

Facts: the WebRTC specification, "perfect negotiation"; docs/protocol/rooms.md;
docs/architecture/negotiation.md.
"""
