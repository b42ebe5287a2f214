"""Tell a registry that refuses an image from one that is busy, broken or away, by its words."""

import re

REFUSED = re.compile(
    r"\b(401|403|404)\b|unauthorized|forbidden|denied|not found|does not exist|manifest unknown|no match.* manifest",
    re.IGNORECASE,
)
"""What a registry says about an image or about us, which another try does not change."""
UNANSWERED = re.compile(
    r"\b(429|5\d\d) [A-Z]|(status|code)\D{0,20}\b(429|5\d\d)\b|toomanyrequests|time(d )?out|deadline exceeded|EOF"
    r"|connection (refused|reset)|no such host|server misbehaving|unreachable|temporar(y|ily)|unavailable",
    re.IGNORECASE,
)
"""What a registry that is busy, broken or away gives. The rest of such a message may name what was asked for."""


def is_refusal(message: str) -> bool:
    """Return whether a message about a pull is a registry's refusal, and not its silence."""
    return REFUSED.search(message) is not None and not UNANSWERED.search(message)
