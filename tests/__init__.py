"""One file for each room of the house; what several share stands beside them."""

from hypothesis import settings

# No test fails because the machine is busy.
settings.register_profile("pop3toy", deadline=None)
settings.load_profile("pop3toy")
