"""Proxies, as the environment names them: what goes by one, and what never does."""

from __future__ import annotations

import os
import urllib.parse
import urllib.request

from loaders.errors import register_url_password

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def use_proxies_for_others_alone() -> None:
    """Let nothing that goes to this machine go by a proxy, whichever library sends it: all of them
    read `no_proxy`. Proxies' passwords are secrets."""
    proxies = [value for name, value in os.environ.items() if name.lower().endswith("_proxy")]
    for value in proxies:
        register_url_password(value)
    exempt = [os.environ[name] for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)]
    if not proxies or "*" in exempt:
        return
    hosts = [host.strip() for hosts in exempt for host in hosts.split(",")]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(
        dict.fromkeys([*filter(None, hosts), *_THIS_MACHINE])
    )


def by_proxy(url: str, *more: str) -> str:
    """Of an error's text: by which proxy a request went, if by any; `more` are other variables
    that its library reads, such as `all`."""
    parts = urllib.parse.urlsplit(url)
    proxies = urllib.request.getproxies_environment()
    scheme = next((name for name in (parts.scheme, *more) if proxies.get(name)), None)
    if scheme is None or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    proxy = urllib.parse.urlsplit(proxies[scheme])
    return f" by the proxy {proxy.netloc.rpartition('@')[2]} ({scheme.upper()}_PROXY)"
