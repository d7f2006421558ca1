"""Turn speech into phrases, and text into speech, both on this machine alone."""

import shutil
import subprocess
import threading
import wave

from pocketsphinx import Decoder, Endpointer

from metered_sync import AudioSource, ClosedError

GRAMMAR = "#JSGF V1.0; grammar agent; public <phrase> = {};"
RATE = 16000  # samples per second of what is listened to
ESPEAK_RATE = 22050  # samples per second of what espeak-ng makes


class Ears:
    """Tell when somebody speaks, and which of some phrases it was. One for each speaker."""

    def __init__(self, phrases):
        self.phrases = list(phrases)
        self.endpointer = Endpointer(sample_rate=RATE)
        self.decoder = Decoder(lm=None, loglevel="FATAL")
        self.decoder.add_jsgf_string("agent", GRAMMAR.format(" | ".join(self.phrases)))
        self.decoder.activate_search("agent")

    def listen(self, track):
        """Listen from now on: see `understand()`."""
        return self.understand(track.pcm(rate=RATE, chunk=self.endpointer.frame_length))

    def understand(self, chunks):
        """Yield "speech" when speech begins, and when it has ended the phrase, or "?"."""
        under_way = False
        for samples in chunks:
            speech = self.endpointer.process(samples.tobytes())
            if speech is None:  # silence, or noise
                continue
            if not under_way:
                under_way = True
                self.decoder.start_utt()
                yield "speech"
            self.decoder.process_raw(speech)
            if not self.endpointer.in_speech:
                under_way = False
                self.decoder.end_utt()
                heard = self.decoder.hyp()
                yield heard.hypstr if heard and heard.hypstr in self.phrases else "?"


class Mouth:
    """Speak into a track with espeak-ng; stop at once when told to."""

    def __init__(self, voice="en-us"):
        if shutil.which("espeak-ng") is None:
            raise RuntimeError("espeak-ng is missing: install the package of that name")
        self.source = AudioSource(input_rate=ESPEAK_RATE, max_buffered_seconds=1)
        self.voice = voice
        self._saying = None  # the thread that speaks; another one, or None, tells it to stop

    def say(self, text):
        """Speak; what is being said is broken off. Returns at once; `speaking` tells the rest."""
        self.hush()
        self._saying = threading.Thread(target=self._say, args=(text,), daemon=True)
        self._saying.start()

    def hush(self):
        """Say no more: what has not been sent yet never will be."""
        self._saying = None
        self.source.clear()

    @property
    def speaking(self):
        return self._saying is not None and self._saying.is_alive()

    def _say(self, text):
        command = ["espeak-ng", "-v", self.voice, "--stdin", "--stdout"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        try:
            with subprocess.Popen(command, **pipes) as espeak:
                espeak.stdin.write(text.encode())
                espeak.stdin.close()
                with wave.open(espeak.stdout) as speech:
                    while part := speech.readframes(ESPEAK_RATE // 50):
                        if threading.current_thread() is not self._saying:
                            return
                        self.source.push(part)  # waits while a second of it is on its way
            self.source.wait_drained()
        except ClosedError:
            pass  # the program ends
