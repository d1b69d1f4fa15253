"""What holds for all tests: how long a generated example takes tells of the machine, and fails nothing; and the
processes that they start get the signals that tests send, also when we were started by nohup or in the background."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from lob.names import ring_name
from processes.peer import own_instance

settings.register_profile("no deadline", deadline=None, print_blob=True)
settings.load_profile("no deadline")

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # a child would inherit it
        signal.signal(number, handler)


@pytest.fixture
def name() -> Iterator[str]:
    """A ring's name that nobody else has; what the test leaves under it, or beside it, is removed."""
    with own_instance() as instance:
        yield ring_name(instance, "raw")
