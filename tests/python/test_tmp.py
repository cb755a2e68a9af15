import time, functools, cProfile, pstats
from conftest import *
def test_a(warehouse, project, sandbox, monkeypatch):
    build=transform.build
    monkeypatch.setattr(transform,"build",lambda t,c,a=(),**k: build(t,c,["--select","stg_landed_objects","raw_objects","accepted_violations","test_type:singular"],**k))
    run_gmail(warehouse, sandbox)
    p=cProfile.Profile(); p.enable()
    t=time.monotonic(); r=run_gmail(warehouse, sandbox); print(time.monotonic()-t)
    p.disable(); pstats.Stats(p).sort_stats("cumulative").print_stats(60)
