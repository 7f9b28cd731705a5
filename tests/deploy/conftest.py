"""A federation across processes of this machine, for the tests of a file."""

import os
import shutil
from collections.abc import Iterator

import pytest
from deployed_federation import SITES, Deployed
from waiting import until


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """A federation whose first hospital is admitted, with its server started."""
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("nginx is not installed")
    made = Deployed(tmp_path_factory.mktemp("deployed"))
    made.provision()
    made.admit(SITES[0])
    made.start()
    try:
        until(made.listens, "the federation can be reached")
        yield made
    finally:
        made.end()
