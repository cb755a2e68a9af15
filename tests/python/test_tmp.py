import pytest
from conftest import *
from test_event_log import log, spooled
@pytest.mark.parametrize("kw",[dict(error_message="bad \udcff x"),dict(error_message="nul \x00 x"),dict(error_message="x",payload={"t":"\udcff"}),dict(error_message="x",payload={"t":"\x00"}),dict(error_message="x",payload={"t":float("nan")})],ids=str)
def test_x(warehouse, kw):
    log(warehouse,"job.failed",**kw); print(spooled(warehouse), events(warehouse))
    assert not spooled(warehouse)
