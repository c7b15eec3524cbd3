import os
from contextlib import contextmanager

import pytest


@pytest.fixture
def read_only(monkeypatch):
    """A context manager in which a folder, the working directory, cannot be written to."""

    @contextmanager
    def protect(folder):
        # Root may write anywhere, and nobody else may enter its temporary folders from above.
        monkeypatch.chdir(folder)
        mode, user = folder.stat().st_mode, os.geteuid()
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)
            folder.chmod(mode)

    return protect
