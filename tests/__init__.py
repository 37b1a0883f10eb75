"""A folder for each package, a file for each subject; what several share stands beside them."""

from hypothesis import settings

# No test fails because the machine is busy.
settings.register_profile("pop3toy", deadline=None)
settings.load_profile("pop3toy")
