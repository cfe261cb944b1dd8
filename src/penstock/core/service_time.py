"""How long a provider needs for a reply of so many tokens, once it has started."""

from dataclasses import dataclass, field

LEAST_S = 1e-6
KNOWN_REPLIES, REACH = 3, 4.0
"""A line's word counts after so many replies, up to so many times the longest of them."""


@dataclass(slots=True)
class _Bin:
    """The fastest recent reply around one length: two half-windows, so that old ones leave."""

    tokens: float = 0.0
    latency_s: float = float("inf")
    older_tokens: float = 0.0
    older_latency_s: float = float("inf")
    count: int = 0

    def add(self, tokens: float, latency_s: float, keep: int) -> bool:
        """Take in one reply; return whether the envelope changed."""
        self.count += 1
        changed = False
        if self.count > keep:
            self.older_tokens, self.older_latency_s = self.tokens, self.latency_s
            self.tokens, self.latency_s, self.count = tokens, latency_s, 1
            changed = True
        elif latency_s < self.latency_s:
            self.tokens, self.latency_s = tokens, latency_s
            changed = True
        return changed

    def point(self) -> tuple[float, float]:
        """Return (tokens, latency) of the fastest reply in the window."""
        if self.older_latency_s < self.latency_s:
            return self.older_tokens, self.older_latency_s
        return self.tokens, self.latency_s


@dataclass(slots=True)
class Envelope:
    """A time as intercept + slope x tokens, from the lower envelope of recent observations.

    Observations fall into bins of half an octave of their length; each bin remembers its fastest
    one of the last `keep` to 2 x `keep`. A fast reply is one that did not wait inside the
    provider, so a line through those points is the time without hidden waiting.

    Source:
        Ours; the minimum filter is that of BBR's round-trip estimate (Cardwell et al., CACM
        60(2), 2017), made conditional on the length.

    """

    base_s: float = 0.2
    s_per_token: float = 0.005
    keep: int = 32
    replies: int = 0
    longest: int = 0
    _bins: dict[int, _Bin] = field(default_factory=dict)

    def predict_s(self, tokens: float) -> float:
        """Return the predicted time in seconds for this many tokens."""
        return self.base_s + self.s_per_token * tokens

    def knows(self, tokens: float) -> bool:
        """Return whether the line can be believed there: it has seen enough, and nearly as long."""
        return self.replies >= KNOWN_REPLIES and tokens <= REACH * self.longest

    def observe(self, tokens: int, latency_s: float) -> None:
        """Learn from one time; tokens below 0 and times that no clock resolves teach nothing."""
        if tokens < 0 or latency_s < LEAST_S:
            return
        self.replies += 1
        if tokens > self.longest:
            self.longest = tokens
        index = (tokens * tokens).bit_length()  # half-octave bins
        bin_ = self._bins.get(index)
        if bin_ is None:
            bin_ = self._bins[index] = _Bin()
        if bin_.add(tokens, latency_s, self.keep):
            self._refit()

    def _refit(self) -> None:
        points = [bin_.point() for _, bin_ in sorted(self._bins.items())]
        if len(points) == 1:
            tokens, latency_s = points[0]
            scale = latency_s / max(LEAST_S, self.predict_s(tokens))
            self.base_s *= scale
            self.s_per_token *= scale
            return
        # Relative errors count alike: weight 1 / latency^2, or xlong replies drown the intercept.
        sw = sx = sy = sxx = sxy = 0.0
        for tokens, latency_s in points:
            w = 1.0 / (latency_s * latency_s)
            sw += w
            sx += w * tokens
            sy += w * latency_s
            sxx += w * tokens * tokens
            sxy += w * tokens * latency_s
        det = sw * sxx - sx * sx
        if det <= 1e-12 * sw * sxx:
            return
        slope = (sw * sxy - sx * sy) / det
        base = (sy - slope * sx) / sw
        if slope <= 0:
            slope, base = 0.0, sy / sw
        if base < 0:
            slope, base = sxy / sxx, 0.0
        self.base_s, self.s_per_token = base, slope


@dataclass(slots=True)
class ServiceTime(Envelope):
    """One model's times at one upstream: whole replies by output, first tokens by input length.

    Attributes:
        first: the time to the first token over prompt tokens, where replies are streamed.

    """

    first: Envelope = field(default_factory=lambda: Envelope(0.2, 1e-6))

    def observe(self, tokens: int, latency_s: float) -> None:
        """Learn from a complete reply of `tokens` that took `latency_s` from dispatch."""
        if tokens >= 1:
            Envelope.observe(self, tokens, latency_s)
