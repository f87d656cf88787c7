"""No example of hypothesis has a deadline: a busy machine may be slow at any of them."""

from hypothesis import settings

settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
