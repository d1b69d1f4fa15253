"""What holds for all tests: how long a generated example takes tells of the machine, and fails nothing."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None, print_blob=True)
settings.load_profile("no deadline")
